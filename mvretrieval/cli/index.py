"""Describe meshes, or views that come as pictures, and add them to a collection. Resumes: what is unchanged is skipped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mvrender.backends.selection import choose_backend
from mvrender.formats import FORMATS
from mvrender.mesh import Limits, UpAxis
from mvrender.renderer import BackendName
from mvrender.shading import parse_styles
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.console import counted, print_json, progress, run_record, say
from mvretrieval.describe import DescriberConfig, PoolingChoice
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.errors import DescriberError, ViewsError
from mvretrieval.index.vector_index import IndexKind
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.ingest.labels_csv import read_labels
from mvretrieval.ingest.view_manifest import ViewManifest, read_view_manifest, rig_of
from mvretrieval.store.schema import FILE

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter
    from mvretrieval.weighting.config import AdapterConfig


@dataclass(frozen=True)
class Options:
    """Options of `mvr index`.

    Attributes:
        collection: folder of the collection; made if it is not there.
        folders: folders of meshes, or single files.
        views: CSV of pictures instead of meshes, a row for each: id (of the object), file (relative to the CSV), azimuth_deg (0
            is in front, 90 at +X) and elevation_deg; without these two the directions are unknown. Objects may lack views.
        labels: CSV with a `file` column (paths relative to the CSV); other columns become metadata, `up` an up axis. Of views,
            `file` is the object's folder, its id or its first picture.
        up: axis that is up in the files. Default: each format's convention, +Z for STL, 3MF and STEP, +Y for others.
        encoder: what turns views into vectors. Default: open_clip:ViT-B-32/laion2b_s34b_b79k. `builtin:` needs no weights.
        rig: where the cameras stand: ring:12@30 (default), os3dor, sphere:20, dodecahedron, cube, random:12@0 (seed 0).
            With --views: what the CSV says by default; named, what it does not say.
        styles: what views look like, with commas: texture (default), clay, depth, normal, silhouette.
            With --views: what the pictures are, one of them.
        size: pixels of a view. Default: 224; with --views, what the encoder looks at.
        pooling: how views become one vector. Default: mean.
        adapter: folder of an adapter that 'mvr train' made, or hf-hub:owner/name; takes the place of whitening and pooling,
            and what is not named (encoder, rig, styles, size) is as it was when the adapter was trained.
        whiten: dimensions left by PCA whitening, fitted at the end of the first run; 0 is none.
        center: take away the mean view.
        fit_where: objects that the whitening is fitted on, as a filter.
        index: kind of index; auto compares every vector up to 250,000 objects, and beyond those that small codes name.
        backend: renderer; the best one here by default.
        device: cpu, cuda, or auto.
        precision: auto, float32 or bfloat16.
        workers: render processes; one per core by default.
        max_seconds: time that one file may take.
        max_memory_gb: memory that a worker may take.
        max_faces: faces that a mesh may have.
        prune: remove objects whose files are gone.
        retry: try files again that failed before and have not changed.
        strict: exit with 1 if any file failed.
        json: print the report as one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    views: Path | None = None
    labels: Path | None = None
    up: UpAxis | None = None
    encoder: str | None = None
    rig: str | None = None
    styles: str | None = None
    size: int | None = None
    pooling: PoolingChoice | None = None
    adapter: str | None = None
    whiten: int | None = None
    center: bool = False
    fit_where: str | None = None
    index: IndexKind = "auto"
    backend: BackendName | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int | None = None
    max_seconds: float = 120.0
    max_memory_gb: float = 8.0
    max_faces: int = 12_000_000
    prune: bool = False
    retry: bool = False
    strict: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Index, and tell what happened."""
    views = _views(options)
    limits = Limits(
        max_faces=options.max_faces,
        seconds=options.max_seconds,
        memory_bytes=int(options.max_memory_gb * (1 << 30)),
    )
    machine = OpenOptions(
        options.device, options.precision, options.backend, options.workers, start_workers=views is None, limits=limits
    )
    is_new = not (options.collection / FILE).exists()
    if is_new:
        if options.labels is not None:
            read_labels(options.labels)  # before anything is made
        adapter = None if options.adapter is None else _adapter(options.adapter)
        config = _config(options, None if adapter is None else adapter.config, views)
        collection = Collection.create(options.collection, config, machine, options.index, adapter)
        for notice in [] if adapter is None else adapter.config.check_fits(collection.describer.view_fingerprint):
            say(f"note: {notice}")
    else:
        collection = Collection.open(options.collection, machine, write=True)
    with collection:
        if not is_new:
            _check_same(collection, options)
        _announce(collection, options, views)
        collection.store.add_run(*_record(options))
        with progress("object" if views else "mesh") as step:
            how = _how(options, step)
            if views is None:
                report = collection.add_folder(*options.folders, options=how)
            else:
                report = collection.add_views(views, how, in_rig_order=options.rig is not None)
        count = len(collection)
    if options.json:
        print_json({"objects": count, **_plain(report)})
    else:
        print(_summary(report, count, options))
    return 1 if options.strict and report.failed else 0


def _how(options: Options, step: Callable[[int, int], None]) -> IndexOptions:
    return IndexOptions(
        labels=options.labels,
        up=options.up,
        prune=options.prune,
        retry=options.retry,
        fit_where=options.fit_where,
        progress=step,
    )


def _views(options: Options) -> ViewManifest | None:
    """What the CSV of views says, if one is named, and whether the other options go with it."""
    if options.views is None:
        if not options.folders:
            raise ViewsError("nothing to index: name folders of meshes, or a CSV of pictures with --views")
        if not options.prune and not any(os.path.lexists(folder) for folder in options.folders):
            raise ViewsError(f"{options.folders[0]} is not there: name folders of meshes, or single files")
        return None
    if options.folders:
        raise ViewsError(
            f"--views and folders of meshes ({options.folders[0]}): index them in two runs; the collection's cameras are "
            "those of the first"
        )
    if options.up is not None:
        raise ViewsError(f"--up {options.up} is about meshes, and --views names pictures: leave one of them out")
    if options.styles and len(parse_styles(options.styles)) > 1:
        raise ViewsError(f"--styles {options.styles}: pictures are of one style; name the one that they are")
    return read_view_manifest(options.views)


def _config(options: Options, adapter: AdapterConfig | None, views: ViewManifest | None) -> DescriberConfig:
    """What is not named is as the adapter wants it, or as by default; rig and style of pictures are their own."""
    default: AdapterConfig | DescriberConfig = adapter or DescriberConfig()
    if options.adapter is not None and (options.pooling or options.whiten or options.center):
        raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")
    if (
        adapter is not None
        and options.encoder is None
        and ("@" in adapter.encoder or adapter.encoder.startswith("tuned:"))
    ):
        raise DescriberError(f"the adapter was trained with {adapter.encoder}: name that file with --encoder")
    encoder = options.encoder or default.encoder
    rig, styles, size = default.rig, default.styles, options.size or default.size
    if views is not None:
        rig, styles = options.rig or rig_of(views).name, ("texture",)
        if options.size is None and adapter is None:
            size = open_encoder(encoder, options.device, options.precision).image_size
    return DescriberConfig(
        encoder=encoder,
        rig=options.rig or rig,
        styles=parse_styles(options.styles) if options.styles else styles,
        size=size,
        pooling=options.pooling or "mean",
        center=options.center,
        whiten=options.whiten or 0,
    )


def _adapter(source: str) -> Adapter:
    from mvretrieval.weighting.adapter import Adapter

    return Adapter.load(source)


def _check_same(collection: Collection, options: Options) -> None:
    """An existing collection keeps its describer; asking for another is an error, not a mixture."""
    config = collection.describer.config
    if options.encoder:
        collection.relocate_encoder(options.encoder)
    if options.adapter is not None and _adapter(options.adapter).fingerprint != config.adapter:
        raise DescriberError(
            f"{options.collection} is described with {f'adapter {config.adapter}' if config.adapter else 'no adapter'}: "
            f"leave --adapter out, or change the collection with 'mvr reindex {options.collection} --adapter ...'"
        )
    asked = {
        "rig": options.rig,
        "styles": parse_styles(options.styles) if options.styles else None,
        "size": options.size,
        "pooling": options.pooling,
        "whiten": options.whiten,
        "center": options.center or None,
    }
    for name, value in asked.items():
        if value is not None and value != getattr(config, name):
            raise DescriberError(
                f"{options.collection} has {name} {getattr(config, name)}, and this asks for {value}: leave --{name} out, "
                f"or change the collection with 'mvr reindex {options.collection} --{name} ...'"
            )


def _announce(collection: Collection, options: Options, views: ViewManifest | None) -> None:
    describer = collection.describer
    config = describer.config
    looks = f"views: {describer.rig.short_name}, {', '.join(config.styles)}, {config.size} px"
    if views is None:
        backend, reason = choose_backend(options.backend)
        up = f"up {options.up}" if options.up else "up by format (+z for stl, 3mf and step; +y for others)"
        say(f"{looks}, {up}; {backend} ({reason})")
    else:
        unknown = "" if describer.rig.is_known else " from unknown directions"
        say(f"{looks}; pictures of {counted(len(views.objects), 'object')}{unknown}")
    encoder = describer.encoder
    say(f"encoder: {encoder.id}, {encoder.dim}-d, {encoder.precision} ({encoder.precision_reason})")
    for notice in collection.notices():
        say(f"note: {notice}")


def _record(options: Options) -> tuple[str, dict[str, object]]:
    record = run_record("index", options)
    return record["time"], record


def _plain(report: IndexReport) -> dict[str, object]:
    # Not dataclasses.asdict: it makes a Counter of pairs out of a Counter.
    return vars(report)


def _summary(report: IndexReport, count: int, options: Options) -> str:
    lines = [f"{options.collection}: {counted(count, 'object')}"]
    done = {
        "added": report.added,
        "replaced": report.replaced,
        "moved": report.moved,
        "unchanged": report.unchanged,
        "removed": report.removed,
    }
    lines.append(
        "  "
        + ", ".join(f"{n} {name}" for name, n in done.items() if n or name == "added")
        + f" in {report.seconds:.1f} s"
    )
    if not report.found:
        places = ", ".join(map(str, options.folders))
        lines.append(f"  no mesh found in {places}; the formats are {' '.join(sorted(FORMATS))}")
    elif not count:
        lines.append(
            f"  nothing could be indexed; cameras, styles and encoder are kept for the next run: to begin anew with others, delete "
            f"{options.collection}"
        )
    if report.identical:
        lines.append(f"  {report.identical} of them identical to other files, encoded once")
    if report.labelled or report.unmatched_labels:
        missing = (
            f", {counted(report.unmatched_labels, 'row')} of the labels without an object"
            if report.unmatched_labels
            else ""
        )
        lines.append(f"  labels of {counted(report.labelled, 'object')} changed{missing}")
    if report.gone > report.removed:
        how = "kept, since their folder is empty or gone" if options.prune else "--prune removes them"
        lines.append(f"  the files of {counted(report.gone - report.removed, 'object')} are gone; {how}")
    if report.whitening:
        lines.append(f"  whitening {report.whitening}")
    if report.augmented:
        lines.append(f"  {counted(report.augmented, 'object')} smoothed with present neighbours")
    if report.notes:
        lines.append(f"  {counted(len(report.notes), 'note')}, such as: {report.notes[0][0]}: {report.notes[0][1]}")
    if report.failed:
        codes = ", ".join(f"{n} {code}" for code, n in report.failed.most_common())
        lines.append(
            f"  {sum(report.failed.values())} failed: {codes} ('mvr info {options.collection} --failures' lists them)"
        )
        for path, code, message in report.failures[:3]:
            lines.append(f"    {path}: {message} ({code})")
    return "\n".join(lines)
