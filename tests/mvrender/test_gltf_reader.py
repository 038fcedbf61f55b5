"""glTF features, each in a small file made here: what the specification says is what is loaded."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.mesh import Mesh

TRIANGLE = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], np.float32)
_KINDS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """A GLB with one mesh at one node, unless told otherwise."""

    def __init__(self) -> None:
        self.blob = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
            "meshes": [], "accessors": [], "bufferViews": [],
        }  # fmt: skip

    def view(self, content: bytes) -> int:
        self.blob += bytes(-len(self.blob) % 4)
        self.tree["bufferViews"].append({"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(content)})
        self.blob += content
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, values: Any, **more: Any) -> int:
        values = np.asarray(values)
        values = values.reshape(len(values), -1)
        entry = {"componentType": _KINDS[values.dtype.str[1:]], "count": len(values), "type": _TYPES[values.shape[1]]}
        self.tree["accessors"].append({"bufferView": self.view(values.tobytes()), **entry, **more})
        return len(self.tree["accessors"]) - 1

    def mesh(self, *primitives: dict[str, Any], **more: Any) -> int:
        self.tree["meshes"].append({"primitives": list(primitives), **more})
        return len(self.tree["meshes"]) - 1

    def triangle(self, points: Any = TRIANGLE, **attributes: int) -> dict[str, Any]:
        return {"attributes": {"POSITION": self.accessor(np.asarray(points, np.float32)), **attributes}}

    def image(self, image: Image.Image, **sampler: int) -> int:
        """A texture."""
        stream = io.BytesIO()
        image.save(stream, "PNG")
        self.tree.setdefault("images", []).append({"bufferView": self.view(stream.getvalue()), "mimeType": "image/png"})
        self.tree.setdefault("samplers", []).append(sampler)
        n = len(self.tree["images"]) - 1
        self.tree.setdefault("textures", []).append({"source": n, "sampler": n})
        return n

    def material(self, **entry: Any) -> int:
        self.tree.setdefault("materials", []).append(entry)
        return len(self.tree["materials"]) - 1

    def write(self, path: Path) -> Path:
        self.tree["buffers"] = [{"byteLength": len(self.blob)}]
        text = json.dumps(self.tree).encode()
        text += b" " * (-len(text) % 4)
        blob = self.blob + bytes(-len(self.blob) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path


def points_of(mesh: Mesh) -> NDArray[np.float64]:
    """Corners of all faces, from the lowest."""
    points = mesh.vertices[mesh.faces].reshape(-1, 3).astype(float)
    return np.asarray(points - points.min(axis=0))


@pytest.fixture
def made() -> Builder:
    return Builder()


# -- geometry ------------------------------------------------------------------------------------------------------------


def test_strips_and_fans(made: Builder, tmp_path: Path) -> None:
    ring = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    fan = {**made.triangle(ring), "mode": 6}
    strip = {**made.triangle([ring[0], ring[1], ring[3], ring[2]]), "mode": 5}
    points = {**made.triangle(ring), "mode": 0}
    made.mesh(fan, strip, points)
    loaded = load(made.write(tmp_path / "a.glb"))
    a, b, c = (loaded.mesh.vertices[loaded.mesh.faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    assert len(normals) == 4 and normals[:, 2].tolist() == [1, 1, 1, 1]
    assert any("points and lines" in note for note in loaded.mesh.notes)


def test_sparse_accessors(made: Builder, tmp_path: Path) -> None:
    """With and without values below."""
    places, tops = made.view(np.array([2], np.uint8).tobytes()), made.view(np.array([(0, 5, 0)], np.float32).tobytes())
    sparse = {"count": 1, "indices": {"bufferView": places, "componentType": 5121}, "values": {"bufferView": tops}}
    changed = made.accessor(TRIANGLE, sparse=sparse)
    two = np.array([1, 2], np.uint16)
    both = made.view(two.tobytes()), made.view(np.array([(3, 0, 0), (0, 3, 0)], np.float32).tobytes())
    sparse = {"count": 2, "indices": {"bufferView": both[0], "componentType": 5123}, "values": {"bufferView": both[1]}}
    made.tree["accessors"].append({"componentType": 5126, "count": 3, "type": "VEC3", "sparse": sparse})
    made.mesh({"attributes": {"POSITION": changed}}, {"attributes": {"POSITION": changed + 1}})
    points = points_of(load(made.write(tmp_path / "a.glb")).mesh)
    np.testing.assert_allclose(points, [(0, 0, 0), (1, 0, 0), (0, 5, 0), (0, 0, 0), (3, 0, 0), (0, 3, 0)])


def test_instances(made: Builder, tmp_path: Path) -> None:
    """Each row is a copy, placed by the node."""
    made.mesh(made.triangle())
    half = 2**-0.5
    attributes = {
        "TRANSLATION": made.accessor(np.array([(0, 0, 0), (10, 0, 0)], np.float32)),
        "ROTATION": made.accessor(np.array([(0, 0, 0, 1), (0, 0, half, half)], np.float32)),  # a quarter turn about z
        "SCALE": made.accessor(np.array([(1, 1, 1), (2, 3, 1)], np.float32)),
    }
    made.tree["nodes"][0] |= {"translation": [0, 0, 5], "scale": [2, 2, 2]}
    made.tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    made.tree["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]
    loaded = load(made.write(tmp_path / "a.glb"))
    first, second = loaded.mesh.vertices[loaded.mesh.faces].astype(float)
    np.testing.assert_allclose(first - first[0], 2 * TRIANGLE, atol=1e-6)
    np.testing.assert_allclose(second - first[0], [(20, 0, 0), (20, 4, 0), (14, 0, 0)], atol=1e-5)
    assert loaded.mesh.notes == ()


def test_skins_in_the_pose_of_the_nodes(made: Builder, tmp_path: Path) -> None:
    """Joint times inverse bind matrix; the transform of the mesh's node is ignored; weights are normalized."""
    joints = made.accessor(np.array([(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0)], np.uint8))
    weights = made.accessor(np.array([(1, 0, 0, 0), (1, 0, 0, 0), (2, 2, 0, 0)], np.float32))
    made.mesh(made.triangle(JOINTS_0=joints, WEIGHTS_0=weights))
    inverse = np.stack([np.eye(4), np.eye(4)])
    inverse[1, :3, 3] = (-1, 0, 0)
    made.tree["skins"] = [{
        "joints": [1, 2], "inverseBindMatrices": made.accessor(inverse.transpose(0, 2, 1).reshape(2, 16).astype(np.float32))
    }]  # fmt: skip
    made.tree["nodes"] = [
        {"mesh": 0, "skin": 0, "scale": [100, 100, 100]},
        {"translation": [0, 0, 0], "children": [2]},
        {"translation": [7, 0, 0]},
    ]
    made.tree["scenes"] = [{"nodes": [0, 1]}]
    points = points_of(load(made.write(tmp_path / "a.glb")).mesh)
    np.testing.assert_allclose(points, [(0, 0, 0), (7, 0, 0), (3, 1, 0)], atol=1e-6)
    # Joints that are not in the scene have the transforms of their parents too.
    made.tree["scenes"] = [{"nodes": [0]}]
    np.testing.assert_allclose(points_of(load(made.write(tmp_path / "b.glb")).mesh), points, atol=1e-6)
    del made.tree["nodes"][0]["skin"]
    assert points_of(load(made.write(tmp_path / "c.glb")).mesh).max() == 100


@pytest.mark.parametrize("place", ["mesh", "node"])
def test_default_weights_of_morphs(place: str, made: Builder, tmp_path: Path) -> None:
    target = made.accessor(np.array([(0, 0, 0), (0, 0, 0), (0, 4, 0)], np.float32))
    off = made.accessor(np.full((3, 3), 9, np.float32))
    primitive = {**made.triangle(), "targets": [{"POSITION": target}, {"POSITION": off}]}
    made.mesh(primitive, **({"weights": [0.5, 0]} if place == "mesh" else {"weights": [0, 1]}))
    if place == "node":
        made.tree["nodes"][0]["weights"] = [0.5, 0]
    np.testing.assert_allclose(points_of(load(made.write(tmp_path / "a.glb")).mesh)[2], (0, 3, 0))


def test_hierarchies(made: Builder, tmp_path: Path) -> None:
    """Matrices are in columns; what is hidden or in another scene is not there; loops end."""
    made.mesh(made.triangle())
    matrix = np.eye(4)
    matrix[:3, 3] = (0, 10, 0)
    made.tree["nodes"] = [
        {"matrix": matrix.T.ravel().tolist(), "children": [1, 2]},
        {"mesh": 0, "translation": [1, 0, 0]},
        {"children": [3], "extensions": {"KHR_node_visibility": {"visible": False}}},
        {"mesh": 0, "scale": [50, 50, 50]},
        {"mesh": 0},
    ]
    made.tree["scenes"] = [{"nodes": [4]}, {"nodes": [0, 4]}]
    made.tree["scene"] = 1
    mesh = load(made.write(tmp_path / "a.glb")).mesh
    assert len(mesh.faces) == 2
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (2, 11, 0))
    del made.tree["scene"]
    assert len(load(made.write(tmp_path / "b.glb")).mesh.faces) == 1
    del made.tree["scenes"]
    assert len(load(made.write(tmp_path / "c.glb")).mesh.faces) == 2
    made.tree["nodes"] = [{"children": [1]}, {"mesh": 0, "children": [0, 1]}]
    made.tree["scenes"] = [{"nodes": [0]}]
    loaded = load(made.write(tmp_path / "d.glb"))
    assert len(loaded.mesh.faces) == 1 and any("two parents" in note for note in loaded.mesh.notes)


# -- colours -------------------------------------------------------------------------------------------------------------


def colors_of(path: Path) -> list[tuple[int, ...]]:
    mesh = load(path).mesh
    assert mesh.vertex_colors is not None
    return sorted({tuple(color) for color in mesh.vertex_colors.tolist()})


@pytest.mark.parametrize("material", [None, {}, {"alphaMode": "OPAQUE"}])
@pytest.mark.parametrize("width", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_vertex_colours_of_every_type(kind: Any, width: int, material: Any, made: Builder, tmp_path: Path) -> None:
    """Linear, and with an opacity that has no meaning."""
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    color = (np.array([1, 0.2140411, 0, 0])[:width] * top).astype(kind)  # 0.2140411 is 0.5 in sRGB
    index = made.accessor(np.tile(color, (3, 1)), **({} if top == 1 else {"normalized": True}))
    primitive = made.triangle(COLOR_0=index)
    if material is not None:
        primitive["material"] = made.material(**material)
    made.mesh(primitive)
    ((r, g, b),) = colors_of(made.write(tmp_path / "a.glb"))
    assert (r, b) == (255, 0) and abs(g - 127.5) <= 1


def test_opacity_of_vertex_colours_where_it_has_a_meaning(made: Builder, tmp_path: Path) -> None:
    primitive = made.triangle(COLOR_0=made.accessor(np.tile(np.array([1, 0, 0, 0.5], np.float32), (3, 1))))
    primitive["material"] = made.material(alphaMode="BLEND")
    made.mesh(primitive)
    ((r, g, b),) = colors_of(made.write(tmp_path / "a.glb"))
    assert r == 255 and abs(g - 127) <= 1 and g == b  # over white


def test_the_byte_one_is_taken_for_white(made: Builder, tmp_path: Path) -> None:
    primitive = made.triangle(COLOR_0=made.accessor(np.ones((3, 4), np.uint8), normalized=True))
    primitive["material"] = made.material(pbrMetallicRoughness={"baseColorFactor": [1, 0, 0, 1]})
    made.mesh(primitive)
    assert colors_of(made.write(tmp_path / "a.glb")) == [(255, 0, 0)]
    assert any("taken for white" in note for note in load(tmp_path / "a.glb").mesh.notes)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, 0.1]}}, (0, 0, 255)),
        ({"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 0, 1]}, "emissiveFactor": [0, 1, 0]}, (0, 255, 0)),
        ({"emissiveFactor": [1, 0, 0]}, (255, 0, 0)),
        ({"pbrMetallicRoughness": {"baseColorFactor": [0, 0, 1, 1]}, "emissiveFactor": [0, 1, 0]}, (0, 0, 255)),
        ({"extensions": {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 1, 0, 1]}}}, (0, 255, 0)),
        (
            {"extensions": {"KHR_materials_unlit": {}}, "pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}},
            (255, 0, 0),
        ),
    ],
)
def test_base_colours(entry: dict[str, Any], expected: Any, made: Builder, tmp_path: Path) -> None:
    made.mesh({**made.triangle(), "material": made.material(**entry)})
    assert colors_of(made.write(tmp_path / "a.glb")) == [expected]


def textured(made: Builder, image: Image.Image, uv: Any, **sampler: int) -> None:
    texture = made.image(image, **sampler)
    primitive = made.triangle(TEXCOORD_0=made.accessor(np.asarray(uv, np.float32)))
    primitive["material"] = made.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}})
    made.mesh(primitive)


def sampled(mesh: Mesh) -> list[tuple[int, ...]]:
    """The texture at each vertex."""
    assert mesh.uv is not None
    (pixels,) = mesh.textures
    height, width = pixels.shape[:2]
    return [
        tuple(pixels[int((1 - v) % 1 * height) % height, int(u % 1 * width) % width].tolist())
        for u, v in mesh.uv.tolist()
    ]


RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 90, 90)
FOUR = Image.fromarray(np.array([[RED, GREEN], [BLUE, GREY]], np.uint8).repeat(8, 0).repeat(8, 1))


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        ({}, [RED, RED, RED]),
        ({"wrapS": 33648}, [GREEN, RED, RED]),
        ({"wrapT": 33648}, [RED, BLUE, RED]),
        ({"wrapS": 33071}, [GREEN, RED, RED]),
        ({"wrapS": 33071, "wrapT": 33071}, [GREEN, BLUE, RED]),
        ({"wrapS": 10497, "wrapT": 10497}, [RED, RED, RED]),
    ],
)
def test_what_is_beyond_the_edges(wrap: dict[str, int], expected: Any, made: Builder, tmp_path: Path) -> None:
    """v points downwards: (0.25, 0.25) is red, one to the right of it and one below are in the next copy."""
    textured(made, FOUR, [(1.25, 0.25), (0.25, 1.25), (0.25, 0.25)], **wrap)
    assert sampled(load(made.write(tmp_path / "a.glb")).mesh) == expected


def test_a_clamped_texture_far_out(made: Builder, tmp_path: Path) -> None:
    textured(made, FOUR, [(-100, 0.25), (1000, 0.75), (0.25, -50)], wrapS=33071, wrapT=33071)
    mesh = load(made.write(tmp_path / "a.glb")).mesh
    assert sampled(mesh) == [RED, GREY, RED] and max(mesh.textures[0].shape) < 16 * 16


@pytest.mark.parametrize("mode", ["I;16", "L", "P", "LA", "1", "RGBA"])
def test_images_of_every_depth(mode: str, made: Builder, tmp_path: Path) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 100 * 257, np.uint16))
    elif mode == "1":
        image = Image.new("1", (8, 8), 1)
    else:
        image = Image.new("RGB", (8, 8), (100, 100, 100)).convert(mode, palette=Image.Palette.ADAPTIVE)
    textured(made, image, [(0.5, 0.5)] * 3)
    expected = 255 if mode == "1" else 100
    assert {channel for color in sampled(load(made.write(tmp_path / "a.glb")).mesh) for channel in color} == {expected}


def test_a_palette_under_specular_glossiness(made: Builder, tmp_path: Path) -> None:
    texture = made.image(FOUR.convert("P", palette=Image.Palette.ADAPTIVE))
    primitive = made.triangle(
        TEXCOORD_0=made.accessor(np.array([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75)], np.float32))
    )
    transform = {"offset": [0.5, 0]}
    diffuse = {"index": texture, "extensions": {"KHR_texture_transform": transform}}
    extension = {"diffuseTexture": diffuse, "specularFactor": [1, 1, 1]}
    primitive["material"] = made.material(extensions={"KHR_materials_pbrSpecularGlossiness": extension})
    made.mesh(primitive)
    made.tree["extensionsUsed"] = ["KHR_materials_pbrSpecularGlossiness", "KHR_texture_transform"]
    loaded = load(made.write(tmp_path / "a.glb"))
    assert sampled(loaded.mesh) == [GREEN, RED, GREY] and loaded.mesh.notes == ()


# -- notes and errors ----------------------------------------------------------------------------------------------------


def test_what_is_not_understood_is_noted(made: Builder, tmp_path: Path) -> None:
    primitive = made.triangle(TEXCOORD_0=made.accessor(np.zeros((3, 2), np.float32)))
    made.tree["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    primitive["material"] = made.material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}})
    made.mesh(primitive)
    made.tree["extensionsUsed"] = ["KHR_texture_basisu", "ACME_fur", "KHR_materials_clearcoat"]
    notes = load(made.write(tmp_path / "a.glb")).mesh.notes
    assert [name for name in ("KHR_texture_basisu", "ACME_fur", "clearcoat") if any(name in note for note in notes)] == [
        "KHR_texture_basisu", "ACME_fur",
    ]  # fmt: skip
    made.tree["extensionsRequired"] = ["ACME_fur"]
    with raises_code(MeshError, "unsupported_extension", "ACME_fur"):
        load(made.write(tmp_path / "b.glb"))


@pytest.mark.parametrize(
    "change", [{"images": [{}]}, {"images": [{"uri": "data:image/png;base64,x"}]}, {"textures": []}, {"samplers": []}]
)
def test_a_damaged_texture_leaves_the_shape(change: dict[str, Any], made: Builder, tmp_path: Path) -> None:
    textured(made, FOUR, [(0.25, 0.25)] * 3)
    made.tree |= change
    loaded = load(made.write(tmp_path / "a.glb"))
    assert len(loaded.mesh.faces) == 1 and not loaded.mesh.textures and "rendered without it" in loaded.mesh.notes[0]


def test_buffers_and_images_in_data_uris(made: Builder, tmp_path: Path) -> None:
    textured(made, FOUR, [(0.25, 0.25)] * 3)
    made.write(tmp_path / "a.glb")
    uri = "data:application/octet-stream;base64," + base64.b64encode(made.blob).decode()
    made.tree["buffers"] = [{"byteLength": len(made.blob), "uri": uri}]
    (tmp_path / "a.gltf").write_text("\ufeff" + json.dumps(made.tree))
    assert sampled(load(tmp_path / "a.gltf").mesh) == [RED] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"accessors": [{"componentType": 5126, "count": 10**12, "type": "VEC3"}]},
        {"accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3"}]},
        {"accessors": [{"bufferView": 7, "componentType": 5126, "count": 3, "type": "VEC3"}]},
        {"accessors": [{"bufferView": 0, "byteOffset": -4, "componentType": 5126, "count": 3, "type": "VEC3"}]},
        {"accessors": [{"bufferView": 0, "componentType": 5199, "count": 3, "type": "VEC3"}]},
        {"accessors": []},
        {"meshes": 7},
        {"nodes": [{"mesh": 5}]},
        {"nodes": [{"mesh": 0, "matrix": [1, 2, 3]}]},
        {"nodes": [{"mesh": 0, "skin": 0}], "skins": [{"joints": [99]}]},
        {"asset": {"version": "1.0"}},
    ],
)
def test_damaged_trees(change: dict[str, Any], made: Builder, tmp_path: Path) -> None:
    made.mesh(made.triangle())
    made.tree |= change
    with raises_code(MeshError, "unreadable"):
        load(made.write(tmp_path / "a.glb"))


# -- what exporters write beside the specification -----------------------------------------------------------------------


def test_pixels_below_the_cutoff_are_holes(made: Builder, tmp_path: Path) -> None:
    alphas = np.array([[0, 100, 140, 255]], np.uint8).repeat(4, 0)
    image = Image.fromarray(np.dstack([*[np.zeros_like(alphas)] * 3, alphas]))
    uv = [(0.125, 0.5), (0.375, 0.5), (0.625, 0.5)]
    for cutoff, factor, expected in ((None, 1, [0, 0, 255]), (0.3, 1, [0, 255, 255]), (0.3, 0.4, [0, 0, 0])):
        made = Builder()
        textured(made, image, uv)
        material = made.tree["materials"][0]
        material["alphaMode"] = "MASK"
        material["pbrMetallicRoughness"]["baseColorFactor"] = [1, 1, 1, factor]
        if cutoff is not None:
            material["alphaCutoff"] = cutoff
        mesh = load(made.write(tmp_path / "a.glb")).mesh
        assert mesh.has_holes
        assert sampled(mesh) == [(0, 0, 0, opacity) for opacity in expected]  # colours continue into the holes


def test_only_what_cannot_be_seen_at_all_is_a_hole_of_a_blended_texture(made: Builder, tmp_path: Path) -> None:
    alphas = np.array([[0, 51, 255, 255]], np.uint8).repeat(4, 0)
    image = Image.fromarray(np.dstack([*[np.zeros_like(alphas)] * 3, alphas]))
    textured(made, image, [(0.125, 0.5), (0.375, 0.5), (0.625, 0.5)])
    made.tree["materials"][0]["alphaMode"] = "BLEND"
    mesh = load(made.write(tmp_path / "a.glb")).mesh
    assert [color[-1] for color in sampled(mesh)] == [0, 255, 255]
    assert [color[0] for color in sampled(mesh)][1:] == [204, 0]  # blended with white


def test_a_texture_that_would_be_nothing_but_a_hole_has_none(made: Builder, tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    textured(made, image, [(0, 0)] * 3)
    made.tree["materials"][0]["alphaMode"] = "MASK"
    mesh = load(made.write(tmp_path / "a.glb")).mesh
    assert not mesh.has_holes and sampled(mesh) == [RED] * 3


def test_vertex_colors_that_are_not_marked_as_normalized(made: Builder, tmp_path: Path) -> None:
    made.mesh(made.triangle(COLOR_0=made.accessor(np.array([(255, 0, 0, 255)] * 3, np.uint8))))
    assert colors_of(made.write(tmp_path / "a.glb")) == [(255, 0, 0)]


@pytest.mark.parametrize("name", ["KHR_texture_basisu", "EXT_texture_avif"])
def test_required_kinds_of_images_do_not_hide_the_shape(name: str, made: Builder, tmp_path: Path) -> None:
    textured(made, FOUR, [(0, 0)] * 3)
    made.tree["textures"] = [{"extensions": {name: {"source": 0}}}]
    made.tree["extensionsUsed"] = made.tree["extensionsRequired"] = [name]
    loaded = load(made.write(tmp_path / "a.glb"))
    assert loaded.facts["faces"] == 1 and not loaded.facts["textured"]
    (note,) = loaded.mesh.notes
    assert name in note and "rendered without it" in note


def test_the_other_image_is_taken_where_one_cannot_be_read(made: Builder, tmp_path: Path) -> None:
    textured(made, FOUR, [(0.25, 0.25)] * 3)
    made.tree["images"].append({"bufferView": made.view(b"no image"), "mimeType": "image/webp"})
    made.tree["textures"][0]["extensions"] = {"EXT_texture_webp": {"source": 1}}
    assert sampled(load(made.write(tmp_path / "a.glb")).mesh) == [RED] * 3


def test_a_primitive_without_positions_is_noted(made: Builder, tmp_path: Path) -> None:
    made.mesh({"attributes": {"NORMAL": made.accessor(np.asarray(TRIANGLE, np.float32))}}, made.triangle())
    loaded = load(made.write(tmp_path / "a.glb"))
    assert loaded.facts["faces"] == 1 and "no positions" in loaded.mesh.notes[0]


def test_joints_without_weight_may_have_any_number(made: Builder, tmp_path: Path) -> None:
    joints = made.accessor(np.array([(0, 99, 0, 0)] * 3, np.uint16))
    weights = made.accessor(np.array([(1, 0, 0, 0)] * 3, np.float32))
    made.mesh(made.triangle(JOINTS_0=joints, WEIGHTS_0=weights))
    made.tree["nodes"] = [{"mesh": 0, "skin": 0}, {"scale": [2, 2, 2]}]
    made.tree["skins"] = [{"joints": [1]}]
    np.testing.assert_allclose(
        points_of(load(made.write(tmp_path / "a.glb")).mesh), 2 * np.asarray(TRIANGLE), atol=1e-6
    )


def test_zeros_behind_the_tree(made: Builder, tmp_path: Path) -> None:
    made.mesh(made.triangle())
    data = bytearray(made.write(tmp_path / "a.glb").read_bytes())
    end = 20 + int.from_bytes(data[12:16], "little")
    padding = len(data[20:end]) - len(bytes(data[20:end]).rstrip())
    (tmp_path / "b.glb").write_bytes(bytes(data[: end - padding]) + bytes(padding) + bytes(data[end:]))
    assert padding and load(tmp_path / "b.glb").facts["faces"] == 1
