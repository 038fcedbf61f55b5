"""Render and embed meshes, or embed given view images, and add them to a collection.

Indexing resumes: files that are stored and unchanged are skipped. The exit code is 1 if no file could be indexed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from mvrender.backends.selection import choose_backend
from mvrender.mesh import Limits, UpAxis
from mvrender.renderer import BackendName, NamedBackend
from mvrender.shading import parse_styles
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.index_summary import index_summary, no_mesh_found
from mvretrieval.console import counted, print_json, progress, run_record, say
from mvretrieval.describe import DescriberConfig, PoolingChoice
from mvretrieval.encoders.registry import open_encoder, parse_encoder
from mvretrieval.errors import CollectionError, DescriberError, ViewsError
from mvretrieval.index.kinds import IndexKind, NamedKind
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.ingest.labels_csv import read_labels
from mvretrieval.ingest.scan import find_meshes
from mvretrieval.ingest.view_manifest import ViewManifest, read_view_manifest, rig_of
from mvretrieval.store.label_columns import FACTS
from mvretrieval.store.schema import FILE

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter
    from mvretrieval.weighting.config import AdapterConfig


@dataclass(frozen=True)
class Options:
    """Options of `mvr index`.

    Attributes:
        collection: folder of the collection; created if it does not exist.
        folders: folders of meshes, or single files.
        view_manifest: CSV of view images to index instead of meshes, with one row per view: id (of the object), file (relative to
            the CSV), azimuth_deg (0 is the front, 90 is +X) and elevation_deg. Without these two, the directions are unknown.
            Objects may lack views.
        labels: CSV with a `file` column (paths relative to the CSV). Other columns become metadata, `up` sets the up axis. With
            --view-manifest, `file` is the folder, the id or the first image of an object.
        up: axis that is up in the files. Default: the convention of each format, +Z for STL, 3MF, STEP and IGES, +Y for others.
        encoder: view encoder. Default: open_clip:ViT-B-32/laion2b_s34b_b79k. `builtin:` needs no weights.
        rig: camera rig: ring:12@30 (default), os3dor, sphere:20, dodecahedron, cube, random:12@0 (seed 0). With
            --view-manifest, default: the directions in the CSV; give it if the CSV has none and the images are in rig order.
        styles: rendering styles, separated by commas: texture (default), clay, depth, normal, silhouette. With --view-manifest:
            the style of the images.
        size: pixels of a view. Default: 224; with --view-manifest, the input size of the encoder.
        pooling: how view vectors are pooled into one object vector. Default: mean.
        adapter: adapter to use instead of whitening and pooling: a folder written by 'mvr train', or hf-hub:owner/name. It also
            sets the default encoder, rig, styles and size.
        whiten: output dimensions of PCA whitening, fitted at the end of the first run; 0 for none.
        center: subtract the mean view vector.
        fit_where: filter of the objects that whitening is fitted on.
        index: kind of index: auto, exact, hnsw, ivf, cagra or a FAISS factory string. auto is exact up to 250,000 objects, then
            hnsw. 'mvr index --index help' tells what to choose.
        backend: renderer. Default: the best one available.
        device: cpu, cuda, or auto: where networks run and vectors are searched.
        precision: of the encoder.
        workers: render processes. Default: one per core.
        max_seconds: time limit per file.
        max_memory_gb: memory limit of a render process.
        max_faces: largest number of faces of a mesh.
        prune: remove objects whose files no longer exist.
        retry: retry files that failed before and have not changed.
        strict: exit with 1 if any file failed.
        json: print the report as one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    view_manifest: Path | None = None
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
    index: NamedKind | IndexKind | None = None
    backend: NamedBackend | BackendName | None = None
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
    """Index and print the report."""
    views = _read_view_manifest(options)
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
            read_labels(options.labels)  # before the collection is created
        adapter = None if options.adapter is None else _adapter(options.adapter)
        config = _config(options, None if adapter is None else adapter.config, views)
        collection = Collection.create(options.collection, config, machine, options.index or "auto", adapter)
        for notice in [] if adapter is None else adapter.config.check_fits(collection.describer.view_fingerprint):
            say(f"note: {notice}")
    else:
        collection = Collection.open(options.collection, machine, write=True)
    session = collection.session
    with collection:
        if not is_new:
            _check_same(collection, options)
        _announce(collection, options, views)
        record = run_record("index", options)
        session.store.add_run(record["time"], record)
        with progress("object" if views else "mesh") as step:
            index_options = _index_options(options, step)
            if views is None:
                report = collection.add_folder(*options.folders, options=index_options)
            else:
                report = collection.add_views(views, index_options, in_rig_order=options.rig is not None)
        count = len(collection)
        hidden = [name for name in session.store.metadata_columns() if name in FACTS]
        if options.labels is not None and hidden:
            say(
                f"note: in filters, {', '.join(hidden)} is the label and not the fact of the file; rename the label to filter "
                "by the fact"
            )
    if options.json:
        print_json({"objects": count, **vars(report)})
    else:
        print(index_summary(report, count, options.collection, options.folders, options.prune))
    done = report.added + report.replaced + report.moved + report.unchanged + report.removed
    return 1 if not done or (options.strict and report.failed) else 0


def _index_options(options: Options, step: Callable[[int, int], None]) -> IndexOptions:
    return IndexOptions(
        labels=options.labels,
        up=options.up,
        prune=options.prune,
        retry=options.retry,
        fit_where=options.fit_where,
        progress=step,
    )


def _read_view_manifest(options: Options) -> ViewManifest | None:
    """The view manifest, if one is given.

    Raises:
        ViewsError: it cannot be read, or other options contradict it; or there is nothing to index.
    """
    if options.view_manifest is None:
        if not options.folders:
            raise ViewsError("nothing to index: give folders of meshes, or --view-manifest", code="nothing_to_index")
        if not options.prune:
            _check_folders(options)
        return None
    if options.folders:
        raise ViewsError(
            f"--view-manifest and folders of meshes ({options.folders[0]}) need two runs; the first decides the camera rig",
            code="views_and_meshes",
        )
    if options.up is not None:
        raise ViewsError(
            f"--up {options.up} applies to meshes, not to --view-manifest: leave one out", code="up_with_views"
        )
    if options.styles and len(parse_styles(options.styles)) > 1:
        raise ViewsError(
            f"--styles {options.styles}: view images have one style; give that style", code="several_styles"
        )
    return read_view_manifest(options.view_manifest)


def _check_folders(options: Options) -> None:
    """Refuse folders that do not exist, and an empty folder for a new collection, before that is created."""
    if not any(os.path.lexists(folder) for folder in options.folders):
        raise ViewsError(
            f"{options.folders[0]} does not exist: give folders of meshes, or single files", code="no_such_folder"
        )
    if not (options.collection / FILE).exists() and next(find_meshes(options.folders), None) is None:
        raise ViewsError(no_mesh_found(options.folders), code="no_meshes")


def _config(options: Options, adapter: AdapterConfig | None, views: ViewManifest | None) -> DescriberConfig:
    """The configuration of a new collection: options, then the adapter's, then the defaults."""
    default: AdapterConfig | DescriberConfig = adapter or DescriberConfig()
    if options.adapter is not None and (options.pooling or options.whiten or options.center):
        raise DescriberError(
            "--adapter replaces whitening and pooling: leave out --pooling, --whiten and --center",
            code="adapter_with_pooling",
        )
    if (
        adapter is not None
        and options.encoder is None
        and ("@" in adapter.encoder or adapter.encoder.startswith("tuned:"))
    ):
        raise DescriberError(
            f"the adapter was trained with {adapter.encoder}: give its checkpoint with --encoder",
            code="adapter_needs_encoder",
        )
    encoder = options.encoder or default.encoder
    if parse_encoder(encoder).family == "vectors":
        raise DescriberError(
            f"'{encoder}' stands for vectors that were computed elsewhere: add them with 'mvr import', or choose an encoder for "
            "meshes and images",
            code="imported_vectors",
        )
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
    """Refuse options that differ from the configuration of an existing collection."""
    config = collection.describer.config
    if options.encoder:
        collection.session.relocate_encoder(options.encoder)
    if options.adapter is not None and _adapter(options.adapter).fingerprint != config.adapter:
        raise DescriberError(
            f"{options.collection} uses {f'adapter {config.adapter}' if config.adapter else 'no adapter'}: "
            f"leave --adapter out, or change the collection with 'mvr reindex {options.collection} --adapter ...'",
            code="other_adapter",
        )
    wanted = collection.session.store.get_meta("index", "auto")
    if options.index is not None and options.index != wanted:
        raise CollectionError(
            f"{options.collection} has an index of kind {wanted}, not {options.index}: leave --index out, "
            f"or change it with 'mvr reindex {options.collection} --index {options.index}'",
            code="other_index_kind",
        )
    given = {
        "rig": options.rig,
        "styles": parse_styles(options.styles) if options.styles else None,
        "size": options.size,
        "pooling": options.pooling,
        "whiten": options.whiten,
        "center": options.center or None,
    }
    for name, value in given.items():
        if value is not None and value != getattr(config, name):
            raise DescriberError(
                f"{options.collection} has {name} {getattr(config, name)}, not {value}: leave --{name} out, "
                f"or change the collection with 'mvr reindex {options.collection} --{name} ...'",
                code="other_config",
            )


def _announce(collection: Collection, options: Options, views: ViewManifest | None) -> None:
    describer = collection.describer
    config = describer.config
    shown = f"views: {describer.rig.short_name}, {', '.join(config.styles)}, {config.size} px"
    if views is None:
        backend, reason = choose_backend(options.backend)
        up = f"up {options.up}" if options.up else "up by format (+z for stl, 3mf, step and iges; +y for others)"
        say(f"{shown}, {up}; {backend} ({reason})")
    else:
        unknown = "" if describer.rig.is_known else ", unknown directions"
        say(f"{shown}; view images of {counted(len(views.objects), 'object')}{unknown}")
    encoder = describer.encoder
    say(f"encoder: {encoder.id}, {encoder.dim}-d, {encoder.precision} ({encoder.precision_reason})")
    for notice in collection.session.notices():
        say(f"note: {notice}")
