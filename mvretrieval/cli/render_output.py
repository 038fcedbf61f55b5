"""Files that `mvr render` writes: view images, a view manifest for each style, and a contact sheet."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mvrender.errors import MvrenderError
from mvrender.jobs import Rendered, RenderSpec
from mvrender.shading import Style
from mvretrieval.ingest.view_manifest import read_view_manifest

_THUMBNAIL = 160
_MAX_SHEET_ROWS = 50
_TITLE_HEIGHT = 18


@dataclass
class StyleManifest:
    """The view manifest of one style, which `mvr index --view-manifest` reads.

    Attributes:
        path: of the CSV.
        rows: id -> (file, azimuth_deg, elevation_deg) of each view.
    """

    path: Path
    rows: dict[str, list[tuple[str, str, str]]]

    @classmethod
    def read(cls, path: Path) -> StyleManifest:
        """Read the rows of earlier runs whose images still exist.

        Raises:
            MvrenderError: the folder cannot be used.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                return cls(path, {})
            known = read_view_manifest(path)
        except OSError as error:
            raise MvrenderError(
                f"{path.parent} cannot be used: {error.strerror or error}; choose another --out", code="not_written"
            ) from error
        rows = {}
        for given in known.objects:
            if given.angles and Path(given.images[0]).is_file():
                files = [Path(os.path.relpath(image, known.path.parent)).as_posix() for image in given.images]
                rows[given.id] = [(f, f"{a:.3f}", f"{e:.3f}") for f, (a, e) in zip(files, given.angles, strict=True)]
        return cls(path, rows)

    def write(self) -> None:
        """Write all rows, atomically; without rows, nothing.

        Raises:
            MvrenderError: the file cannot be written.
        """
        if not self.rows:
            return
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            with part.open("w", newline="", encoding="utf-8") as file:
                lines = [(own_id, *view) for own_id in sorted(self.rows) for view in self.rows[own_id]]
                csv.writer(file).writerows([("id", "file", "azimuth_deg", "elevation_deg"), *lines])
            part.replace(self.path)
        except OSError as error:
            raise _not_written(self.path, error) from error


class ContactSheet:
    """Thumbnails of the views of the first 50 meshes."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, Image.Image]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, own_id: str, result: Rendered) -> None:
        """Add a row of thumbnails for each style of an object."""
        if len(self._rows) == _MAX_SHEET_ROWS:
            return
        assert result.views is not None
        rows = []
        for views in result.views.images:
            thumbnails = [_thumbnail(view) for view in views]
            rows.append(np.concatenate([np.asarray(image) for image in thumbnails], axis=1))
        self._rows.append((own_id, Image.fromarray(np.concatenate(rows, axis=0))))

    def save(self, path: Path) -> None:
        """Write the sheet, sorted by id.

        Raises:
            MvrenderError: the file cannot be written.
        """
        rows = sorted(self._rows, key=lambda row: row[0])
        height = sum(row.height + _TITLE_HEIGHT for _, row in rows)
        sheet = Image.new("RGB", (max(row.width for _, row in rows), height), (255, 255, 255))
        draw = ImageDraw.Draw(sheet)
        y = 0
        for name, row in rows:
            draw.text((4, y + 3), name.encode("ascii", "replace").decode(), fill=(60, 60, 60))
            sheet.paste(row, (0, y + _TITLE_HEIGHT))
            y += row.height + _TITLE_HEIGHT
        try:
            sheet.save(path)
        except OSError as error:
            raise _not_written(path, error) from error


def write_views(
    out: Path, own_id: str, result: Rendered, spec: RenderSpec, manifests: dict[Style, StyleManifest]
) -> None:
    """Write all views of an object into a folder of its own; list those that show the object.

    Raises:
        OSError: a file cannot be written.
    """
    assert result.views is not None
    folder = out / own_id
    folder.mkdir(parents=True, exist_ok=True)
    for style, views in zip(spec.styles, result.views.images, strict=True):
        for v, image in enumerate(views):
            Image.fromarray(image).save(folder / f"{style}_{v:02d}.png")
        manifests[style].rows[own_id] = [
            (f"{own_id}/{style}_{v:02d}.png", f"{azimuth:.3f}", f"{elevation:.3f}")
            for v, (azimuth, elevation) in enumerate(zip(spec.rig.azimuths_deg, spec.rig.elevations_deg, strict=True))
            if result.views.mask[v]
        ]


def _thumbnail(view: np.ndarray) -> Image.Image:
    return Image.fromarray(view).resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)


def _not_written(path: Path, error: OSError) -> MvrenderError:
    return MvrenderError(f"{path} cannot be written: {error.strerror or error}", code="not_written")
