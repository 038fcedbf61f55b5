"""Write the rendered views of meshes as images, and a contact sheet of all meshes.

A view manifest (CSV) for each style lists the camera direction of each view. `mvr index --view-manifest` reads it, so that the
views can be indexed without the meshes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import tyro

from mvrender.backends.selection import choose_backend
from mvrender.cameras import parse_rig
from mvrender.errors import MvrenderError
from mvrender.jobs import Failed, Rendered, RenderJob, RenderSpec
from mvrender.mesh import UpAxis
from mvrender.pool import RenderPool
from mvrender.renderer import BackendName, NamedBackend
from mvrender.shading import parse_styles
from mvretrieval.cli.index_summary import no_mesh_found
from mvretrieval.cli.render_output import ContactSheet, StyleManifest, write_views
from mvretrieval.console import print_json, say, say_error
from mvretrieval.ingest.scan import find_meshes


@dataclass(frozen=True)
class Options:
    """Options of `mvr render`.

    Attributes:
        files: meshes, or folders of meshes.
        out: output folder. Each mesh gets a folder of view images, and each style a view manifest, as in
            'mvr index THINGS/ --view-manifest OUT/views-clay.csv --styles clay'. Manifests keep the rows of earlier runs.
        rig: camera rig: ring:12@30, os3dor, sphere:20, dodecahedron, cube, random:12@0 (seed 0).
        styles: rendering styles, separated by commas: texture, clay, depth, normal, silhouette.
        size: pixels of a view, 64 to 1024.
        up: axis that is up in the files. Default: the convention of each format.
        backend: renderer. Default: the best one available.
        sheet_only: write only the contact sheet.
        json: print one JSON object: the contact sheet, the rendered files with their facts and notes, and the failures.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    rig: str = "ring:12@30"
    styles: str = "texture"
    size: int = 224
    up: UpAxis | None = None
    backend: NamedBackend | BackendName | None = None
    sheet_only: bool = False
    json: bool = False


def run(options: Options) -> int:
    """Render and print the path of the contact sheet."""
    styles = parse_styles(options.styles)
    backend, reason = choose_backend(options.backend)
    spec = RenderSpec(rig=parse_rig(options.rig), styles=styles, size=options.size, backend=backend)
    say(f"views: {spec.rig.name}, {', '.join(styles)}, {spec.size} px; {backend} ({reason})")
    manifests = {style: StyleManifest.read(options.out / f"views-{style}.csv") for style in styles}
    sheet = ContactSheet()
    rendered: list[dict[str, Any]] = []
    jobs, unusable = _jobs(options)
    failures = _Failures()
    for failure in unusable:
        failures.add(*failure)
    ids = _ids(jobs)
    try:
        for result in _render(spec, jobs, failures):
            path = result.opened.job.path
            try:
                if not options.sheet_only:
                    write_views(options.out, ids[path], result, spec, manifests)
            except OSError as error:
                failures.add(path, "not_written", f"its views cannot be written: {error.strerror or error}")
                continue
            opened = result.opened
            say(f"{path}: {opened.facts['faces']} faces, up {opened.up}")
            facts = {"id": ids[path], "up": opened.up, **opened.facts, "notes": list(opened.notes)}
            rendered.append({"path": str(path), **facts})
            sheet.add(ids[path], result)
    finally:  # also after an interruption, the manifests list the images that exist
        for manifest in manifests.values():
            manifest.write()
    place = options.out / "sheet.png" if rendered else None
    if place is not None:
        sheet.save(place)
        if len(rendered) > len(sheet):
            say(f"the sheet shows {len(sheet)} of {len(rendered)} meshes")
    if options.json:
        found = {"sheet": None if place is None else str(place), "rendered": rendered, "failures": failures.rows}
        print_json(found)
    elif place is not None:
        print(place)
    return 0 if rendered else 1


class _Failures:
    """Files that could not be rendered or written; each is printed at once."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []

    def add(self, path: Path, code: str, message: str) -> None:
        say_error(f"{path}: {message} ({code})")
        self.rows.append({"path": str(path), "code": code, "message": message})


def _jobs(options: Options) -> tuple[list[RenderJob], list[tuple[Path, str, str]]]:
    """Render jobs, and (path, code, message) of files that cannot be rendered.

    Raises:
        MvrenderError: there is no mesh.
    """
    found = list(find_meshes(options.files))
    if not found:
        raise MvrenderError(no_mesh_found(options.files), code="no_meshes")
    jobs = [RenderJob(item.path, item.root, options.up) for item in found if item.problem is None]
    return jobs, [(item.path, *item.problem) for item in found if item.problem is not None]


def _render(spec: RenderSpec, jobs: list[RenderJob], failures: _Failures) -> Iterator[Rendered]:
    """Rendered meshes."""
    with RenderPool(spec) as pool:
        for result in pool.run(jobs):
            if isinstance(result, Failed):
                failures.add(result.job.path, result.code, result.message)
                continue
            for note in result.opened.notes:
                say(f"{result.opened.job.path}: {note}")
            yield result


def _ids(jobs: list[RenderJob]) -> dict[Path, str]:
    """An id for each file: its path relative to its folder, with ~2, ~3, ... for duplicates, as in a collection."""
    taken: set[str] = set()
    found: dict[Path, str] = {}
    for job in jobs:
        relative = job.path.relative_to(job.root or job.path.parent)
        # A CSV loses blanks around a name.
        wanted = "/".join(part.strip() or "_" for part in relative.parts)
        found[job.path] = next(name for n in count(1) if (name := wanted if n == 1 else f"{wanted}~{n}") not in taken)
        taken.add(found[job.path])
    return found
