"""Fetches what the web page is made with: from npm, by hash, when the package is built or installed from a checkout."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_VENDOR = "mvretrieval/service/page/vendor"
_REGISTRY = os.environ.get("npm_config_registry", "https://registry.npmjs.org").rstrip("/")
_SECONDS = 60


class _Package(NamedTuple):  # no dataclass: those look themselves up among modules, where Hatch does not list this one
    name: str
    version: str
    sha512: str
    files: dict[str, str]  # path in the package: name here

    @property
    def url(self) -> str:
        return f"{_REGISTRY}/{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


# The 3D viewer and the pages of the API's documentation; both Apache-2.0.
_PACKAGES = (
    _Package(
        "@google/model-viewer",
        "4.4.0",
        "8z1SB5sPlzKoak5mdx/D31brBakPYm3Qi31EfAucHAUrtrHHCbabypkKvSwReYhUpPaxyJ46oT47uWE/hrs1Zw==",
        {"dist/model-viewer.min.js": "model-viewer.min.js", "LICENSE": "model-viewer.LICENSE"},
    ),
    _Package(
        "swagger-ui-dist",
        "5.35.0",
        "U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ==",
        {
            "swagger-ui-bundle.js": "swagger-ui-bundle.js",
            "swagger-ui.css": "swagger-ui.css",
            "LICENSE": "swagger-ui.LICENSE",
        },
    ),
)


class FetchPageParts(BuildHookInterface):  # type: ignore[type-arg]
    """Hatch calls this before it builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is not there yet; without a connection the page does without (pictures to turn, no 3D)."""
        folder = Path(self.root) / _VENDOR
        stamp = folder / "versions.json"
        wanted = {package.name: package.version for package in _PACKAGES}
        if stamp.exists() and json.loads(stamp.read_text()) == wanted:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for package in _PACKAGES:
                _unpack(package, _fetched(package), folder)
        except OSError as error:
            self.app.display_warning(f"the web page is built without its 3D viewer and API pages: {error}")
            return
        stamp.write_text(json.dumps(wanted))


def _fetched(package: _Package) -> bytes:
    with urllib.request.urlopen(package.url, timeout=_SECONDS) as answer:
        data: bytes = answer.read()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != package.sha512:
        raise ValueError(f"{package.url} is not what was pinned: its hash differs")
    return data


def _unpack(package: _Package, data: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for inside, name in package.files.items():
            member = archive.extractfile(f"package/{inside}")
            assert member is not None
            (folder / name).write_bytes(member.read())
