"""Adapters on the model hub: fetched into its cache, and uploaded."""

from __future__ import annotations

from pathlib import Path

from mvretrieval.errors import AdapterError

HUB = "hf-hub:"
MODEL, CONFIG, CARD, LOG = "model.safetensors", "config.json", "README.md", "log.jsonl"


def push(folder: Path, repository: str, private: bool = False) -> str:
    """Upload a saved adapter to the model hub: its own files, whatever else is in the folder.

    Args:
        folder: where it was saved.
        repository: `owner/name`; made if it is not there.
        private: for a new repository.

    Returns:
        Its address.

    Raises:
        AdapterError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=[MODEL, CONFIG, CARD, LOG])
    except _errors() as error:
        raise AdapterError(
            f"the adapter was not uploaded to {repository}: {error}. Log in with 'hf auth login' or set HF_TOKEN, and "
            "name a repository of your own as owner/name"
        ) from error
    return f"{HUB}{repository}"


def fetch(source: str) -> Path:
    """Folder of an adapter of the model hub, in the cache.

    Raises:
        AdapterError: it cannot be had.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=[MODEL, CONFIG]))
    except _errors() as error:
        raise AdapterError(
            f"the adapter {source} cannot be had ({type(error).__name__}): check its name and the connection, or copy the "
            "folder here and name its path"
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # A lost connection is an error of the HTTP library alone, and the hub's versions differ in which that is.
    library = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    return (*library, OSError, ValueError)
