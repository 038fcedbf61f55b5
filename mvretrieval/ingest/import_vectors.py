"""Importing vectors that were computed elsewhere: a collection of vectors with ids and labels, without meshes.

Each object has one view, of unknown direction, whose vector is the object's. Whitening, adapters, late interaction, calibration and
training therefore work as they do for rendered objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike, NDArray

from mvretrieval.describe import IMPORTED_RIG, DescriberConfig
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.errors import CollectionError, DescriberError, VectorsError
from mvretrieval.index.kinds import IndexKind
from mvretrieval.ingest.import_run import ImportReport, Progress, import_table
from mvretrieval.ingest.imported_objects import FORMAT
from mvretrieval.ingest.vector_table import VectorTable, table_of_arrays
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.session import Session
from mvretrieval.store.label_columns import check_new_labels
from mvretrieval.store.schema import FILE


def import_vectors(
    collection: str | Path | Session,
    ids: ArrayLike,
    vectors: ArrayLike,
    metadata: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    index: IndexKind | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Add vectors that were computed elsewhere to a collection, which is created if it does not exist.

        import_vectors("things/", ["a", "b"], np.random.rand(2, 512), {"label": ["chair", "table"]})

    Vectors are scaled to unit norm. An object whose id is in the collection is replaced; labels that are not given stay. A vector
    that is zero or not finite is left out and reported. Objects are written in batches: after an interruption, the same call
    resumes.

    Args:
        collection: its folder, or its session if it is open (`things.session`).
        ids: (N,) text or whole numbers, without repetition.
        vectors: (N, D) real numbers.
        metadata: N values for each label, text or numbers; None, NaN and empty text for no value.
        index: kind of index of a new collection; `auto` by default (see `index.kinds`).
        encoder: id of the encoder that made the vectors, to query with images and text; nothing is encoded now.
        progress: called with (done, total).

    Raises:
        CollectionError: the collection holds meshes or images (`not_imported`), has another kind of index, or another process is
            writing.
        DescriberError: the collection has another encoder.
        LabelsError: a label cannot be stored.
        VectorsError: ids or vectors have another shape or type (see `ingest.vector_table.table_of_arrays`), or the vectors have
            another length than those of the collection or of the encoder (`other_dimension`).
    """
    table = table_of_arrays(ids, vectors, metadata)
    if isinstance(collection, Session):
        _check_fits(collection, table, encoder, index)
        return import_table(collection, table, progress)
    with open_for_import(Path(collection), table, encoder, index) as session:
        return import_table(session, table, progress)


def open_for_import(
    folder: Path,
    table: VectorTable,
    encoder: str | None = None,
    index: IndexKind | None = None,
    options: OpenOptions | None = None,
) -> Session:
    """Open a collection for vectors of a table, or create it.

    Raises:
        MvrError: see `import_vectors`; nothing is created then.
    """
    options = options or OpenOptions()
    if (folder / FILE).exists():
        session = Session.open(folder, options, write=True)
        try:
            _check_fits(session, table, encoder, index)
        except BaseException:
            session.release()
            raise
        return session
    check_new_labels(table.labels)
    config = DescriberConfig(encoder=f"vectors:{table.dim}", rig=IMPORTED_RIG)
    if encoder is not None:
        opened = open_encoder(encoder, options.device, options.precision)
        _check_dim(table, opened.dim, f"vectors of {opened.id}")
        config = DescriberConfig(encoder=encoder, rig=IMPORTED_RIG, size=opened.image_size)
    return Session.create(folder, config, options, index or "auto")


def _check_fits(session: Session, table: VectorTable, encoder: str | None, index: IndexKind | None) -> None:
    """Refuse a table or options that do not fit an existing collection."""
    check_new_labels(table.labels)
    store, config = session.store, session.describer.config
    if config.rig != IMPORTED_RIG or len(config.styles) > 1 or store.count_of_format(FORMAT) < store.count():
        raise CollectionError(
            f"{session.folder} was not made by 'mvr import', its objects are meshes or images: import the vectors into a new "
            "collection",
            code="not_imported",
        )
    _check_dim(table, int(store.get_meta("view_dim")), f"the vectors of {session.folder}")
    if encoder is not None:
        if not config.has_encoder:
            raise DescriberError(
                f"{session.folder} was imported without an encoder: leave --encoder out, or import all vectors into a new "
                "collection with it",
                code="other_config",
            )
        session.relocate_encoder(encoder)
    stored = store.get_meta("index", "auto")
    if index is not None and index != stored:
        raise CollectionError(
            f"{session.folder} has an index of kind {stored}, not {index}: leave --index out, or change it with "
            f"'mvr reindex {session.folder} --index {index}'",
            code="other_index_kind",
        )


def _check_dim(table: VectorTable, dim: int, whose: str) -> None:
    if table.dim != dim:
        raise VectorsError(
            f"the vectors in {table.source} have dimension {table.dim}, {whose} have {dim}: only vectors of one model can be "
            "compared. Import these into a new collection",
            code="other_dimension",
        )
