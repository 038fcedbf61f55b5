"""Describe the meshes of folders and add them to a collection. Resumes: what is there and unchanged is skipped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mvrender.mesh import Limits, UpAxis
from mvrender.renderer import BackendName, choose
from mvrender.shading import parse_styles
from mvretrieval.cli.common import progress, run_record, say
from mvretrieval.collection.collection import Collection, OpenOptions
from mvretrieval.collection.indexing import IndexOptions, IndexReport
from mvretrieval.collection.schema import FILE
from mvretrieval.collection.vectors import IndexKind
from mvretrieval.describe import DescriberConfig, PoolingChoice
from mvretrieval.errors import DescriberError

if TYPE_CHECKING:
    from mvretrieval.adapters.adapter import Adapter
    from mvretrieval.adapters.config import AdapterConfig


@dataclass(frozen=True)
class Options:
    """Options of `mvr index`.

    Attributes:
        collection: folder of the collection; made if it is not there.
        folders: folders of meshes, or single files.
        labels: CSV with a `file` column (paths relative to the CSV); other columns become metadata, `up` an up axis.
        up: axis that is up in the files. Default: each format's convention, +Z for STL, 3MF and STEP, +Y for others.
        encoder: what turns views into vectors. Default: open_clip:ViT-B-32/laion2b_s34b_b79k. `builtin:` needs no weights.
        rig: where the cameras stand: ring:12@30 (default), os3dor, sphere:20, dodecahedron, cube, random:12@0 (seed 0).
        styles: what views look like, with commas: texture (default), clay, depth, normal, silhouette.
        size: pixels of a view. Default: 224.
        pooling: how views become one vector. Default: mean.
        adapter: folder of an adapter that 'mvr train' made, or hf-hub:owner/name; takes the place of whitening and pooling,
            and what is not named (encoder, rig, styles, size) is as it was when the adapter was trained.
        whiten: dimensions left by PCA whitening, fitted at the end of the first run; 0 is none.
        center: take away the mean view.
        fit_where: objects that the whitening is fitted on, as a filter.
        index: kind of index; auto is exact up to 200,000 objects, HNSW up to 3 million, IVF beyond.
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
    folders: tyro.conf.Positional[tuple[Path, ...]]
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
    import json

    machine = OpenOptions(options.device, options.precision, options.backend, options.workers)
    is_new = not (options.collection / FILE).exists()
    if is_new:
        adapter = None if options.adapter is None else _adapter(options.adapter)
        config = _config(options, None if adapter is None else adapter.config)
        collection = Collection.create(options.collection, config, machine, options.index, adapter)
        for notice in [] if adapter is None else adapter.config.check_fits(collection.describer.view_fingerprint):
            say(f"note: {notice}")
    else:
        collection = Collection.open(options.collection, machine, write=True)
    with collection:
        if not is_new:
            _check_same(collection, options)
        _announce(collection, options)
        collection.store.add_run(*_record(options))
        with progress("mesh") as step:
            report = collection.add_folder(
                *options.folders,
                options=IndexOptions(
                    labels=options.labels,
                    up=options.up,
                    prune=options.prune,
                    retry=options.retry,
                    fit_where=options.fit_where,
                    limits=Limits(
                        max_faces=options.max_faces,
                        seconds=options.max_seconds,
                        memory_bytes=int(options.max_memory_gb * (1 << 30)),
                    ),
                    progress=step,
                ),
            )
        count = len(collection)
    if options.json:
        print(json.dumps({"objects": count, **_plain(report)}))
    else:
        print(_summary(report, count, options))
    return 1 if options.strict and report.failed else 0


def _config(options: Options, adapter: AdapterConfig | None) -> DescriberConfig:
    """What is not named is as the adapter wants it, or as by default."""
    default: AdapterConfig | DescriberConfig = adapter or DescriberConfig()
    if options.adapter is not None and (options.pooling or options.whiten or options.center):
        raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")
    if adapter is not None and options.encoder is None and "@" in adapter.encoder:
        raise DescriberError(f"the adapter was trained with {adapter.encoder}: name that file with --encoder")
    return DescriberConfig(
        encoder=options.encoder or default.encoder,
        rig=options.rig or default.rig,
        styles=parse_styles(options.styles) if options.styles else default.styles,
        size=options.size or default.size,
        pooling=options.pooling or "mean",
        center=options.center,
        whiten=options.whiten or 0,
    )


def _adapter(source: str) -> Adapter:
    from mvretrieval.adapters.adapter import Adapter

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


def _announce(collection: Collection, options: Options) -> None:
    describer = collection.describer
    backend, reason = choose(options.backend)
    config = describer.config
    up = f"up {options.up}" if options.up else "up by format (+z for stl, 3mf and step; +y for others)"
    say(f"views: {config.rig}, {', '.join(config.styles)}, {config.size} px, {up}; {backend} ({reason})")
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
    lines = [f"{options.collection}: {count} objects"]
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
    if report.identical:
        lines.append(f"  {report.identical} of them identical to other files, encoded once")
    if report.labelled or report.unmatched_labels:
        missing = f", {report.unmatched_labels} rows of the labels match no object" if report.unmatched_labels else ""
        lines.append(f"  labels of {report.labelled} objects changed{missing}")
    if report.gone > report.removed:
        how = "kept, since their folder is empty or gone" if options.prune else "--prune removes them"
        lines.append(f"  {report.gone - report.removed} objects' files are gone; {how}")
    if report.statistics:
        lines.append(f"  whitening {report.statistics}")
    if report.smoothed:
        lines.append(f"  {report.smoothed} objects smoothed with the neighbours that they have now")
    if report.notes:
        lines.append(f"  {len(report.notes)} notes, such as: {report.notes[0][0]}: {report.notes[0][1]}")
    if report.failed:
        codes = ", ".join(f"{n} {code}" for code, n in report.failed.most_common())
        lines.append(
            f"  {sum(report.failed.values())} failed: {codes} ('mvr info {options.collection} --failures' lists them)"
        )
        for path, code, message in report.failures[:3]:
            lines.append(f"    {path}: {message} ({code})")
    return "\n".join(lines)
