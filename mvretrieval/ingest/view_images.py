"""Objects whose views come as pictures: read, checked and put where renders of a mesh would be."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mvrender.cameras import Rig
from mvrender.pool import Failed, Opened, Rendered
from mvrender.renderer import Views
from mvrender.strips import thumbnail_strip
from mvretrieval.errors import DescriberError, ViewsError
from mvretrieval.images import MAX_PIXELS, eight_bit, over_white
from mvretrieval.ingest.jobs import IngestJob
from mvretrieval.ingest.scan import is_gone, size_and_time
from mvretrieval.ingest.view_manifest import Slots, ViewManifest
from mvretrieval.session.render_pools import THUMBNAIL_SIZE
from mvretrieval.session.session import Session
from mvretrieval.store.records import ObjectRecord

FORMAT = "views"
"""What stands for the file format in the facts of an object whose views came as pictures."""

# What Pillow's plugins raise on damaged files, beside OSError.
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
    """A picture that cannot be used: code and message."""

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
        """Read objects in order; `needs_views` is asked with an object's content hash before its pictures are decoded."""
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
            mask[slot] = bool((image != image[0, 0]).any())  # of one colour: nothing is seen from there, as in a render
        if not mask.any():
            raise _BadView("nothing_visible", "its pictures are of one colour; render the object anew")
        return Views(images, mask, self._cameras)


class ViewImages:
    """The objects of a CSV as what a collection is filled from (see `sources.Source`)."""

    def __init__(self, session: Session, views: ViewManifest, in_rig_order: bool = False) -> None:
        """Check that the collection has a place for them.

        Args:
            session: open for writing.
            views: the CSV.
            in_rig_order: pictures without directions are the rig's views in order.

        Raises:
            DescriberError: the collection's objects are looked at in several styles.
            ViewsError: the CSV says no directions, and the collection's views have some.
        """
        describer = session.describer
        if describer.n_styles > 1:
            raise DescriberError(
                f"{session.folder} looks at objects in {', '.join(describer.config.styles)}, and pictures are of one style: "
                "index them into a collection of their own"
            )
        rig = describer.rig
        if rig.is_known and not views.has_directions and not in_rig_order:
            raise ViewsError(
                f"views {views.path} do not say from where objects were seen, and {session.folder} has the views "
                f"{rig.short_name}: add the columns azimuth_deg and elevation_deg, or give --rig {rig.name[:80]} if each "
                "object's rows are in that order"
            )
        self._store = session.store
        self._views = views
        self._slots = Slots(rig, in_rig_order)
        self._reader = ViewImageReader(rig, describer.config.size, session.options.workers)

    def find(self) -> Iterator[tuple[IngestJob, tuple[str, str] | None]]:
        """Every object of the CSV, and why it cannot be used."""
        for given in self._views.objects:
            slots = self._slots.of(given)
            job = partial(ViewImagesJob, Path(given.path), self._views.path, None, given.id)
            if isinstance(slots, str):
                yield job(tuple(enumerate(given.images))), ("other_views", slots)
            else:
                yield job(tuple(zip(slots, given.images, strict=True))), None

    def run(self, jobs: Iterable[IngestJob], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """See `ViewImageReader.run`."""
        return self._reader.run(jobs, needs_views)

    def rebind_paths(self) -> set[str]:
        """Objects that the CSV has at another path than before keep their ids. Returns the new paths."""
        listed = {given.path for given in self._views.objects}
        csv = str(self._views.path)
        adopted: set[str] = set()
        with self._store.transaction():
            for given in self._views.objects:
                row_id = None if self._store.by_path(given.path) else self._store.row_id_of(given.id)
                if row_id is None:
                    continue
                known = self._store.records([row_id])[row_id]
                of_this = self._store.root_of(row_id) == csv or is_gone(known.path)
                if known.facts["format"] == FORMAT and known.path not in listed and of_this:
                    self._store.move(row_id, given.path, "[]", csv)
                    adopted.add(given.path)
        return adopted

    def earlier_failures(self) -> list[str]:
        """Paths of the objects of this CSV that could not be read before."""
        return self._store.failed_paths_by_stat(f"[{json.dumps(str(self._views.path))}, ")

    def missing(self) -> tuple[set[str], set[str]]:
        """Ids of objects that the CSV no longer has, all of which may be removed."""
        listed = {given.path for given in self._views.objects}
        gone = {id for id, path in self._store.paths_of_root(str(self._views.path)) if path not in listed}
        return gone, gone


def _bytes_of(path: Path, csv: Path | None) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _BadView("missing_view", f"no picture at {path}: bring it back, or take its row out of {csv}") from None
    except PermissionError:
        raise _BadView("no_permission", f"{path} may not be read by this user; change its mode or owner") from None
    except OSError as error:
        raise _BadView("unreadable_view", f"{path} cannot be read: {error.strerror or error}") from None


def _longest_side(data: bytes, name: str) -> int:
    """Pixels of a picture's longer side, by its header."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        raise _unreadable(name, error) from None
    if width * height > MAX_PIXELS:
        raise _BadView(
            "unreadable_view", f"{name} has {width} x {height} pixels; scale it down to 150 megapixels or less"
        )
    return max(width, height)


def _decoded(data: bytes, name: str, scale: float, size: int) -> NDArray[np.uint8]:
    """A picture as (size, size, 3) uint8, scaled and in the middle of a white square: its frame is kept, nothing is cropped."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
            opened.draft("RGB", (max(1, int(2 * width * scale)), max(1, int(2 * height * scale))))
            picture = ImageOps.exif_transpose(opened)
            wide = (picture.width > picture.height) == (width > height)
            across = (width, height) if wide else (height, width)
            needs_views = (max(1, round(across[0] * scale)), max(1, round(across[1] * scale)))
            rgba = eight_bit(picture).convert("RGBA")
            if rgba.size != needs_views:
                rgba = rgba.resize(needs_views, Image.Resampling.BICUBIC, reducing_gap=3.0)
            pixels = np.rint(over_white(np.asarray(rgba, np.float32))).clip(0, 255).astype(np.uint8)
    except _DAMAGED as error:
        raise _unreadable(name, error) from None
    canvas = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - len(pixels)) // 2, (size - pixels.shape[1]) // 2
    canvas[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return canvas


def _unreadable(name: str, error: BaseException) -> _BadView:
    what = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return _BadView("unreadable_view", f"{name} is no readable picture{what}: PNG, JPEG and WebP are; render it anew")
