"""COLLADA (DAE): the visual scene with its controllers in the pose of the file.

Source: COLLADA 1.4.1 specification (Khronos). pycollada leaves out what has a missing material, polygons with holes, and
geometries of controllers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.mesh import UpAxis
from mvrender.readers.collada_file import ColladaFile, Element, Input, Matrix
from mvrender.readers.collada_materials import ColladaMaterials
from mvrender.readers.collada_skins import geometry_of, posed, positions_of
from mvrender.readers.parts import Part, Reading, color_bytes, placed
from mvrender.readers.polygons import triangulate, triangulate_rings

_PRIMITIVES = ("triangles", "polylist", "polygons", "tristrips", "trifans")
_NOT_RENDERED = ("lines", "linestrips")
_MOST_LEVELS = 256
_MOST_NODES = 1_000_000
"""Visited, also through instances: nodes of a few kilobytes can double one another forty times."""
_UP: dict[str, UpAxis] = {"X_UP": "+x", "Y_UP": "+y", "Z_UP": "+z"}


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a DAE file.

    Raises:
        MeshError: a primitive uses a vertex that does not exist.
        lxml.etree.XMLSyntaxError, ValueError: it is damaged.
    """
    file = ColladaFile(data, reading)
    reading.up = _UP.get((file.root.findtext("asset/up_axis") or "").strip())
    scene = _Scene(file, reading)
    link = file.root.find("scene/instance_visual_scene")
    visual = None if link is None else file.target(link.get("url"))
    if visual is None:
        visual = next(file.root.iter("visual_scene"), None)
    if visual is not None:
        for node in visual.findall("node"):
            yield from scene.node(node, np.eye(4), 0)
    elif (library := file.root.find("library_geometries")) is not None:  # a file of geometries alone
        for geometry in library.findall("geometry"):
            yield from scene.geometry(geometry, np.eye(4), {}, None)


@dataclass
class _Corners:
    """Corners of a primitive, polygon by polygon.

    Attributes:
        indices: (k, stride).
        triangles: (t, 3) rows of `indices`.
    """

    indices: NDArray[np.int64]
    triangles: NDArray[np.int64]


class _Scene:
    def __init__(self, file: ColladaFile, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._materials = ColladaMaterials(file, reading)
        self._n_nodes = 0
        # Parts before they are placed, by primitive and bound material; with the primitive, whose id is else used again.
        self._parts: dict[tuple[int, bytes, bool], tuple[Element, Part | None]] = {}

    def node(self, node: Element, above: Matrix, level: int) -> Iterator[Part]:
        """The parts at a node and below it."""
        if level > _MOST_LEVELS:
            raise MeshError("unreadable", f"nodes are nested deeper than {_MOST_LEVELS} levels; export it again")
        self._n_nodes += 1
        if self._n_nodes > _MOST_NODES:
            raise MeshError(
                "too_large", f"more than {_MOST_NODES:,} nodes and instances of nodes; export fewer objects"
            )
        world = above @ self._file.local(node)
        for child in node:
            if child.tag == "node":
                yield from self.node(child, world, level + 1)
            elif child.tag == "instance_node":
                target = self._file.target(child.get("url"))
                if target is not None:
                    yield from self.node(target, world, level + 1)
                else:
                    self._missing(child)
            elif child.tag == "instance_geometry":
                geometry = self._file.target(child.get("url"))
                if geometry is not None:
                    yield from self.geometry(geometry, world, _bound(child), None)
                else:
                    self._missing(child)
            elif child.tag == "instance_controller":
                yield from self._controlled(child, world)

    def _missing(self, link: Element) -> None:
        self._reading.note(f"'{(link.get('url') or '').lstrip('#')[:80]}' is missing; rendered without it")

    def _controlled(self, link: Element, world: Matrix) -> Iterator[Part]:
        controller = self._file.target(link.get("url"))
        geometry = None if controller is None else geometry_of(self._file, controller)
        positions = None if geometry is None else positions_of(self._file, geometry)
        if geometry is None or positions is None:
            self._missing(link)
            return
        skeletons = [(entry.text or "").strip() for entry in link.findall("skeleton")]
        vertices, in_scene = posed(self._file, controller, positions, skeletons)
        yield from self.geometry(geometry, np.eye(4) if in_scene else world, _bound(link), vertices)

    def geometry(
        self, geometry: Element, world: Matrix, bound: dict[str, Element], vertices: NDArray[np.float64] | None
    ) -> Iterator[Part]:
        """The parts of a geometry.

        Args:
            geometry: to draw.
            world: its transform.
            bound: `instance_material` by symbol.
            vertices: (n, 3) instead of its own, or None.
        """
        mesh = geometry.find("mesh")
        if mesh is None:
            if any(child.tag in ("spline", "convex_mesh", "brep") for child in geometry):
                self._reading.note("geometries that are no meshes, such as splines, are not rendered")
            return
        for primitive in mesh:
            if primitive.tag in _NOT_RENDERED:
                self._reading.note("points and lines are not rendered")
            elif primitive.tag in _PRIMITIVES:
                if vertices is None:
                    part = self._cached_part(mesh, primitive, bound)
                else:
                    part = self._part(mesh, primitive, bound, vertices)
                if part is not None:
                    yield replace(part, vertices=placed(part.vertices, world))

    def _cached_part(self, mesh: Element, primitive: Element, bound: dict[str, Element]) -> Part | None:
        """The same part of every instance of a geometry with the same material."""
        link = bound.get(primitive.get("material", ""))
        key = (id(primitive), b"" if link is None else etree.tostring(link, with_tail=False), bool(bound))
        if key not in self._parts:
            self._parts[key] = primitive, self._part(mesh, primitive, bound, None)
        return self._parts[key][1]

    def _part(
        self, mesh: Element, primitive: Element, bound: dict[str, Element], vertices: NDArray[np.float64] | None
    ) -> Part | None:
        inputs = self._file.inputs(primitive, mesh)
        position = next((entry for entry in inputs if entry.semantic == "POSITION"), None)
        if position is None:
            return None
        positions = self._file.source(position.source)[:, :3] if vertices is None else vertices
        if positions.shape[1] < 3:
            positions = np.column_stack([positions, np.zeros((len(positions), 3 - positions.shape[1]))])
        stride = 1 + max(int(entry.get("offset", 0)) for entry in primitive.findall("input"))
        corners = self._corners(primitive, stride, position.offset, positions)
        if len(corners.triangles) == 0:
            return None
        link = bound.get(primitive.get("material", ""))
        url = link.get("target") if link is not None else None
        if url is None and primitive.get("material") and not bound:
            url = primitive.get("material")  # some exporters bind nothing and name the material itself
            url = url if self._file.target(url) is not None else None
        material, texcoord = self._materials.of(url)
        used = corners.indices[corners.triangles.ravel()]
        uv_input, color_input = _uv_input(inputs, link, texcoord), _first(inputs, "COLOR")
        columns = [position.offset, *(entry.offset for entry in (uv_input, color_input) if entry is not None)]
        unique, faces = np.unique(used[:, columns], axis=0, return_inverse=True)
        place = {entry: i + 1 for i, entry in enumerate(e for e in (uv_input, color_input) if e is not None)}
        uv = None if uv_input is None else _taken(self._file.source(uv_input.source)[:, :2], unique[:, place[uv_input]])
        colors = None
        if color_input is not None:
            values = self._file.source(color_input.source)
            if values.shape[1] >= 3:
                colors = color_bytes(_taken(values[:, :4], unique[:, place[color_input]]))
        return Part(positions[unique[:, 0]], faces.reshape(-1, 3), colors, uv=uv, material=material)

    def _corners(self, primitive: Element, stride: int, offset: int, positions: NDArray[np.float64]) -> _Corners:
        """All corners of a primitive, and the triangles between them."""
        runs = [self._file.integers(entry.text) for entry in primitive.findall("p")]
        runs = [run[: len(run) // stride * stride].reshape(-1, stride) for run in runs]
        if primitive.tag == "polygons":
            holes = [self._with_holes(entry, stride) for entry in primitive.findall("ph")]
        else:
            holes = []
        for run in (*runs, *(ring for rings in holes for ring in rings)):
            if len(run) and (run.min() < 0 or run[:, offset].max() >= len(positions)):
                raise MeshError("bad_indices", f"a face uses a vertex that does not exist: there are {len(positions)}")
        if primitive.tag in ("triangles", "polylist"):
            indices = np.concatenate(runs) if runs else np.empty((0, stride), np.int64)
            if primitive.tag == "triangles":
                n = len(indices) // 3
                return _Corners(indices, np.arange(3 * n).reshape(-1, 3))
            sizes = self._file.integers(primitive.findtext("vcount"))
            if (sizes < 0).any() or sizes.sum() > len(indices):
                raise ValueError("a list of polygons ends within one")
            indices = indices[: sizes.sum()]
        else:
            indices = np.concatenate(runs) if runs else np.empty((0, stride), np.int64)
            sizes = np.array([len(run) for run in runs], np.int64)
        if primitive.tag in ("tristrips", "trifans"):
            triangles = _strips_or_fans(sizes, primitive.tag == "trifans")
        else:
            triangles, _ = triangulate(positions, indices[:, offset], sizes)
        all_triangles, all_indices, n = [triangles], [indices], len(indices)
        for rings in holes:
            found = triangulate_rings([positions[ring[:, offset]] for ring in rings])
            all_triangles.append(found + n)
            all_indices += rings
            n += sum(map(len, rings))
        return _Corners(np.concatenate(all_indices), np.concatenate(all_triangles))

    def _with_holes(self, entry: Element, stride: int) -> list[NDArray[np.int64]]:
        """Outline and holes of a `ph`."""
        rings = [self._file.integers(ring.text) for ring in self._file.children(entry, "p", "h")]
        return [ring[: len(ring) // stride * stride].reshape(-1, stride) for ring in rings if len(ring) >= 3 * stride]


def _bound(link: Element) -> dict[str, Element]:
    return {
        entry.get("symbol", ""): entry for entry in link.iterfind("bind_material/technique_common/instance_material")
    }


def _first(inputs: list[Input], semantic: str) -> Input | None:
    return min((entry for entry in inputs if entry.semantic == semantic), key=lambda entry: entry.set, default=None)


def _uv_input(inputs: list[Input], link: Element | None, texcoord: str | None) -> Input | None:
    """The texture coordinates that a material is bound to, else the first."""
    if link is not None and texcoord is not None:
        for entry in link.findall("bind_vertex_input"):
            if entry.get("semantic") == texcoord:
                number = int(entry.get("input_set", 0))
                found = next((i for i in inputs if i.semantic == "TEXCOORD" and i.set == number), None)
                if found is not None:
                    return found
    return _first(inputs, "TEXCOORD")


def _taken(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if len(rows) and rows.max() >= len(values):
        raise ValueError("a face uses a texture coordinate or colour that does not exist")
    return values[rows]


def _strips_or_fans(sizes: NDArray[np.int64], fans: bool) -> NDArray[np.int64]:
    found = [np.empty((0, 3), np.int64)]
    start = 0
    for size in sizes.tolist():
        if size >= 3:
            at = np.arange(start, start + size - 2)
            triangles = np.stack([np.full(size - 2, start) if fans else at, at + 1, at + 2], axis=1)
            if not fans:
                triangles[1::2] = triangles[1::2, [1, 0, 2]]
            found.append(triangles)
        start += size
    return np.concatenate(found)
