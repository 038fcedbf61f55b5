"""Describe a collection anew: other pooling, whitening or smoothing at once from stored vectors, other views from the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from mvrender.renderer import BackendName
from mvrender.shading import parse_styles
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.confidence.estimator import outdated_notice
from mvretrieval.console import progress, run_record, say
from mvretrieval.describe import DescriberConfig, PoolingChoice
from mvretrieval.errors import AdapterError, DescriberError
from mvretrieval.ingest.reembed import reembed, same_views
from mvretrieval.store.augmented import AugmentationConfig
from mvretrieval.weighting.adapter import Adapter


@dataclass(frozen=True)
class Options:
    """Options of `mvr reindex`. What is not named stays as it is.

    Attributes:
        collection: folder of the collection.
        whiten: dimensions left by PCA whitening of each style, fitted on the collection; 0 is none.
        center: take away the mean view.
        raw: neither whitening nor centring, and no adapter.
        fit_where: objects that statistics are fitted on, such as "split = 'train'"; all by default.
        pooling: how views become one vector.
        adapter: folder of an adapter that 'mvr train' made, or hf-hub:owner/name; takes the place of whitening and pooling.
        styles: what views look like, with commas (renders and encodes all files again).
        encoder: what turns views into vectors (encodes all files again).
        rig: where the cameras stand (renders and encodes all files again).
        size: pixels of a view (renders and encodes all files again).
        smooth: average each object's vector with those of so many nearest objects, at once and from now on; 0 ends it.
        smooth_alpha: power of the similarity that weighs these objects; 3 by default.
        drop_missing: remove objects whose files can no longer be described.
        backend: renderer.
        device: cpu, cuda, or auto.
        precision: auto, float32 or bfloat16.
        workers: render processes.
    """

    collection: tyro.conf.Positional[Path]
    whiten: int | None = None
    center: bool = False
    raw: bool = False
    fit_where: str | None = None
    pooling: PoolingChoice | None = None
    adapter: str | None = None
    styles: str | None = None
    encoder: str | None = None
    rig: str | None = None
    size: int | None = None
    smooth: int | None = None
    smooth_alpha: float | None = None
    drop_missing: bool = False
    backend: BackendName | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int | None = None


def run(options: Options) -> int:
    """Describe anew and tell how."""
    machine = OpenOptions(options.device, options.precision, options.backend, options.workers)
    changes = _changes(options)
    smoothing = _smoothing(options)
    adapter = None if options.adapter is None else Adapter.load(options.adapter)
    if adapter is not None:
        changes |= {"adapter": adapter.fingerprint}
    with Collection.open(options.collection, machine, write=True) as collection:
        if options.smooth is not None and not changes and options.fit_where is None:
            record = run_record("reindex", options)
            collection.store.add_run(record["time"], record)
            with _confidence_lost(collection):
                _smooth(collection, smoothing)
            return 0
        config = replace(collection.describer.config, **changes)
        for notice in _notices(collection, options, config, adapter):
            say(f"note: {notice}")
        unchanged = config == collection.describer.config and same_views(collection.session, config)
        if unchanged and not config.wants_whitening:
            raise DescriberError(f"{options.collection} is described like that already; name what should change")
        record = run_record("reindex", options)
        collection.store.add_run(record["time"], record)
        with progress("mesh") as step, _way_out(adapter), _confidence_lost(collection):
            failed = reembed(collection.session, config, options.fit_where, options.drop_missing, step, adapter)
        for object_id, code, message in failed:
            say(f"removed {object_id}: {message} ({code})")
        whitening = collection.describer.whitening
        fitted = f", statistics of {whitening.n_views} views" if whitening else ""
        fitted += f", adapter {config.adapter}" if config.adapter else ""
        print(
            f"{options.collection}: {len(collection)} objects, {collection.session.index.get().dim} dimensions{fitted}"
        )
        if options.smooth is not None:
            _smooth(collection, smoothing)
    return 0


def _notices(collection: Collection, options: Options, config: DescriberConfig, adapter: Adapter | None) -> list[str]:
    """Refuse views that the adapter means nothing for before anything is rendered; another encoder's, once it is open."""
    used = adapter or (collection.describer.adapter if config.adapter else None)
    if used is None or options.encoder is not None:
        return []
    views = collection.describer.with_config(rig=config.rig, styles=config.styles, size=config.size).view_fingerprint
    with _way_out(adapter):
        return used.config.check_fits(views)


@contextmanager
def _way_out(adapter: Adapter | None) -> Iterator[None]:
    """An adapter that was not asked for can be let go of."""
    try:
        yield
    except AdapterError as error:
        if adapter is not None:
            raise
        raise AdapterError(
            f"{error}\nor let go of the collection's adapter: add --raw, --whiten or --pooling"
        ) from error


@contextmanager
def _confidence_lost(collection: Collection) -> Iterator[None]:
    """Say so where hits carried a confidence until now: other vectors, other cosines."""
    before = outdated_notice(collection.session)
    yield
    if not before and (notice := outdated_notice(collection.session)):
        say(f"note: hits carry no confidence any more: {notice}")


def _smoothing(options: Options) -> AugmentationConfig | None:
    if options.smooth_alpha is not None and not options.smooth:
        raise DescriberError("--smooth-alpha says how neighbours are weighed: say with --smooth how many there are")
    return AugmentationConfig.of(options.smooth or 0, options.smooth_alpha)


def _smooth(collection: Collection, smoothing: AugmentationConfig | None) -> None:
    with progress("object") as step:
        collection.augmenter.set(smoothing, step)
    print(
        f"{collection.folder}: {len(collection)} objects, "
        + (f"smoothed: {smoothing}" if smoothing else "not smoothed")
    )


def _changes(options: Options) -> dict[str, Any]:
    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("pooling", "encoder", "rig", "size")
        if getattr(options, name) is not None
    }
    if options.styles is not None:
        changes["styles"] = parse_styles(options.styles)
    if options.raw and (options.center or options.whiten):
        raise DescriberError("--raw means neither --center nor --whiten: leave one of them out")
    if options.raw:
        changes |= {"center": False, "whiten": 0}
    if options.center:
        changes["center"] = True
    if options.whiten is not None:
        changes["whiten"] = options.whiten
    otherwise = options.raw or options.center or options.whiten is not None or options.pooling is not None
    if options.adapter is not None:
        if otherwise or options.fit_where is not None:
            raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")
        changes |= {"pooling": "mean", "center": False, "whiten": 0}
    elif otherwise:
        changes["adapter"] = ""
    return changes
