"""Check in seconds that weights are cached or can be downloaded, before a download retries for minutes."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from mvretrieval.errors import WeightsError

_TIMEOUT_S = 5.0
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin")


def hub_cached(repository: str) -> bool:
    """Whether the model hub's cache holds weights of `repository` (such as `laion/CLIP-ViT-B-32-laion2B-s34B-b79K`)."""
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository.strip("/"), name), str) for name in _FILES)


def url_cached(url: str) -> bool:
    """Whether open_clip's cache holds the file at `url`."""
    return (Path.home() / ".cache" / "clip" / url.rsplit("/", 1)[-1]).is_file()


def ensure_hub_weights(encoder_id: str, repository: str) -> None:
    """Check that the weights of a hub repository are cached or that the hub responds.

    Raises:
        WeightsError: neither; the message names the alternatives.
    """
    if hub_cached(repository):
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _unreachable(encoder_id, repository, "HF_HUB_OFFLINE is set and they are not in the cache")
    _probe(encoder_id, f"{constants.ENDPOINT}/api/models/{repository.strip('/')}", repository)


def ensure_url_weights(encoder_id: str, url: str) -> None:
    """Check that weights at a plain URL are cached or that the server responds.

    Raises:
        WeightsError: neither; the message names the alternatives.
    """
    if not url_cached(url):
        _probe(encoder_id, url, url)


def _probe(encoder_id: str, address: str, source: str) -> None:
    headers = {"User-Agent": "mvretrieval"}
    token = os.environ.get("HF_TOKEN")
    if token and address.startswith("https://huggingface.co/"):
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(address, method="HEAD", headers=headers)
    outcomes: list[str] = []  # "" if the server responded, else the cause

    def send() -> None:
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
                outcomes.append("")
        except urllib.error.HTTPError:
            outcomes.append("")  # the server responded; the download reports what is wrong with the weights
        except (OSError, ValueError) as error:
            outcomes.append(f"no connection: {getattr(error, 'reason', error)}")

    # In a thread: name resolution has no timeout, and takes half a minute without a name server.
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    cause = outcomes[0] if outcomes else f"no connection: no response within {_TIMEOUT_S:g} s"
    if cause:
        raise _unreachable(encoder_id, source, cause)


def _unreachable(encoder_id: str, source: str, cause: str) -> WeightsError:
    architecture = encoder_id.split(":", 1)[-1].split("/")[0].split("@")[0]
    family = encoder_id.split(":", 1)[0]
    local = f"{family}:{architecture}@FILE" if family != "hf-hub" else "open_clip:ARCHITECTURE@FILE"
    return WeightsError(
        f"cannot download the weights of {encoder_id} ({source}): {cause}. Run once with a connection, which caches them; or "
        f"copy them to this machine and use --encoder {local}; or use --encoder builtin:, which needs no weights",
        code="no_weights_offline",
    )
