"""Find labeled meshes and render their views into a cache folder, keyed by content, rig, styles and size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvrender.jobs import Failed, Opened, RenderJob, RenderSpec
from mvrender.mesh import UpAxis
from mvrender.pool import RenderPool
from mvrender.shading import VIEWS_VERSION
from mvretrieval.errors import TrainingError, did_you_mean
from mvretrieval.ingest.labels_csv import read_labels
from mvretrieval.ingest.scan import find_meshes
from mvretrieval.session.session import Session
from mvtrain.features import nothing_labeled
from mvtrain.view_dataset import ViewDataset, is_cached, load_masks, save_views


@dataclass(frozen=True)
class LabeledMesh:
    """A mesh file with its class.

    Attributes:
        id: of the object.
        label: class name.
        path: of the file.
        root: folder that references in the file may not leave.
        up: up axis; None for the convention of the file format.
        content: hash of the mesh and its textures, if known before the file is read.
    """

    id: str
    label: str
    path: Path
    root: Path | None = None
    up: UpAxis | None = None
    content: str = ""


def meshes_of_collection(session: Session, by: str, where: str | None) -> list[LabeledMesh]:
    """The labeled objects of a session.

    Raises:
        FilterError: unknown label column, or an invalid filter.
        TrainingError: no object is left, or an object has view images or an imported vector instead of a mesh.
    """
    store = session.store
    with session.reading():
        row_ids = [int(n) for n in store.select(where)]
        store.check_column(by)
        records = store.records(row_ids)
        labels = store.column_values(by, row_ids)
        roots = {row_id: store.root_of(row_id) for row_id in row_ids}
    found = []
    for row_id, label in zip(row_ids, labels, strict=True):
        if label is None:
            continue
        own, root = records[row_id], roots[row_id]
        if own.facts.get("format") in ("views", "vectors"):
            raise TrainingError(
                f"'{own.id}' has {own.facts['format']} instead of a mesh, and tuning renders meshes: choose a collection of "
                f"meshes, or exclude such objects with --where \"format != '{own.facts['format']}'\"",
                code="views_not_tunable",
            )
        found.append(
            LabeledMesh(
                own.id, str(label), Path(own.path), Path(root) if root else None, own.facts["up"], own.content_hash
            )
        )
    if not found:
        raise nothing_labeled(session.folder, by, where, len(row_ids))
    return found


def meshes_of_folder(folder: Path, by: str, labels: Path | None) -> list[LabeledMesh]:
    """The meshes of a folder that a CSV labels.

    Raises:
        LabelsError: the CSV cannot be read.
        TrainingError: the CSV has no such column, or labels no mesh of the folder.
    """
    if labels is None:
        raise TrainingError(
            f"{folder} is not a collection: choose one, or label the meshes with --labels labels.csv", code="no_labels"
        )
    read = read_labels(labels)
    if by not in read.columns:
        raise TrainingError(
            f"{labels} has no column '{by}': {did_you_mean(by, read.columns)}its columns are {', '.join(read.columns)}",
            code="no_such_label",
        )
    found = []
    for item in find_meshes([folder]):
        label = read.rows.get(str(item.path), {}).get(by)
        if label is not None and item.problem is None:
            up = read.up.get(str(item.path))
            name = str(item.path.relative_to(item.root))
            found.append(LabeledMesh(name, str(label), item.path, item.root, up))
    if not found:
        raise TrainingError(
            f"{labels} has no row with a '{by}' for a mesh of {folder}: paths in its column 'file' are relative to the CSV",
            code="nothing_labeled",
        )
    return found


def render_views(
    objects: Sequence[LabeledMesh],
    spec: RenderSpec,
    folder: Path,
    workers: int | None = None,
    notify: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
) -> ViewDataset:
    """Render labeled meshes into a cache folder; complete cached views are reused.

    Meshes that fail to render are reported through `notify` and left out. Files are uncompressed, about 1.8 MB for 12
    views of 224 pixels: decoding a batch of PNGs takes longer than a forward pass of a small network.

    Raises:
        TrainingError: the folder is not writable, or no mesh could be rendered.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"cannot create the view cache {folder}: {error.strerror or error}; choose another --view-cache",
            code="not_writable",
        ) from error
    keys: dict[int, str] = {}
    waiting: dict[str, int] = {}

    def jobs() -> Iterator[RenderJob]:
        for i, item in enumerate(objects):
            key = _key(spec, item.content) if item.content else ""
            if key and is_cached(folder, key):
                keys[i] = key
                continue
            waiting[str(item.path)] = i
            yield RenderJob(item.path, item.root, item.up)

    def needs_views(opened: Opened) -> bool:
        return not is_cached(folder, _key(spec, opened.content_hash))

    with RenderPool(spec, workers) as pool:
        for result in pool.run(jobs(), needs_views):
            if isinstance(result, Failed):
                notify(f"left out {result.job.path}: {result.message} ({result.code})")
                continue
            i = waiting[str(result.opened.job.path)]
            keys[i] = _key(spec, result.opened.content_hash)
            if result.views is not None:
                save_views(folder, keys[i], result.views.images, result.views.mask)
            if objects[i].content and objects[i].content != result.opened.content_hash:
                notify(f"note: {result.opened.job.path} has changed since it was indexed; its current content is used")
            if progress is not None:
                progress(len(keys), len(objects))
    if not keys:
        raise TrainingError(
            f"none of {len(objects)} meshes could be rendered: run 'mvr doctor' to check the renderers",
            code="nothing_rendered",
        )
    return _dataset(objects, keys, spec, folder)


def _dataset(objects: Sequence[LabeledMesh], keys: dict[int, str], spec: RenderSpec, folder: Path) -> ViewDataset:
    rows = sorted(keys)
    return ViewDataset(
        folder,
        tuple(objects[i].id for i in rows),
        tuple(objects[i].label for i in rows),
        tuple(keys[i] for i in rows),
        spec.rig.name,
        spec.styles,
        spec.size,
        load_masks(folder, [keys[i] for i in rows]),
    )


def _key(spec: RenderSpec, content: str) -> str:
    text = f"views={VIEWS_VERSION} rig={spec.rig.fingerprint} styles={','.join(spec.styles)} size={spec.size} {content}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
