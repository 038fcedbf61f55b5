"""Adapters on the Hugging Face hub: download and upload."""

from __future__ import annotations

from pathlib import Path

from mvretrieval.errors import AdapterError

HUB = "hf-hub:"
MODEL, CONFIG, CARD, LOG = "model.safetensors", "config.json", "README.md", "log.jsonl"


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a saved adapter: its own files only, not other files in the folder.

    Args:
        folder: of the adapter.
        repository: `owner/name`; created if missing.
        private: for a new repository.

    Returns:
        Its id, `hf-hub:owner/name`.

    Raises:
        AdapterError: the hub cannot be reached, or rejects the upload (`upload_failed`).
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[MODEL, CONFIG, CARD, LOG])
    except _hub_errors() as error:
        raise AdapterError(
            f"the adapter was not uploaded to {repository}: {error}. Log in with 'hf auth login' or set HF_TOKEN, and "
            "give a repository of your own as owner/name",
            code="upload_failed",
        ) from error
    return f"{HUB}{repository}"


def fetch(source: str) -> Path:
    """Download an adapter into the hub's cache, unless it is there already.

    Args:
        source: `hf-hub:owner/name`, with `@revision` if wanted.

    Returns:
        Its folder in the cache.

    Raises:
        AdapterError: it cannot be downloaded (`download_failed`).
    """
    from huggingface_hub import snapshot_download

    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=[MODEL, CONFIG]))
    except _hub_errors() as error:
        raise AdapterError(
            f"the adapter {source} cannot be downloaded ({type(error).__name__}): check its name and the connection, or "
            "copy the folder to this machine and give its path",
            code="download_failed",
        ) from error


def _hub_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # A lost connection raises an error of the HTTP library, which differs between versions of the hub's client.
    library = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (*library, OSError, ValueError)
