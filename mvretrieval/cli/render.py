"""Write the views of meshes as pictures, and a contact sheet of all of them.

A CSV for each style says from where each view was taken: `mvr index --views` reads it in the place of the meshes.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from mvrender.backends.selection import choose_backend
from mvrender.cameras import parse_rig
from mvrender.errors import MvrenderError
from mvrender.formats import FORMATS
from mvrender.mesh import UpAxis
from mvrender.pool import Failed, Job, Rendered, RenderPool, RenderSpec
from mvrender.renderer import BackendName
from mvrender.shading import Style, parse_styles
from mvretrieval.console import say
from mvretrieval.ingest.scan import find_meshes
from mvretrieval.ingest.view_manifest import read_view_manifest

_SHEET_VIEW = 160
_MAX_SHEET_ROWS = 50


@dataclass(frozen=True)
class Options:
    """Options of `mvr render`.

    Attributes:
        files: meshes, or folders of them.
        out: folder for the pictures of each mesh, in a folder of its own, and for a CSV of each style's:
            'mvr index THINGS/ --views OUT/views-clay.csv --styles clay'. What earlier runs rendered there stays listed.
        rig: where the cameras stand: ring:12@30, os3dor, sphere:20, dodecahedron, cube, random:12@0 (seed 0).
        styles: with commas: texture, clay, depth, normal, silhouette.
        size: pixels of a view, 64 to 1024.
        up: axis that is up in the files; each format's convention by default.
        backend: renderer; the best one here by default.
        sheet_only: write the contact sheet alone.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    rig: str = "ring:12@30"
    styles: str = "texture"
    size: int = 224
    up: UpAxis | None = None
    backend: BackendName | None = None
    sheet_only: bool = False


def run(options: Options) -> int:
    """Render and tell where the pictures are."""
    styles = parse_styles(options.styles)
    backend, reason = choose_backend(options.backend)
    spec = RenderSpec(rig=parse_rig(options.rig), styles=styles, size=options.size, backend=backend)
    say(f"views: {spec.rig.name}, {', '.join(styles)}, {spec.size} px; {backend} ({reason})")
    tables = {style: _Table.read(options.out / f"views-{style}.csv") for style in styles}
    sheet: list[tuple[str, Image.Image]] = []
    failed = rendered = 0

    def fail(path: Path, code: str, message: str) -> None:
        nonlocal failed
        say(f"{path}: {message} ({code})")
        failed += 1

    found = list(find_meshes(options.files))
    if not found:
        raise MvrenderError(
            f"no mesh found in {', '.join(map(str, options.files))}; the formats are {' '.join(sorted(FORMATS))}"
        )
    for item in found:
        if item.problem:
            fail(item.path, *item.problem)
    jobs = [Job(item.path, item.root, options.up) for item in found if item.problem is None]
    ids = _ids(jobs)
    try:
        with RenderPool(spec) as pool:
            for result in pool.run(jobs):
                if isinstance(result, Failed):
                    fail(result.job.path, result.code, result.message)
                    continue
                for note in result.opened.notes:
                    say(f"{result.opened.job.path}: {note}")
                path = result.opened.job.path
                own_id = ids[path]
                try:
                    if not options.sheet_only:
                        _write_views(options.out, own_id, result, spec, tables)
                except OSError as error:
                    fail(path, "not_written", f"its pictures cannot be written: {error.strerror or error}")
                    continue
                say(f"{path}: {result.opened.facts['faces']} faces, up {result.opened.up}")
                rendered += 1
                if len(sheet) < _MAX_SHEET_ROWS:
                    sheet.append((own_id, _row(result)))
    finally:  # stopped or not: what is there is listed
        for table in tables.values():
            table.write()
    if sheet:
        place = options.out / "sheet.png"
        try:
            _sheet(sorted(sheet, key=lambda row: row[0])).save(place)
        except OSError as error:
            raise MvrenderError(f"{place} cannot be written: {error.strerror or error}") from error
        if rendered > len(sheet):
            say(f"the sheet shows {len(sheet)} of {rendered} meshes")
        print(place)
    return 1 if failed and not sheet else 0


def _ids(jobs: list[Job]) -> dict[Path, str]:
    """An id for each file, its path relative to its folder; twins of two folders are told apart as a collection does."""
    taken: set[str] = set()
    found: dict[Path, str] = {}
    for job in jobs:
        relative = job.path.relative_to(job.root or job.path.parent)
        # A CSV loses blanks around a name.
        wanted = "/".join(part.strip() or "_" for part in relative.parts)
        found[job.path] = next(name for n in count(1) if (name := wanted if n == 1 else f"{wanted}~{n}") not in taken)
        taken.add(found[job.path])
    return found


def _write_views(out: Path, own_id: str, result: Rendered, spec: RenderSpec, tables: dict[Style, _Table]) -> None:
    """All pictures of an object in a folder of its own; those that show something are listed."""
    assert result.views is not None
    folder = out / own_id
    folder.mkdir(parents=True, exist_ok=True)
    for style, views in zip(spec.styles, result.views.images, strict=True):
        for v, image in enumerate(views):
            Image.fromarray(image).save(folder / f"{style}_{v:02d}.png")
        tables[style].rows[own_id] = [
            (f"{own_id}/{style}_{v:02d}.png", f"{azimuth:.3f}", f"{elevation:.3f}")
            for v, (azimuth, elevation) in enumerate(zip(spec.rig.azimuths_deg, spec.rig.elevations_deg, strict=True))
            if result.views.mask[v]
        ]


@dataclass
class _Table:
    """The CSV of one style: id -> (file, azimuth_deg, elevation_deg) of each view."""

    path: Path
    rows: dict[str, list[tuple[str, str, str]]]

    @classmethod
    def read(cls, path: Path) -> _Table:
        """What an earlier run wrote into the same folder, as far as its pictures are there."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                return cls(path, {})
            known = read_view_manifest(path)
        except OSError as error:
            raise MvrenderError(
                f"{path.parent} cannot be used: {error.strerror or error}; name another --out"
            ) from error
        rows = {}
        for given in known.objects:
            if given.angles and Path(given.images[0]).is_file():
                files = [Path(os.path.relpath(picture, known.path.parent)).as_posix() for picture in given.images]
                rows[given.id] = [(f, f"{a:.3f}", f"{e:.3f}") for f, (a, e) in zip(files, given.angles, strict=True)]
        return cls(path, rows)

    def write(self) -> None:
        """All of it or nothing; nothing where nothing was rendered."""
        if not self.rows:
            return
        part = self.path.with_name(f"{self.path.name}.part")
        try:
            with part.open("w", newline="", encoding="utf-8") as file:
                lines = [(own_id, *view) for own_id in sorted(self.rows) for view in self.rows[own_id]]
                csv.writer(file).writerows([("id", "file", "azimuth_deg", "elevation_deg"), *lines])
            part.replace(self.path)
        except OSError as error:
            raise MvrenderError(f"{self.path} cannot be written: {error.strerror or error}") from error


def _row(result: Rendered) -> Image.Image:
    assert result.views is not None
    rows = []
    for views in result.views.images:
        small = [Image.fromarray(v).resize((_SHEET_VIEW, _SHEET_VIEW), Image.Resampling.LANCZOS) for v in views]
        rows.append(np.concatenate([np.asarray(s) for s in small], axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


def _sheet(rows: list[tuple[str, Image.Image]]) -> Image.Image:
    title = 18
    height = sum(row.height + title for _, row in rows)
    sheet = Image.new("RGB", (max(row.width for _, row in rows), height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    y = 0
    for name, row in rows:
        draw.text((4, y + 3), name.encode("ascii", "replace").decode(), fill=(60, 60, 60))
        sheet.paste(row, (0, y + title))
        y += row.height + title
    return sheet
