"""3MF: the items of the build plate with their components, colours, base materials and textures.

Source: 3MF Core Specification 1.3, Materials Extension 1.2, Production Extension 1.1. Read with lib3mf, the 3MF Consortium's own
library, which follows paths into other model parts of the package.
"""

from __future__ import annotations

import ctypes
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import lib3mf
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.readers.archive import DAMAGED, check_unpacked
from mvrender.readers.parts import Material, Part, Reading, compact, placed
from mvrender.texture_images import Wrap, open_texture

_MOST_LEVELS = 64  # of components
_COLORS, _MATERIALS, _TEXTURE = (
    lib3mf.PropertyType.Colors,
    lib3mf.PropertyType.BaseMaterial,
    lib3mf.PropertyType.TexCoord,
)
_WRAPS: tuple[Wrap, ...] = ("repeat", "mirror", "clamp", "clamp")
_PROPERTIES = np.dtype([("resource", "<u4"), ("properties", "<u4", 3)])

Matrix = NDArray[np.float64]


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a 3MF file.

    Raises:
        MeshError: it unpacks to too much, or components are nested too deep.
        lib3mf.ELib3MFException: it is not a 3MF file, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            check_unpacked(archive, reading.limits)
    except DAMAGED as error:
        raise MeshError("unreadable", f"not a readable 3MF file ({error}); copy or export it again") from None
    model = _wrapper().CreateModel()
    reader = model.QueryReader("3mf")
    reader.SetStrictModeActive(False)
    try:
        reader.ReadFromBuffer((ctypes.c_uint8 * len(data)).from_buffer_copy(data))
    except lib3mf.ELib3MFException as error:  # of one degenerate triangle, or a missing texture
        from mvrender.readers import with_trimesh  # late: trimesh takes half of a worker's start

        parts = list(with_trimesh.read(data, reading))
        detail = " ".join(str(error).split())[:100]
        reading.note(f"the 3MF file is not valid ({detail}): rendered without colours and objects of other model parts")
        yield from parts
        return
    file = _Model(model, reading)
    items = [(item.GetObjectResource(), _matrix(item.GetObjectTransform())) for item in _all(model.GetBuildItems())]
    if not items:
        reading.note("nothing is on the build plate; all objects are rendered")
        items = [(found, np.eye(4)) for found in _all(model.GetMeshObjects())]
    for found, transform in items:
        yield from file.parts(found, transform, 0)


@cache
def _wrapper() -> Any:
    return lib3mf.get_wrapper()


class _Model:
    """The objects and resources of a file, each read once."""

    def __init__(self, model: Any, reading: Reading) -> None:
        self._model = model
        self._reading = reading
        self._meshes: dict[int, list[Part]] = {}
        self._images: dict[int, tuple[Image.Image | None, tuple[Wrap, Wrap]]] = {}

    def parts(self, found: Any, transform: Matrix, level: int) -> Iterator[Part]:
        """The parts of an object and of its components."""
        if level > _MOST_LEVELS:
            raise MeshError("unreadable", f"components are nested deeper than {_MOST_LEVELS} levels; export it again")
        if found.IsMeshObject():
            key = found.GetUniqueResourceID()
            if key not in self._meshes:
                self._meshes[key] = list(self._of_mesh(found))
            for part in self._meshes[key]:
                yield Part(
                    placed(part.vertices, transform), part.faces, part.colors, uv=part.uv, material=part.material
                )
        elif found.IsComponentsObject():
            for i in range(found.GetComponentCount()):
                component = found.GetComponent(i)
                own = _matrix(component.GetTransform()) if component.HasTransform() else np.eye(4)
                yield from self.parts(component.GetObjectResource(), transform @ own, level + 1)
        else:
            self._reading.note("an object that is no mesh, such as a level set, is not rendered")

    def _of_mesh(self, mesh: Any) -> Iterator[Part]:
        if mesh.BeamLattice().GetBeamCount():
            self._reading.note("beam lattices are not rendered")
        vertices = _array(mesh, "getvertices", lib3mf.Position, np.dtype(("<f4", 3))).astype(np.float64)
        faces = _array(mesh, "gettriangleindices", lib3mf.Triangle, np.dtype(("<u4", 3))).astype(np.int64)
        if len(faces) == 0:
            return
        given = _array(mesh, "getalltriangleproperties", lib3mf.TriangleProperties, _PROPERTIES)
        resources, properties = given["resource"].copy(), given["properties"].copy()
        resource, of_object, has_object_level = mesh.GetObjectLevelProperty()
        if has_object_level:
            properties[resources == 0] = of_object
            resources[resources == 0] = resource
        for resource in np.unique(resources):
            some = resources == resource
            yield self._colored(vertices, faces[some], int(resource), properties[some])

    def _colored(
        self, vertices: NDArray[np.float64], faces: NDArray[np.int64], resource: int, properties: NDArray[np.uint32]
    ) -> Part:
        """Faces whose properties are of one resource (0: none)."""
        kind = self._model.GetPropertyTypeByID(resource) if resource else None
        own = vertices[faces.ravel()]  # each corner has a property of its own
        triangles = np.arange(3 * len(faces)).reshape(-1, 3)
        if kind == _COLORS:
            group = self._model.GetColorGroupByID(resource)
            return Part(own, triangles, _looked_up(properties, lambda i: _rgba(group.GetColor(i)), np.uint8, 4))
        if kind == _MATERIALS:
            group = self._model.GetBaseMaterialGroupByID(resource)
            first = np.repeat(properties[:, :1], 3, axis=1)
            return Part(own, triangles, _looked_up(first, lambda i: _rgba(group.GetDisplayColor(i)), np.uint8, 4))
        if kind == _TEXTURE:
            group = self._model.GetTexture2DGroupByID(resource)
            image, wrap = self._image(group.GetTexture2D())
            uv = _looked_up(properties, lambda i: _uv(group.GetTex2Coord(i)), np.float64, 2)
            return Part(own, triangles, uv=uv, material=Material(image=image, wrap=wrap))
        if kind is not None:
            self._reading.note("composite and multiple materials are not rendered")
        used, corners = compact(faces, len(vertices))
        return Part(vertices[used], corners)

    def _image(self, texture: Any) -> tuple[Image.Image | None, tuple[Wrap, Wrap]]:
        key = texture.GetUniqueResourceID()
        if key not in self._images:
            image = open_texture(bytes(texture.GetAttachment().WriteToBuffer()))
            if image is None:
                self._reading.note("a texture is not a readable image; rendered without it")
            u, v = texture.GetTileStyleUV()
            self._images[key] = image, (_WRAPS[int(u)], _WRAPS[int(v)])
        return self._images[key]


def _all(iterator: Any) -> Iterator[Any]:
    while iterator.MoveNext():
        yield iterator.GetCurrentMeshObject() if hasattr(iterator, "GetCurrentMeshObject") else iterator.GetCurrent()


def _matrix(transform: Any) -> Matrix:
    """(4, 4) for column vectors of lib3mf's transform for row vectors."""
    matrix = np.eye(4)
    matrix[:3] = np.array([list(row) for row in transform.Fields], np.float64).T
    return matrix


def _array(mesh: Any, name: str, kind: type[ctypes.Structure], dtype: np.dtype[Any]) -> NDArray[Any]:
    """A list of a mesh. The methods of the Python binding make an object of each entry, which takes as long as parsing."""
    wrapper = mesh._wrapper
    function = getattr(wrapper.lib, f"lib3mf_meshobject_{name}")
    needed = ctypes.c_uint64(0)
    wrapper.checkError(mesh, function(mesh._handle, ctypes.c_uint64(0), needed, (kind * 0)()))
    room: Any = (kind * needed.value)()
    wrapper.checkError(mesh, function(mesh._handle, ctypes.c_uint64(needed.value), needed, room))
    found: NDArray[Any] = np.frombuffer(room, dtype.base)
    return found.reshape(-1, *dtype.shape) if dtype.shape else found


def _looked_up(properties: NDArray[np.uint32], value: Any, kind: type, width: int) -> NDArray[Any]:
    """(3 m, width) values of the properties (m, 3); each is read once."""
    unique, where = np.unique(properties.ravel(), return_inverse=True)
    return np.array([value(int(i)) for i in unique], kind).reshape(-1, width)[where]


def _rgba(color: Any) -> tuple[int, int, int, int]:
    return color.Red, color.Green, color.Blue, color.Alpha


def _uv(coordinate: Any) -> tuple[float, float]:
    return coordinate.U, coordinate.V
