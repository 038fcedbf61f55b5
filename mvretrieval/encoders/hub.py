"""Whether weights are in the cache or can be fetched, found out in seconds rather than in minutes of retries."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from mvretrieval.errors import WeightsError

_SECONDS = 5.0
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")


def hub_cached(repository: str) -> bool:
    """Whether the model hub's cache holds weights of `repository` (such as `laion/CLIP-ViT-B-32-laion2B-s34B-b79K`)."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository.strip("/"), name), str) for name in _FILES)


def url_cached(url: str) -> bool:
    """Whether open_clip's cache holds the file at `url`."""
    return (Path.home() / ".cache" / "clip" / url.rsplit("/", 1)[-1]).is_file()


def ensure_hub_weights(encoder_id: str, repository: str) -> None:
    """Make sure that the weights of a hub repository are cached or within reach.

    Raises:
        WeightsError: neither; with the ways out.
    """
    if hub_cached(repository):
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _unreachable(encoder_id, repository, "HF_HUB_OFFLINE is set and they are not in the cache")
    _probe(encoder_id, f"{constants.ENDPOINT}/api/models/{repository.strip('/')}", repository)


def ensure_url_weights(encoder_id: str, url: str) -> None:
    """The same for weights at a plain address."""
    if not url_cached(url):
        _probe(encoder_id, url, url)


def _probe(encoder_id: str, address: str, what: str) -> None:
    headers = {"User-Agent": "mvretrieval"}
    token = os.environ.get("HF_TOKEN")
    if token and address.startswith("https://huggingface.co/"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, method="HEAD", headers=headers)
    causes: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS):
                causes.append("")
        except urllib.error.HTTPError:
            causes.append("")  # it is reached; what it says of the weights themselves, the download tells
        except (OSError, ValueError) as error:
            causes.append(f"no connection: {getattr(error, 'reason', error)}")

    # In a thread of its own: looking up a name has no time limit, and takes half a minute where nothing answers.
    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(_SECONDS)
    cause = causes[0] if causes else f"no connection: no answer within {_SECONDS:g} s"
    if cause:
        raise _unreachable(encoder_id, what, cause)


def _unreachable(encoder_id: str, what: str, cause: str) -> WeightsError:
    architecture = encoder_id.split(":", 1)[-1].split("/")[0].split("@")[0]
    family = encoder_id.split(":", 1)[0]
    local = f"{family}:{architecture}@FILE" if family != "hf-hub" else "open_clip:ARCHITECTURE@FILE"
    return WeightsError(
        f"the weights of {encoder_id} ({what}) cannot be reached: {cause}. Ways out: run once with a connection, so that "
        f"they are cached; or copy them here and use --encoder {local}; or use --encoder builtin:, which needs none"
    )
