"""Read and check objects whose views are given as images instead of renders of a mesh."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mvrender.cameras import Rig
from mvrender.image_formats import MAX_PIXELS, open_image, to_8_bit
from mvrender.jobs import Failed, Opened, Rendered
from mvrender.renderer import Views
from mvrender.strips import thumbnail_strip
from mvretrieval.errors import DescriberError, ViewsError
from mvretrieval.images import over_white
from mvretrieval.ingest.imported_objects import check_not_imported
from mvretrieval.ingest.jobs import IngestJob
from mvretrieval.ingest.scan import is_gone, size_and_time
from mvretrieval.ingest.view_manifest import ViewManifest, ViewSlots
from mvretrieval.session.render_pools import THUMBNAIL_SIZE
from mvretrieval.session.session import Session
from mvretrieval.store.records import ObjectRecord

FORMAT = "views"
"""Format in the facts of an object whose views are given as images."""

# Pillow's plugins raise any of these on damaged files.
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    MemoryError,
)


@dataclass(frozen=True)
class ViewImagesJob(IngestJob):
    """An object whose views are images; `path` is its folder or first image, `root` the manifest that lists it.

    Attributes:
        id: from the manifest.
        images: (index of the view in the rig, absolute path) in the order of the manifest.
    """

    id: str = ""
    images: tuple[tuple[int, str], ...] = ()

    @property
    def object_id(self) -> str:
        """The id in the manifest."""
        return self.id

    def stat(self, references: Iterable[str] = ()) -> str:
        """See `IngestJob.stat`."""
        return json.dumps([[slot, name, size_and_time(Path(name))] for slot, name in self.images])

    def is_unchanged(self, stored: str) -> bool:
        """See `IngestJob.is_unchanged`."""
        return stored == self.stat()

    def failure_stat(self) -> str:
        """Images and manifest: a changed manifest may fix a failure."""
        csv = self.root or Path()
        return json.dumps([str(csv), size_and_time(csv), self.stat()])

    def still_fails(self, stored: str) -> bool:
        """See `IngestJob.still_fails`."""
        return stored == self.failure_stat()

    def failure_message(self, message: str) -> str:
        """The id first: the folder may have another name."""
        return f"object '{self.id}': {message}"

    @classmethod
    def of_record(cls, record: ObjectRecord, root: str, stat: str) -> ViewImagesJob:
        """The job that a stored object came from."""
        images = tuple((int(slot), str(name)) for slot, name, _ in json.loads(stat))
        return cls(Path(record.path), Path(root), None, record.id, images)


class _BadView(Exception):
    """An image that cannot be used: code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ViewImageReader:
    """Reads objects as `RenderPool` renders them, in threads: Pillow decodes without Python's lock."""

    def __init__(self, rig: Rig, size: int, workers: int | None = None) -> None:
        """For objects of one collection.

        Args:
            rig: which views there are.
            size: pixels of a view.
            workers: threads; one per core by default.
        """
        self._rig, self._size = rig, size
        self._workers = workers or os.cpu_count() or 1
        self._cameras = rig.cam_to_world

    def run(self, jobs: Iterable[IngestJob], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """Read objects in order; `needs_views` decides by content hash, before images are decoded."""
        threads = ThreadPoolExecutor(self._workers, thread_name_prefix="views")
        waiting: deque[Future[Rendered | Failed]] = deque()
        try:
            for job in jobs:
                assert isinstance(job, ViewImagesJob)
                waiting.append(threads.submit(self._read, job, needs_views))
                if len(waiting) > 2 * self._workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _read(self, job: ViewImagesJob, needs_views: Callable[[Opened], bool]) -> Rendered | Failed:
        try:
            data = [_bytes_of(Path(name), job.root) for _, name in job.images]
            digest = hashlib.sha256(b"views of an object")
            for slot, _, own in sorted((slot, i, data[i]) for i, (slot, _) in enumerate(job.images)):
                digest.update(f" {slot} {len(own)} ".encode() + own)
            opened = Opened(job, digest.hexdigest(), (), None, {"format": FORMAT}, ())  # type: ignore[arg-type]
            if not needs_views(opened):
                return Rendered(opened, None)
            views = self._views(job, data)
        except _BadView as error:
            return Failed(job, error.code, str(error))
        return Rendered(opened, views, thumbnail_strip(views, THUMBNAIL_SIZE))

    def _views(self, job: ViewImagesJob, data: Sequence[bytes]) -> Views:
        images = np.full((1, self._rig.n_views, self._size, self._size, 3), 255, np.uint8)
        mask = np.zeros(self._rig.n_views, bool)
        side = max(_longest_side(own, name) for own, (_, name) in zip(data, job.images, strict=True))
        for own, (slot, name) in zip(data, job.images, strict=True):
            image = _decoded(own, name, self._size / side, self._size)
            images[0, slot] = image
            mask[slot] = bool((image != image[0, 0]).any())  # of one colour: nothing is visible, as in a render
        if not mask.any():
            raise _BadView("nothing_visible", "each of its images has a single colour: render the object again")
        return Views(images, mask, self._cameras)


class ViewImages:
    """The objects of a view manifest as a source of an indexing run (see `sources.Source`)."""

    def __init__(self, session: Session, manifest: ViewManifest, in_rig_order: bool = False) -> None:
        """Check that the manifest fits the collection.

        Args:
            session: open for writing.
            manifest: of the view images.
            in_rig_order: images without directions are in the order of the rig's views.

        Raises:
            DescriberError: the collection has several styles, or holds imported vectors.
            ViewsError: the manifest has no directions, and the collection's rig has.
        """
        describer = session.describer
        check_not_imported(session, "view images cannot be added: index them into their own collection")
        if describer.n_styles > 1:
            raise DescriberError(
                f"{session.folder} has the styles {', '.join(describer.config.styles)}, view images have one: index them into "
                "their own collection",
                code="several_styles",
            )
        rig = describer.rig
        if rig.is_known and not manifest.has_directions and not in_rig_order:
            raise ViewsError(
                f"the view manifest {manifest.path} has no directions, and {session.folder} has the rig {rig.short_name}: add the "
                f"columns azimuth_deg and elevation_deg, or give --rig {rig.name[:80]} if each object's rows are in that order",
                code="no_directions",
            )
        self.passed_over: Counter[str] = Counter()  # a manifest names all files
        self._store = session.store
        self._manifest = manifest
        self._slots = ViewSlots(rig, in_rig_order)
        self._reader = ViewImageReader(rig, describer.config.size, session.options.workers)

    def find(self) -> Iterator[tuple[IngestJob, tuple[str, str] | None]]:
        """Every object of the manifest, with code and message if it cannot be used."""
        for entry in self._manifest.objects:
            slots = self._slots.of(entry)
            job = partial(ViewImagesJob, Path(entry.path), self._manifest.path, None, entry.id)
            if isinstance(slots, str):
                yield job(tuple(enumerate(entry.images))), ("other_views", slots)
            else:
                yield job(tuple(zip(slots, entry.images, strict=True))), None

    def run(self, jobs: Iterable[IngestJob], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """See `ViewImageReader.run`."""
        return self._reader.run(jobs, needs_views)

    def rebind_paths(self) -> set[str]:
        """Give objects that the manifest lists at another path than before the new path. Returns the new paths."""
        listed = {entry.path for entry in self._manifest.objects}
        manifest = str(self._manifest.path)
        rebound: set[str] = set()
        with self._store.transaction():
            for entry in self._manifest.objects:
                row_id = None if self._store.by_path(entry.path) else self._store.row_id_of(entry.id)
                if row_id is None:
                    continue
                known = self._store.records([row_id])[row_id]
                of_this = self._store.root_of(row_id) == manifest or is_gone(known.path)
                if known.facts["format"] == FORMAT and known.path not in listed and of_this:
                    self._store.move(row_id, entry.path, "[]", manifest)
                    rebound.add(entry.path)
        return rebound

    def earlier_failures(self) -> list[str]:
        """Paths of the objects of this manifest that failed in an earlier run."""
        return self._store.failed_paths_by_stat(f"[{json.dumps(str(self._manifest.path))}, ")

    def missing(self) -> tuple[set[str], set[str]]:
        """Ids of objects that the manifest no longer lists; all of them may be removed."""
        listed = {entry.path for entry in self._manifest.objects}
        gone = {id for id, path in self._store.paths_of_root(str(self._manifest.path)) if path not in listed}
        return gone, gone


def _bytes_of(path: Path, manifest: Path | None) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _BadView(
            "missing_view", f"there is no image {path}: restore it, or remove its row from {manifest}"
        ) from None
    except PermissionError:
        raise _BadView("no_permission", f"this user may not read {path}: change its mode or owner") from None
    except OSError as error:
        raise _BadView("unreadable_view", f"{path} cannot be read: {error.strerror or error}") from None


def _longest_side(data: bytes, name: str) -> int:
    """Longer side of an image in pixels, from its header."""
    try:
        with open_image(io.BytesIO(data)) as opened:
            width, height = opened.size
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from None
    if width * height > MAX_PIXELS:
        raise _BadView(
            "unreadable_view", f"{name} has {width} x {height} pixels: scale it down to 150 megapixels or fewer"
        )
    return max(width, height)


def _decoded(data: bytes, name: str, scale: float, size: int) -> NDArray[np.uint8]:
    """An image as (size, size, 3) uint8: scaled and centred on a white square, not cropped."""
    try:
        with open_image(io.BytesIO(data)) as opened:
            width, height = opened.size
            opened.draft("RGB", (max(1, int(2 * width * scale)), max(1, int(2 * height * scale))))
            image = ImageOps.exif_transpose(opened)
            wide = (image.width > image.height) == (width > height)
            across = (width, height) if wide else (height, width)
            scaled_size = (max(1, round(across[0] * scale)), max(1, round(across[1] * scale)))
            rgba = to_8_bit(image).convert("RGBA")
            if rgba.size != scaled_size:
                rgba = rgba.resize(scaled_size, Image.Resampling.BICUBIC, reducing_gap=3.0)
            pixels = np.rint(over_white(np.asarray(rgba, np.float32))).clip(0, 255).astype(np.uint8)
    except _DAMAGED as error:
        raise _unreadable(name, error) from None
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - len(pixels)) // 2, (size - pixels.shape[1]) // 2
    canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return canvas


def _unreadable(name: str, error: BaseException) -> _BadView:
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return _BadView("unreadable_view", f"{name} is not a readable image{reason}: render it again as PNG, JPEG or WebP")
