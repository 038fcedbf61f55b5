"""glTF 2.0: the default scene in the pose of the file.

Source: glTF 2.0 specification (Khronos), chapter 3; KHR_draco_mesh_compression, KHR_mesh_quantization, EXT_mesh_gpu_instancing,
KHR_node_visibility. Animations are not played: nodes and morph weights are as they stand in the file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.readers.gltf_file import GltfFile, parse
from mvrender.readers.gltf_materials import GltfMaterials
from mvrender.readers.parts import Part, Reading, placed, srgb_of_linear

_DRACO, _INSTANCING, _VISIBILITY = "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing", "KHR_node_visibility"
_UNDERSTOOD = {
    _DRACO, _INSTANCING, _VISIBILITY, "KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "MSFT_texture_dds",
    "KHR_materials_pbrSpecularGlossiness", "KHR_materials_unlit", "KHR_materials_emissive_strength",
}  # fmt: skip
# These change neither shape nor base colour.
_WITHOUT_EFFECT = (
    "KHR_materials_",
    "KHR_lights_",
    "EXT_lights_",
    "KHR_xmp",
    "KHR_animation_",
    "EXT_materials_",
    "KHR_audio",
    "OMI_",
    "VRM",
)
# Images of kinds that are not read: without them the shape is right, and a note is given where one is missing.
_IMAGES = {"KHR_texture_basisu", "EXT_texture_avif"}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6

Matrix = NDArray[np.float64]


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a `.glb` or `.gltf` file.

    Raises:
        MeshError: not a glTF file, it requires an extension that is not supported, or a buffer is missing.
        ValueError, KeyError, TypeError: the tree is damaged.
    """
    tree, chunk = parse(data, ".glb" if data[:4] == b"glTF" else reading.suffix)
    _check_extensions(tree, reading)
    scene = _Scene(GltfFile(tree, chunk, reading), reading)
    for index in scene.drawn:
        yield from scene.node(index)


def _check_extensions(tree: dict[str, Any], reading: Reading) -> None:
    try:
        required, used = sorted(set(tree.get("extensionsRequired", []))), sorted(set(tree.get("extensionsUsed", [])))
    except TypeError as error:
        raise MeshError("unreadable", f"not a readable glTF file: {error}") from None
    if _DRACO in {*required, *used} and importlib.util.find_spec("DracoPy") is None:
        raise MeshError("needs_extra", "Draco-compressed glTF needs an extra: run pip install 'mvretrieval[draco]'")

    def is_known(name: str) -> bool:
        return name in _UNDERSTOOD or name in _IMAGES or name.startswith(_WITHOUT_EFFECT)

    unknown = [name for name in required if not is_known(name)]
    if unknown:
        raise MeshError(
            "unsupported_extension",
            f"the file requires the extension {', '.join(unknown)}, which is not supported; export it without",
        )
    for name in used:
        if not is_known(name):
            reading.note(f"the glTF extension {name} is not understood; rendered without it")


@dataclass
class _Primitive:
    """Triangles of a mesh before they are placed."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    attributes: dict[str, NDArray[Any]]
    material: Any


class _Scene:
    """The nodes of the default scene, and the parts at each."""

    def __init__(self, file: GltfFile, reading: Reading) -> None:
        self._file = file
        self._reading = reading
        self._materials = GltfMaterials(file, reading)
        self._primitives: dict[tuple[int, tuple[float, ...]], list[_Primitive]] = {}
        self._world: dict[int, Matrix] = {}
        self._hidden: set[int] = set()
        self.drawn = self._visit(self._roots())
        """Indices of the nodes of the scene."""

    def _roots(self) -> list[int]:
        scenes = self._file.items("scenes")
        if scenes:
            return [int(index) for index in self._file.item("scenes", self._file.tree.get("scene", 0)).get("nodes", [])]
        children = {child for node in self._file.items("nodes") for child in node.get("children", [])}
        return [index for index in range(len(self._file.items("nodes"))) if index not in children]

    def _visit(self, roots: list[int]) -> list[int]:
        """Place the nodes below the roots. A node with several parents is placed once."""
        found: list[int] = []
        waiting = [(index, np.eye(4), False) for index in reversed(roots)]
        while waiting:
            index, parent, hidden = waiting.pop()
            if index in self._world:
                self._reading.note("a node has two parents; it is placed at the first")
                continue
            node = self._file.item("nodes", index)
            hidden = hidden or not node.get("extensions", {}).get(_VISIBILITY, {}).get("visible", True)
            self._world[index] = parent @ _local(node)
            if not hidden:
                found.append(index)
            waiting += [(child, self._world[index], hidden) for child in reversed(node.get("children", []))]
        return found

    def _world_of(self, index: int) -> Matrix:
        """Transform of a node; a joint need not be in the scene."""
        if index not in self._world:
            parents = {
                child: i for i, node in enumerate(self._file.items("nodes")) for child in node.get("children", [])
            }
            chain = [index]
            while chain[-1] in parents and len(chain) <= len(parents) + 1:
                chain.append(parents[chain[-1]])
            world = np.eye(4)
            for i in reversed(chain):
                world = world @ _local(self._file.item("nodes", i))
            self._world[index] = world
        return self._world[index]

    def node(self, index: int) -> Iterator[Part]:
        """The parts at one node."""
        node = self._file.item("nodes", index)
        if "mesh" not in node:
            return
        mesh = self._file.item("meshes", node["mesh"])
        weights = node.get("weights", mesh.get("weights", []))
        joints = self._joints(node["skin"]) if "skin" in node else None
        instances = self._instances(node.get("extensions", {}).get(_INSTANCING))
        for primitive in self._of_mesh(node["mesh"], weights):
            whole = self._part(primitive)
            if joints is not None:
                skinned = _skinned(primitive, joints)
                if skinned is not None:  # the transform of the node of a skinned mesh is ignored
                    yield _moved(whole, skinned)
                    continue
            for instance in instances:
                yield _moved(whole, placed(whole.vertices, self._world[index] @ instance))

    def _of_mesh(self, index: int, weights: list[float]) -> list[_Primitive]:
        key = (index, tuple(float(weight) for weight in weights))
        if key not in self._primitives:
            found = [self._primitive(entry, key[1]) for entry in self._file.item("meshes", index)["primitives"]]
            self._primitives[key] = [primitive for primitive in found if primitive is not None]
        return self._primitives[key]

    def _primitive(self, entry: dict[str, Any], weights: tuple[float, ...]) -> _Primitive | None:
        mode = entry.get("mode", _TRIANGLES)
        if mode < _TRIANGLES:
            self._reading.note("points and lines are not rendered")
            return None
        draco = entry.get("extensions", {}).get(_DRACO)
        names = entry["attributes"]
        if draco is not None:
            attributes, indices = self._decoded(draco)
            attributes |= {name: self._file.accessor(i) for name, i in names.items() if name not in attributes}
        else:
            attributes = {name: self._file.accessor(i) for name, i in names.items()}
            indices = None
            if "indices" in entry:
                indices = self._file.accessor(entry["indices"])[:, 0].astype(np.int64)
        if "POSITION" not in attributes:
            self._reading.note("a primitive has no positions; rendered without it")
            return None
        vertices = np.asarray(attributes["POSITION"], np.float64)
        for weight, target in zip(weights, entry.get("targets", []), strict=False):
            if weight and "POSITION" in target:
                vertices = vertices + weight * self._file.accessor(target["POSITION"])
        if indices is None:
            indices = np.arange(len(vertices))
        return _Primitive(vertices, _triangles(indices, mode), attributes, entry.get("material"))

    def _decoded(self, draco: dict[str, Any]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
        import DracoPy

        mesh = DracoPy.decode(bytes(self._file.view(draco["bufferView"])))
        found = {attribute["unique_id"]: attribute["data"] for attribute in mesh.attributes}
        attributes = {name: _normalized(found[i], name) for name, i in draco["attributes"].items() if i in found}
        return attributes, np.asarray(mesh.faces, np.int64).ravel()

    def _part(self, primitive: _Primitive) -> Part:
        made = self._materials.of(primitive.material)
        n = len(primitive.vertices)
        colors = primitive.attributes.get("COLOR_0")
        painted = None
        if colors is not None and len(colors) == n:
            colors = _normalized(colors, "COLOR_0")  # integers that are not marked as normalized: nothing else is meant
            if _is_one_as_bytes(colors):
                self._reading.note("vertex colours are 1/255 everywhere, which is taken for white")
            else:
                painted = _vertex_colors(colors, made.opaque)
        uv = primitive.attributes.get(f"TEXCOORD_{made.uv_set}")
        if uv is not None and len(uv) == n:
            uv = np.asarray(uv, np.float64)
            if made.uv_matrix is not None:
                uv = uv @ made.uv_matrix[:, :2].T + made.uv_matrix[:, 2]
            uv = np.column_stack([uv[:, 0], 1 - uv[:, 1]])
        else:
            uv = None
        return Part(primitive.vertices, primitive.faces, painted, uv=uv, material=made.material)

    def _joints(self, index: int) -> NDArray[np.float64]:
        """(j, 4, 4) transforms of a skin's joints in the pose of the nodes."""
        skin = self._file.item("skins", index)
        world = np.stack([self._world_of(int(joint)) for joint in skin["joints"]])
        if "inverseBindMatrices" not in skin:
            return world
        inverse = np.asarray(self._file.accessor(skin["inverseBindMatrices"]), np.float64).transpose(0, 2, 1)
        return world @ inverse[: len(world)]

    def _instances(self, extension: dict[str, Any] | None) -> NDArray[np.float64]:
        """(i, 4, 4) transforms of the copies of a mesh at a node."""
        if extension is None:
            return np.eye(4)[None]
        given = {name: np.asarray(self._file.accessor(i), np.float64) for name, i in extension["attributes"].items()}
        known = {name: given[name] for name in ("TRANSLATION", "ROTATION", "SCALE") if name in given}
        if not known:
            return np.eye(4)[None]
        n = min(map(len, known.values()))
        matrices = np.tile(np.eye(4), (n, 1, 1))
        if "ROTATION" in known:
            matrices[:, :3, :3] = _rotations(known["ROTATION"][:n])
        if "SCALE" in known:
            matrices[:, :3, :3] *= known["SCALE"][:n, None, :]
        if "TRANSLATION" in known:
            matrices[:, :3, 3] = known["TRANSLATION"][:n]
        return matrices


def _moved(part: Part, vertices: NDArray[np.float64]) -> Part:
    return Part(vertices, part.faces, part.colors, part.face_colors, part.uv, part.material)


def _local(node: dict[str, Any]) -> Matrix:
    """(4, 4) transform of a node below its parent."""
    if "matrix" in node:
        return np.asarray(node["matrix"], np.float64).reshape(4, 4).T
    local = np.eye(4)
    if "rotation" in node:
        local[:3, :3] = _rotations(np.asarray(node["rotation"], np.float64)[None])[0]
    if "scale" in node:
        local[:3, :3] *= np.asarray(node["scale"], np.float64)
    if "translation" in node:
        local[:3, 3] = node["translation"]
    return local


def _rotations(quaternions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 3, 3) matrices of quaternions (n, 4) in the order x, y, z, w."""
    lengths = np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = (quaternions / np.where(lengths > 0, lengths, 1)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _triangles(indices: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """(t, 3) triangles of a list, strip or fan."""
    n = len(indices)
    if mode == _TRIANGLES:
        return indices[: n - n % 3].reshape(-1, 3)
    if n < 3:
        return np.empty((0, 3), np.int64)
    if mode == _FAN:
        return np.stack([indices[1:-1], indices[2:], np.full(n - 2, indices[0])], axis=1)
    triangles = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
    triangles[1::2] = triangles[1::2, [0, 2, 1]]
    return triangles


def _skinned(primitive: _Primitive, joints: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Vertices moved by the joints; None if the primitive has no weights."""
    total = np.zeros((len(primitive.vertices), 4, 4))
    weight_sum = np.zeros(len(primitive.vertices))
    for i in range(8):
        which, weights = primitive.attributes.get(f"JOINTS_{i}"), primitive.attributes.get(f"WEIGHTS_{i}")
        if which is None or weights is None:
            break
        which = np.where(weights > 0, which, 0)  # what does not move a vertex may have any number
        if len(which) and which.max() >= len(joints):
            raise ValueError(f"a vertex is moved by joint {which.max()} of {len(joints)}")
        for column in range(4):
            share = np.asarray(weights[:, column], np.float64)
            total += share[:, None, None] * joints[which[:, column].astype(np.int64)]
            weight_sum += share
    if not weight_sum.any():
        return None
    total /= np.where(weight_sum > 0, weight_sum, 1)[:, None, None]
    moved = np.einsum("nij,nj->ni", total[:, :3, :3], primitive.vertices) + total[:, :3, 3]
    return np.where(weight_sum[:, None] > 0, moved, primitive.vertices)


def _is_one_as_bytes(colors: NDArray[Any]) -> bool:
    """Whether all colours, and their opacity, are the byte 1: exporters write it where 1.0 is meant."""
    return colors.shape[1] == 4 and len(colors) > 0 and bool((np.abs(colors - 1 / 255) < 1e-6).all())


def _vertex_colors(colors: NDArray[Any], opaque: bool) -> NDArray[np.uint8]:
    """Linear COLOR_0 as sRGB bytes (n, 3), or (n, 4) where opacity has a meaning."""
    linear = np.clip(np.nan_to_num(np.asarray(colors, np.float64)), 0, 1)
    rgb = np.rint(255 * srgb_of_linear(linear[:, :3]))
    if opaque or linear.shape[1] < 4:
        return rgb.astype(np.uint8)
    return np.column_stack([rgb, np.rint(255 * linear[:, 3])]).astype(np.uint8)


def _normalized(values: NDArray[Any], name: str) -> NDArray[Any]:
    """Integers of colours, texture coordinates and weights as floats, whether the file calls them normalized or not."""
    if values.dtype.kind in "iu" and name.startswith(("COLOR", "TEXCOORD", "WEIGHTS")):
        return np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
    return values
