"""USD, as text, crate or package (USDZ), at its default time: read with Pixar's library.

Source: https://openusd.org, schemas UsdGeom and UsdShade (UsdPreviewSurface). The file is read from a folder of its own, so that
other layers that it names are not read; a package holds all that it needs.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pxr import Usd, UsdGeom, UsdShade

from mvrender.errors import MeshError
from mvrender.readers.archive import DAMAGED, check_unpacked
from mvrender.readers.parts import Color, Material, Part, Reading, color_bytes, placed, srgb_of_linear
from mvrender.readers.polygons import triangulate
from mvrender.references import ArchiveReferences, References
from mvrender.texture_images import Wrap

_WRAPS: dict[str, Wrap] = {"repeat": "repeat", "mirror": "mirror", "clamp": "clamp", "black": "clamp"}


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a `.usd`, `.usda`, `.usdc` or `.usdz` file.

    Raises:
        MeshError: it cannot be opened, or a face uses a vertex that does not exist.
    """
    references = reading.references
    if reading.suffix == ".usdz":
        references = _package(data, reading)
    with tempfile.TemporaryDirectory(prefix="mvrender-usd-") as folder:
        path = Path(folder) / f"model{reading.suffix}"
        path.write_bytes(data)
        try:
            stage = Usd.Stage.Open(str(path))
        except Exception as error:  # pxr.Tf.ErrorException
            detail = " ".join(str(error).split())[:200]
            raise MeshError("unreadable", f"not a readable USD file ({detail}); export it again") from None
        if any(not layer.anonymous and folder not in layer.realPath for layer in stage.GetUsedLayers()):
            raise MeshError(
                "outside_reference", "the file names layers of other folders; flatten it ('usdcat --flatten')"
            )
        composition = stage.GetCompositionErrors() if hasattr(stage, "GetCompositionErrors") else ()
        if composition:
            reading.note("layers that the file names are not read; flatten it with 'usdcat --flatten'")
        reading.up = "+z" if UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z else "+y"
        yield from _Stage(reading, references).parts(stage)


def _package(data: bytes, reading: Reading) -> References:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGED as error:
        raise MeshError("unreadable", f"not a readable USDZ package ({error}); copy it again") from None
    check_unpacked(archive, reading.limits)
    return ArchiveReferences(archive, "model.usdc")


_NOT_RENDERED = ("Sphere", "Cube", "Cylinder", "Cone", "Capsule", "NurbsPatch", "BasisCurves", "PointInstancer")


class _Stage:
    def __init__(self, reading: Reading, references: References) -> None:
        self._reading = reading
        self._references = references
        self._materials: dict[str, tuple[Material, str]] = {}

    def parts(self, stage: Any) -> Iterator[Part]:
        """The visible meshes of a stage, instances too."""
        cache = UsdGeom.XformCache()
        skinned = False
        for prim in Usd.PrimRange.Stage(stage, Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)):
            if prim.GetTypeName() in _NOT_RENDERED:
                self._reading.note(f"USD prims of type {prim.GetTypeName()} are not rendered; convert them to meshes")
            if not prim.IsA(UsdGeom.Mesh):
                continue
            mesh = UsdGeom.Mesh(prim)
            purpose = mesh.ComputePurpose()
            if mesh.ComputeVisibility() == UsdGeom.Tokens.invisible or purpose in (
                UsdGeom.Tokens.guide,
                UsdGeom.Tokens.proxy,
            ):
                continue
            skinned = (
                skinned or prim.HasAPI("SkelBindingAPI") or bool(prim.GetRelationship("skel:skeleton").GetTargets())
            )
            yield from self._of_mesh(mesh, np.array(cache.GetLocalToWorldTransform(prim)).T)
        if skinned:
            self._reading.note("USD skeletons are not posed; meshes are in the shape that they are stored in")

    def _of_mesh(self, mesh: Any, world: NDArray[np.float64]) -> Iterator[Part]:
        points = mesh.GetPointsAttr().Get()
        counts, indices = mesh.GetFaceVertexCountsAttr().Get(), mesh.GetFaceVertexIndicesAttr().Get()
        if points is None or counts is None or indices is None or len(counts) == 0:
            return
        vertices = placed(np.array(points, np.float64), world)
        sizes, corners = np.array(counts, np.int64), np.array(indices, np.int64)
        if (sizes < 0).any() or sizes.sum() > len(corners):
            raise ValueError("a mesh ends within a face")
        corners = corners[: sizes.sum()]
        holes = mesh.GetHoleIndicesAttr().Get()
        triangles, owner = triangulate(vertices, corners, sizes)
        if holes:
            kept = ~np.isin(owner, np.array(holes, np.int64))
            triangles, owner = triangles[kept], owner[kept]
        for faces, prim in _subsets(mesh, len(sizes)):
            some = triangles if faces is None else triangles[faces[owner]]
            own = owner if faces is None else owner[faces[owner]]
            material, uv_name = self._material(prim)
            used = corners[some.ravel()]
            uv = (
                _primvar(mesh, uv_name, some, own, corners, 2)
                if material is not None and material.image is not None
                else None
            )
            colors = None if material is not None else _primvar(mesh, "displayColor", some, own, corners, 3)
            yield Part(
                vertices[used],
                np.arange(len(used)).reshape(-1, 3),
                None if colors is None else color_bytes(_srgb(colors)),
                uv=uv,
                material=material,
            )

    def _material(self, prim: Any) -> tuple[Material | None, str]:
        """The material that is bound to a mesh or subset, and the name of its texture coordinates."""
        bound, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        if not bound:
            return None, "st"
        key = str(bound.GetPath())
        if key not in self._materials:
            self._materials[key] = self._made(bound)
        return self._materials[key]

    def _made(self, bound: Any) -> tuple[Material, str]:
        shader, _, _ = bound.ComputeSurfaceSource()
        base = shader.GetInput("diffuseColor") if shader else None
        if not base:
            return Material(), "st"
        source = base.GetConnectedSources()[0]
        if not source:
            value = base.Get()
            return Material(None if value is None else _color(value)), "st"
        texture = UsdShade.Shader(source[0].source.GetPrim())
        file = texture.GetInput("file")
        asset = file.Get() if file else None
        image: Image.Image | None = None
        if asset is not None and asset.path:
            image = self._references.image(asset.path)
        wrap: list[Wrap] = []
        for name in ("wrapS", "wrapT"):
            given = texture.GetInput(name)
            wrap.append(_WRAPS.get(str(given.Get() if given else "repeat"), "repeat"))
        return Material(None, image, wrap=(wrap[0], wrap[1])), _uv_name(texture)


def _uv_name(texture: Any) -> str:
    """The primvar that a texture is read at, through a reader and perhaps a transform."""
    node = texture
    for _ in range(4):
        found = node.GetInput("st") or node.GetInput("in")
        source = found.GetConnectedSources()[0] if found else []
        if not source:
            break
        node = UsdShade.Shader(source[0].source.GetPrim())
        name = node.GetInput("varname")
        if name and name.Get():
            return str(name.Get())
    return "st"


def _subsets(mesh: Any, n_faces: int) -> list[tuple[NDArray[np.bool_] | None, Any]]:
    """Faces (n_faces,) of each subset with a material and its prim; then those that are in none."""
    found: list[tuple[NDArray[np.bool_] | None, Any]] = []
    rest = np.ones(n_faces, bool)
    for subset in UsdShade.MaterialBindingAPI(mesh.GetPrim()).GetMaterialBindSubsets():
        chosen = np.array(subset.GetIndicesAttr().Get() or [], np.int64)
        faces = np.zeros(n_faces, bool)
        faces[chosen[(chosen >= 0) & (chosen < n_faces)]] = True
        found.append((faces, subset.GetPrim()))
        rest &= ~faces
    if not found:
        return [(None, mesh.GetPrim())]
    return [*found, (rest, mesh.GetPrim())] if rest.any() else found


def _primvar(
    mesh: Any, name: str, triangles: NDArray[np.int64], owner: NDArray[np.int64], corners: NDArray[np.int64], width: int
) -> NDArray[np.float64] | None:
    """(corners of triangles, width) values of a primvar; None without or if it does not fit."""
    primvar = UsdGeom.PrimvarsAPI(mesh).FindPrimvarWithInheritance(name)
    values = primvar.ComputeFlattened() if primvar and primvar.HasValue() else None
    if values is None or len(values) == 0:
        return None
    table = np.array(values, np.float64).reshape(len(values), -1)[:, :width]
    kind = primvar.GetInterpolation()
    if kind == UsdGeom.Tokens.faceVarying:
        rows = triangles.ravel()
    elif kind in (UsdGeom.Tokens.vertex, UsdGeom.Tokens.varying):
        rows = corners[triangles.ravel()]
    elif kind == UsdGeom.Tokens.uniform:
        rows = np.repeat(owner, 3)
    else:
        rows = np.zeros(triangles.size, np.int64)
    return table[rows] if table.shape[1] == width and (len(rows) == 0 or rows.max() < len(table)) else None


def _srgb(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear colours of any range as sRGB of 0 to 1."""
    return srgb_of_linear(np.nan_to_num(linear).clip(0, 1))


def _color(value: Any) -> Color:
    r, g, b = (int(channel) for channel in np.rint(255 * _srgb(np.array(value, np.float64)[:3])))
    return r, g, b
