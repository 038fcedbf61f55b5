"""Open the collection of a folder if it has the wanted configuration, or create it: a script that can be run again."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import DescriberError
from mvretrieval.index.kinds import IndexKind
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.session import Session
from mvretrieval.store.schema import FILE

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter


def open_or_create(
    folder: Path,
    config: DescriberConfig,
    options: OpenOptions | None = None,
    index: IndexKind = "auto",
    adapter: Adapter | None = None,
) -> Session:
    """Open a collection for writing; create it if there is none. An existing one keeps its kind of index.

    Raises:
        DescriberError: the existing collection has another configuration.
    """
    if not (folder / FILE).exists():
        return Session.create(folder, config, options, index, adapter)
    session = Session.open(folder, options, write=True)
    wanted = config if adapter is None else replace(config, adapter=adapter.fingerprint)
    problem = _difference(session.describer.config, wanted)
    if problem:
        session.close()
        raise DescriberError(
            f"{folder} holds a collection with {problem}: choose another folder, or change the collection with "
            f"'mvr reindex {folder}'",
            code="other_config",
        )
    return session


def _difference(found: DescriberConfig, wanted: DescriberConfig) -> str:
    """The first field that differs, with both values; empty if none does."""
    for name, value in asdict(wanted).items():
        if (other := getattr(found, name)) != value:
            return f"{name} {other or 'none'}, not {value or 'none'}"
    return ""
