"""Re-embed a collection.

Pooling, whitening, adapter and database-side augmentation are recomputed from the stored view vectors, without the files. Another
encoder, rig, style or view size renders and encodes all files again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from mvrender.renderer import BackendName, NamedBackend
from mvrender.shading import parse_styles
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.confidence.estimator import outdated_notice
from mvretrieval.console import counted, print_json, progress, run_record, say, say_error
from mvretrieval.describe import DescriberConfig, PoolingChoice
from mvretrieval.errors import AdapterError, DescriberError
from mvretrieval.index.kinds import IndexKind, NamedKind
from mvretrieval.ingest.outdated import reembed_outdated
from mvretrieval.ingest.reembed import Failure, reembed, same_views
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import AugmentationConfig
from mvretrieval.weighting.adapter import Adapter


@dataclass(frozen=True)
class Options:
    """Options of `mvr reindex`. What is not given stays as it is.

    Attributes:
        collection: folder of the collection.
        whiten: output dimensions of PCA whitening of each style, fitted on the collection; 0 for none.
        center: subtract the mean view vector.
        no_adapter: pool the plain view vectors: no adapter, no whitening, no centring.
        fit_where: filter of the objects that whitening or centring is fitted on, such as "split = 'train'". Default: all.
        pooling: how view vectors are pooled into one object vector.
        adapter: adapter to use instead of whitening and pooling: a folder written by 'mvr train', or hf-hub:owner/name.
        styles: rendering styles, separated by commas (renders and encodes all files again).
        encoder: view encoder (encodes all files again).
        rig: camera rig (renders and encodes all files again).
        size: pixels of a view (renders and encodes all files again).
        dba: database-side augmentation: average each object vector with those of its K nearest neighbours, now and after each
            later change; 0 turns it off.
        dba_alpha: power of the cosine similarity that weighs the neighbours. Default: 3.
        index: kind of index: auto, exact, hnsw, ivf, cagra or a FAISS factory string; 'mvr index --index help' tells what to
            choose.
        outdated: render and encode again only the objects whose files would look different with the present readers.
        drop_missing: remove objects whose files can no longer be rendered.
        backend: renderer. Default: the best one available.
        device: cpu, cuda, or auto.
        precision: of the encoder.
        workers: render processes. Default: one per core.
        json: print one JSON object: numbers of objects and dimensions, the kind of index, and the failures.
    """

    collection: tyro.conf.Positional[Path]
    whiten: int | None = None
    center: bool = False
    no_adapter: bool = False
    fit_where: str | None = None
    pooling: PoolingChoice | None = None
    adapter: str | None = None
    styles: str | None = None
    encoder: str | None = None
    rig: str | None = None
    size: int | None = None
    dba: int | None = None
    dba_alpha: float | None = None
    index: NamedKind | IndexKind | None = None
    outdated: bool = False
    drop_missing: bool = False
    backend: NamedBackend | BackendName | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int | None = None
    json: bool = False


def run(options: Options) -> int:
    """Re-embed and print the new configuration."""
    changes = _changes(options)
    augmentation = _augmentation(options)
    adapter = None if options.adapter is None else Adapter.load(options.adapter)
    if adapter is not None:
        changes |= {"adapter": adapter.fingerprint}
    machine = OpenOptions(options.device, options.precision, options.backend, options.workers)
    with Collection.open(options.collection, machine, write=True) as collection:
        session = collection.session
        record = run_record("reindex", options)
        done: list[str] = []
        failed: list[Failure] = []
        if options.outdated:
            count, failed = _reembed_outdated(session, bool(changes))
            done.append(f"{counted(count, 'outdated object')} rendered and embedded again")
        only_search = options.outdated or options.dba is not None or options.index is not None
        if changes or options.fit_where is not None or not only_search:
            config = replace(session.describer.config, **changes)
            _check(session, options, config, adapter)
            session.store.add_run(record["time"], record)
            with _notice_of_lost_confidence(session):
                failed = _reembed(session, options, config, adapter)
            done.append(_summary(session))
        else:
            session.store.add_run(record["time"], record)
        if options.index is not None:
            done.append(_change_index(session, options.index))
        if options.dba is not None:
            with _notice_of_lost_confidence(session):
                _augment(session, augmentation)
            done.append(f"{len(session)} objects, database-side augmentation: {augmentation or 'off'}")
        if options.json:
            print_json(_facts(session, options, failed))
        else:
            print("\n".join(f"{options.collection}: {line}" for line in done))
    return 0


def _facts(session: Session, options: Options, failed: Sequence[Failure]) -> dict[str, Any]:
    index = session.index.get()
    outcome = "kept" if options.outdated else "removed"
    return {
        "objects": len(session),
        "dim": index.dim,
        "index": index.kind,
        outcome: [{"id": object_id, "code": code, "message": message} for object_id, code, message in failed],
    }


def _reembed_outdated(session: Session, has_changes: bool) -> tuple[int, list[Failure]]:
    if has_changes:
        raise DescriberError(
            "--outdated keeps the configuration: run it alone, or leave it out, since all objects are then rendered again",
            code="bad_options",
        )
    with progress("mesh") as step:
        count, failed = reembed_outdated(session, step)
    for object_id, code, message in failed:
        say_error(f"kept {object_id} as it was: {message} ({code})")
    return count, failed


def _check(session: Session, options: Options, config: DescriberConfig, adapter: Adapter | None) -> None:
    """Refuse before anything is rendered: a configuration that changes nothing, or views that the adapter does not fit.

    Raises:
        AdapterError: the adapter was trained on other views.
        DescriberError: nothing changes.
    """
    current = session.describer
    used = adapter or (current.adapter if config.adapter else None)
    if used is not None and options.encoder is None:  # another encoder is checked once it is open
        views = current.with_config(rig=config.rig, styles=config.styles, size=config.size).view_fingerprint
        with _advice_on_adapter(adapter):
            for notice in used.config.check_fits(views):
                say(f"note: {notice}")
    if config == current.config and same_views(session, config) and not config.wants_whitening:
        raise DescriberError(
            f"{options.collection} already has this configuration: give what should change", code="nothing_changes"
        )


def _reembed(session: Session, options: Options, config: DescriberConfig, adapter: Adapter | None) -> list[Failure]:
    with progress("mesh") as step, _advice_on_adapter(adapter):
        failed = reembed(session, config, options.fit_where, options.drop_missing, step, adapter)
    for object_id, code, message in failed:
        say_error(f"removed {object_id}: {message} ({code})")
    return failed


def _summary(session: Session) -> str:
    whitening, adapter = session.describer.whitening, session.describer.config.adapter
    fitted = f", whitening fitted on {whitening.n_views} views" if whitening else ""
    fitted += f", adapter {adapter}" if adapter else ""
    return f"{len(session)} objects, {session.index.get().dim} dimensions{fitted}"


def _change_index(session: Session, kind: IndexKind) -> str:
    session.set_index_kind(kind)
    for notice in session.index.notices():
        say(f"note: {notice}")
    found = session.index.get().kind
    return f"{counted(len(session), 'object')}, index: {kind}" + (f" ({found} so far)" if found != kind else "")


@contextmanager
def _advice_on_adapter(adapter: Adapter | None) -> Iterator[None]:
    """If the collection's own adapter does not fit, name the options that remove it."""
    try:
        yield
    except AdapterError as error:
        if adapter is not None:
            raise
        raise AdapterError(
            f"{error}\nor remove the collection's adapter: --no-adapter, --whiten or --pooling", code=error.code
        ) from error


@contextmanager
def _notice_of_lost_confidence(session: Session) -> Iterator[None]:
    """Print a notice if the change invalidates the calibration."""
    before = outdated_notice(session)
    yield
    if not before and (notice := outdated_notice(session)):
        say(f"note: hits have no confidence any more: {notice}")


def _augmentation(options: Options) -> AugmentationConfig | None:
    if options.dba_alpha is not None and not options.dba:
        raise DescriberError("--dba-alpha needs a number of neighbours: give --dba", code="dba_alpha_without_dba")
    return AugmentationConfig.of(options.dba or 0, options.dba_alpha)


def _augment(session: Session, augmentation: AugmentationConfig | None) -> None:
    with progress("object") as step:
        session.augmenter.set(augmentation, step)


def _changes(options: Options) -> dict[str, Any]:
    """Fields of the configuration that the options change."""
    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("pooling", "encoder", "rig", "size")
        if getattr(options, name) is not None
    }
    if options.styles is not None:
        changes["styles"] = parse_styles(options.styles)
    if options.no_adapter and (options.center or options.whiten):
        raise DescriberError(
            "--no-adapter also turns off --center and --whiten: leave one of them out", code="no_adapter_with_whitening"
        )
    if options.no_adapter:
        changes |= {"center": False, "whiten": 0}
    if options.center:
        changes["center"] = True
    if options.whiten is not None:
        changes["whiten"] = options.whiten
    replaces_adapter = options.no_adapter or options.center or options.whiten is not None or options.pooling is not None
    if options.adapter is not None:
        if replaces_adapter or options.fit_where is not None:
            raise DescriberError(
                "--adapter replaces whitening and pooling: leave the options of one of them out",
                code="adapter_with_pooling",
            )
        changes |= {"pooling": "mean", "center": False, "whiten": 0}
    elif replaces_adapter:
        changes["adapter"] = ""
    return changes
