"""Write the views of meshes as pictures, and a contact sheet of all of them.

Beside them a CSV for each style says from where each view was taken: `mvr index --views` reads it in the place of the meshes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from mvrender.cameras import parse_rig
from mvrender.errors import MvrenderError
from mvrender.mesh import UpAxis
from mvrender.pool import Failed, Job, Rendered, RenderPool, RenderSpec
from mvrender.renderer import BackendName, choose
from mvrender.shading import parse_styles
from mvretrieval.cli.common import say
from mvretrieval.collection.scan import find_meshes

_SHEET_VIEW = 160
_MAX_SHEET_ROWS = 200
_Listed = tuple[str, tuple[str, ...]]  # style, and a row of its CSV


@dataclass(frozen=True)
class Options:
    """Options of `mvr render`.

    Attributes:
        files: meshes, or folders of them.
        out: folder for the pictures, and for a CSV of each style's: 'mvr index THINGS/ --views OUT/views-clay.csv --styles clay'.
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
    backend, reason = choose(options.backend)
    spec = RenderSpec(rig=parse_rig(options.rig), styles=styles, size=options.size, backend=backend)
    say(f"views: {spec.rig.name}, {', '.join(styles)}, {spec.size} px; {backend} ({reason})")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MvrenderError(f"{options.out} cannot be made: {error.strerror}") from error
    rows: list[tuple[str, Image.Image]] = []
    listed: list[_Listed] = []
    failed = 0
    found = list(find_meshes(options.files))
    for item in found:
        if item.problem:
            say(f"{item.path}: {item.problem[1]} ({item.problem[0]})")
            failed += 1
    jobs = (Job(item.path, item.root, options.up) for item in found if item.problem is None)
    with RenderPool(spec) as pool:
        for result in pool.run(jobs):
            if isinstance(result, Failed):
                say(f"{result.job.path}: {result.message} ({result.code})")
                failed += 1
                continue
            for note in result.opened.notes:
                say(f"{result.opened.job.path}: {note}")
            job = result.opened.job
            own_id = job.path.relative_to(job.root or job.path.parent).as_posix()
            name = own_id.replace("/", "__")
            say(f"{job.path}: {result.opened.facts['faces']} faces, up {result.opened.up}")
            if not options.sheet_only:
                listed += _write_views(options.out, own_id, name, result, spec)
            if len(rows) < _MAX_SHEET_ROWS:
                rows.append((name, _row(result)))
    for style in styles if listed else ():
        _write_csv(options.out / f"views-{style}.csv", [row for of, row in sorted(listed) if of == style])
    if rows:
        _sheet(sorted(rows, key=lambda row: row[0])).save(options.out / "sheet.png")
        print(options.out / "sheet.png")
    return 1 if failed and not rows else 0


def _write_views(out: Path, own_id: str, name: str, result: Rendered, spec: RenderSpec) -> list[_Listed]:
    """All pictures; those that show something are listed."""
    assert result.views is not None
    listed: list[_Listed] = []
    azimuths, elevations = spec.rig.azimuths_deg, spec.rig.elevations_deg
    for style, views in zip(spec.styles, result.views.images, strict=True):
        for v, image in enumerate(views):
            file = f"{name}__{style}_{v:02d}.png"
            Image.fromarray(image).save(out / file)
            if result.views.mask[v]:
                listed.append((style, (own_id, file, f"{azimuths[v]:.3f}", f"{elevations[v]:.3f}")))
    return listed


def _write_csv(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "file", "azimuth_deg", "elevation_deg"), *rows])


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
