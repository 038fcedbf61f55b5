"""Loading files of every format, valid and damaged: geometry, colours, references, hashes and failure codes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from error_codes import raises_code
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

import mvrender
from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import parse_rig
from mvrender.errors import FAILURE_CODES, MeshError
from mvrender.formats import FORMATS, reader_version
from mvrender.loading import load
from mvrender.mesh import Limits, Mesh, normalize

RED, GREEN = (200, 40, 20), (30, 180, 60)


def wedge() -> trimesh.Trimesh:
    """1 x 2 x 3 with one corner cut off: no symmetry."""
    points = np.array([(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)], float)[:-1]
    return trimesh.convex.convex_hull(np.vstack([points, (1, 2, 1.5), (1, 1, 3), (0.5, 2, 3)]))


def textured(parts: trimesh.Trimesh, image: Image.Image) -> trimesh.Trimesh:
    """`parts` with an image across X (u) and Y (v)."""
    low, size = parts.vertices.min(axis=0), np.ptp(parts.vertices, axis=0)
    uv = ((parts.vertices - low) / size)[:, :2]
    material = SimpleMaterial(image=image, diffuse=[255, 255, 255, 255], name="paint")
    return trimesh.Trimesh(parts.vertices, parts.faces, visual=TextureVisuals(uv=uv, material=material), process=False)


def quadrants() -> Image.Image:
    """Red and green above, blue and yellow below."""
    colors = np.array([[RED, GREEN], [(20, 30, 200), (150, 150, 20)]], np.uint8)
    return Image.fromarray(colors.repeat(8, axis=0).repeat(8, axis=1))


def corners(mesh: Mesh | trimesh.Trimesh) -> NDArray[np.float64]:
    """(m, 3, 3) triangles, centred, in an order that does not depend on the file's."""
    points = np.asarray(mesh.vertices, float)
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    triangles = points[np.asarray(mesh.faces)].round(4) + 0.0
    triangles = np.array([triangle[np.lexsort(triangle.T)] for triangle in triangles])
    return triangles[np.lexsort(triangles.reshape(-1, 9).T)]


def code_of(path: Path, **options: Any) -> str:
    with pytest.raises(MeshError) as error:
        normalize(load(path, **options).mesh)
    assert error.value.code in FAILURE_CODES
    return error.value.code


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def obj(*, mtl: str | None = "m.mtl", uv: bool = True) -> str:
    """A square in the plane z = 0."""
    head = f"mtllib {mtl}\n" if mtl else ""
    return head + (
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
        + ("vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n" if uv else "")
        + ("usemtl paint\n" if mtl else "")
        + ("f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n" if uv else "f 1 2 3\nf 1 3 4\n")
    )


def mtl(texture: str | None = None, kd: str = "1 1 1") -> str:
    return f"newmtl paint\nKd {kd}\n" + (f"map_Kd {texture}\n" if texture else "")


def png(path: Path, color: tuple[int, int, int] = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), color).save(path)
    return path


def binary_stl(triangles: Any, header: bytes = b"") -> bytes:
    kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows = np.zeros(len(triangles), kind)
    rows["corners"] = triangles
    return header.ljust(80, b"\0") + struct.pack("<I", len(triangles)) + rows.tobytes()


def glb_json(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data, 12)
    document: dict[str, Any] = json.loads(data[20 : 20 + length])
    return document


def with_json(data: bytes, tree: dict[str, Any]) -> bytes:
    """The GLB file `data` with another tree."""
    (length,) = struct.unpack_from("<I", data, 12)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def srgb(linear: Any) -> Any:
    share = np.asarray(linear) / 255
    return np.rint(255 * np.where(share <= 0.0031308, 12.92 * share, 1.055 * share ** (1 / 2.4) - 0.055))


# --- every format ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["glb", "gltf", "obj", "off", "stl", "stl_ascii", "ply", "3mf", "dae"])
def test_each_format_loads_the_same_shape(name: str, tmp_path: Path) -> None:
    suffix = name.removesuffix("_ascii")
    path = tmp_path / f"wedge.{suffix}"
    wedge().export(path, file_type=name)
    loaded = load(path)
    expected = wedge()
    if FORMATS[path.suffix] == "+z":
        expected.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    np.testing.assert_allclose(corners(loaded.mesh), corners(expected), atol=2e-4)
    assert loaded.up == FORMATS[path.suffix]
    assert loaded.facts == {
        "format": suffix,
        "faces": len(expected.faces),
        "vertices": len(loaded.mesh.vertices),
        "textured": False,
        "reader": reader_version(path.suffix),
    }
    assert loaded.mesh.vertices.dtype == np.float32 and loaded.mesh.faces.dtype == np.int32
    assert loaded.mesh.notes == ()
    again = load(path.rename(path.with_name(f"WEDGE.{suffix.upper()}")))
    assert again.content_hash == loaded.content_hash


@pytest.mark.parametrize(("stated", "axis"), [("X_UP", "+x"), ("Y_UP", "+y"), ("Z_UP", "+z")])
def test_a_dae_file_states_its_up_axis(stated: str, axis: Any, tmp_path: Path) -> None:
    text = wedge().export(file_type="dae").decode()
    assert "<up_axis>Y_UP</up_axis>" in text
    path = write(tmp_path / "a.dae", text.replace("Y_UP", stated))
    loaded = load(path)
    assert loaded.up == axis
    plain = load(write(tmp_path / "b.dae", text), up=axis)
    np.testing.assert_array_equal(loaded.mesh.vertices, plain.mesh.vertices)
    assert load(path, up="-y").up == "-y"


@pytest.mark.parametrize("name", ["glb", "gltf", "obj"])
def test_textures_keep_their_orientation(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"box.{name}"
    textured(trimesh.creation.box((1, 1, 1)), quadrants()).export(path)
    loaded = load(path)
    assert loaded.facts["textured"]
    views = RasterRenderer().render(normalize(loaded.mesh), parse_rig("ring:1@0"), ["texture"], 96)
    front = views.images[0, 0].astype(int)
    upper_left, upper_right, lower_left, lower_right = (front[y, x] for y in (36, 60) for x in (36, 60))
    assert upper_left.argmax() == 0 and upper_right.argmax() == 1 and lower_left.argmax() == 2
    assert lower_right.argmin() == 2 and abs(lower_right[0] - lower_right[1]) < 3
    if name != "glb":
        assert {Path(file).suffix for file in loaded.references} >= ({".bin"} if name == "gltf" else {".mtl", ".png"})


def two_balls(paint: Callable[[trimesh.Trimesh, tuple[int, int, int]], None]) -> trimesh.Scene:
    """A red ball on the left and a green one on the right, each placed by its node in the scene."""
    scene = trimesh.Scene()
    for color, x in ((RED, -2.0), (GREEN, 2.0)):
        ball = trimesh.creation.icosphere(1)
        paint(ball, color)
        scene.add_geometry(ball, transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    return scene


def paint_vertices(ball: trimesh.Trimesh, color: tuple[int, int, int]) -> None:
    ball.visual.vertex_colors = np.tile([*color, 255], (len(ball.vertices), 1))


def paint_faces(ball: trimesh.Trimesh, color: tuple[int, int, int]) -> None:
    ball.visual.face_colors = np.tile([*color, 255], (len(ball.faces), 1))


def paint_material(ball: trimesh.Trimesh, color: tuple[int, int, int]) -> None:
    # A name of its own: trimesh writes materials of one name once.
    ball.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[*color, 255], name=f"paint{color[0]}"))


def simple_material(ball: trimesh.Trimesh, color: tuple[int, int, int]) -> None:
    material = SimpleMaterial(diffuse=[*color, 255], name=f"paint{color[0]}")
    ball.visual = TextureVisuals(uv=np.zeros((len(ball.vertices), 2)), material=material)


@pytest.mark.parametrize(
    ("suffix", "paint"),
    [
        ("glb", paint_vertices),
        ("glb", paint_faces),
        ("glb", paint_material),
        ("glb", simple_material),
        ("gltf", paint_material),
        ("obj", paint_vertices),
        ("obj", paint_faces),
        ("obj", simple_material),
        ("ply", paint_vertices),
        ("ply", paint_faces),
        ("dae", paint_faces),
        ("dae", paint_material),
    ],
)
def test_colours_survive(suffix: str, paint: Any, tmp_path: Path) -> None:
    path = tmp_path / f"balls.{suffix}"
    scene = two_balls(paint)
    if suffix == "dae":
        text = trimesh.exchange.dae.export_collada(scene.dump())
        write(path, text)
    elif suffix == "ply":
        scene.to_mesh().export(path)
    else:
        scene.export(path)
    mesh = load(path).mesh
    assert mesh.vertex_colors is not None
    assert np.ptp(mesh.vertices[:, 0]) == pytest.approx(6, abs=0.2)  # the nodes' transforms were applied
    # glTF's colours are linear light, and trimesh writes them as they are.
    convert = srgb if suffix in ("glb", "gltf") else np.asarray
    left = mesh.vertices[:, 0] < 0
    np.testing.assert_allclose(mesh.vertex_colors[left], np.tile(convert(RED), (left.sum(), 1)), atol=1)
    np.testing.assert_allclose(mesh.vertex_colors[~left], np.tile(convert(GREEN), ((~left).sum(), 1)), atol=1)


def test_a_texture_is_tinted_by_its_material(tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png", kd="0.5 1 0"))
    png(tmp_path / "t.png", (200, 100, 50))
    (texture,) = load(tmp_path / "a.obj").mesh.textures
    np.testing.assert_array_equal(texture[0, 0], (100, 100, 0))


def test_colours_of_an_mtl_file_are_exact(tmp_path: Path) -> None:
    path = write(tmp_path / "a.obj", obj())
    for kd, expected in (("0.4 0.4 0.4", 102), ("0 0 0", 0), ("1 1 1", 255)):
        write(tmp_path / "m.mtl", mtl(kd=kd))
        colors = load(path).mesh.vertex_colors
        assert colors is not None and (colors == expected).all(), kd


@pytest.mark.parametrize("uv", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_a_file_without_colours_has_none(uv: bool, named: bool, tmp_path: Path) -> None:
    mesh = load(write(tmp_path / "a.obj", obj(mtl="gone.mtl" if named else None, uv=uv))).mesh
    assert not mesh.has_color
    assert mesh.notes == (("reference 'gone.mtl' is missing; rendered without it",) if named else ())


def test_vertex_colours_tint_materials_in_gltf(tmp_path: Path) -> None:
    square = trimesh.Trimesh([(0, 0, 0), (1, 0, 0), (1, 1, 0)], [(0, 1, 2)], process=False)
    paint_vertices(square, (255, 128, 0))
    data = trimesh.Scene(square).export(file_type="glb")
    tree = glb_json(data)
    tree["materials"] = [{"pbrMetallicRoughness": {"baseColorFactor": [0.5, 1, 1, 1]}}]
    tree["meshes"][0]["primitives"][0]["material"] = 0
    mesh = load(write(tmp_path / "a.glb", with_json(data, tree))).mesh
    assert mesh.vertex_colors is not None
    np.testing.assert_allclose(mesh.vertex_colors[0], srgb((127.5, 128, 0)), atol=2)


@pytest.mark.parametrize(("mode", "expected"), [("OPAQUE", RED), ("BLEND", (255, 255, 255))])
def test_alpha_is_used_only_in_the_gltf_modes_that_have_it(mode: str, expected: Any, tmp_path: Path) -> None:
    box = trimesh.creation.box()
    clear = Image.new("RGBA", (4, 4), (*RED, 0))
    box.visual = TextureVisuals(uv=np.zeros((8, 2)), material=PBRMaterial(baseColorTexture=clear, alphaMode=mode))
    box.export(tmp_path / "a.glb")
    (texture,) = load(tmp_path / "a.glb").mesh.textures
    np.testing.assert_array_equal(texture[0, 0], expected)


# --- glTF extensions ------------------------------------------------------------------------------------------------


def test_draco_is_decoded(tmp_path: Path) -> None:
    pytest.importorskip("DracoPy")
    wedge().export(tmp_path / "a.glb", extension_draco=True)
    assert "KHR_draco_mesh_compression" in glb_json((tmp_path / "a.glb").read_bytes())["extensionsRequired"]
    mesh = load(tmp_path / "a.glb").mesh
    np.testing.assert_allclose(corners(mesh), corners(wedge()), atol=2e-3)
    # Without the extra, in a process that cannot import it:
    script = (
        "import sys\nfrom pathlib import Path\nsys.modules['DracoPy'] = None\n"
        "from mvrender.errors import MeshError\nfrom mvrender.loading import load\n"
        "try:\n    load(Path(sys.argv[1]))\nexcept MeshError as error:\n    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(mvrender.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.glb")], env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("needs_extra: ") and "pip install 'mvretrieval[draco]'" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "ACME_secret"])
def test_unknown_required_extensions_are_refused_by_name(name: str, tmp_path: Path) -> None:
    data = trimesh.Scene(wedge()).export(file_type="glb")
    tree = {**glb_json(data), "extensionsUsed": [name], "extensionsRequired": [name]}
    path = write(tmp_path / "a.glb", with_json(data, tree))
    with raises_code(MeshError, "unsupported_extension", name):
        load(path)
    # An extension that is used but not required has a fallback.
    write(path, with_json(data, {**tree, "extensionsRequired": []}))
    assert load(path).facts["faces"] == len(wedge().faces)


def glb_with_uv(parts: trimesh.Trimesh, uv: Any, normalized: bool = False) -> tuple[bytes, dict[str, Any]]:
    """A textured GLB file with other texture coordinates, and its tree."""
    data = trimesh.Scene(textured(parts, quadrants())).export(file_type="glb")
    tree = glb_json(data)
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    values = np.asarray(uv)
    blob = values.tobytes() + bytes(-values.nbytes % 4)
    # Appended to the binary chunk, which is the file's last.
    (json_length,) = struct.unpack_from("<I", data, 12)
    start = 20 + json_length
    (length,) = struct.unpack_from("<I", data, start)
    data = data[:start] + struct.pack("<I", length + len(blob)) + data[start + 4 :] + blob
    tree["buffers"][0]["byteLength"] = length + len(blob)
    tree["bufferViews"].append({"buffer": 0, "byteOffset": length, "byteLength": values.nbytes})
    kind = {"f": 5126, "u": 5123 if values.dtype.itemsize == 2 else 5121}[values.dtype.kind]
    accessor = {"bufferView": len(tree["bufferViews"]) - 1, "componentType": kind, "count": len(values), "type": "VEC2"}
    tree["accessors"].append({**accessor, "normalized": normalized})
    attributes["TEXCOORD_1"] = len(tree["accessors"]) - 1
    return data, tree


@pytest.mark.parametrize("kind", [np.float32, np.uint16, np.uint8])
def test_texture_coordinates_may_be_normalized_integers_of_any_set(kind: Any, tmp_path: Path) -> None:
    uv = np.random.default_rng(0).uniform(size=(8, 2)).astype(np.float32)
    whole = kind != np.float32
    stored = np.rint(uv * np.iinfo(kind).max).astype(kind) if whole else uv
    data, tree = glb_with_uv(trimesh.creation.box(), stored, normalized=whole)
    tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1
    mesh = load(write(tmp_path / "a.glb", with_json(data, tree))).mesh
    assert mesh.uv is not None and mesh.textures
    np.testing.assert_allclose(mesh.uv, np.column_stack([uv[:, 0], 1 - uv[:, 1]]), atol=0.003)


def test_quantized_positions_are_decoded(tmp_path: Path) -> None:
    """As written by gltf-transform: 16 bits for -1 to 1, scaled and moved by the node."""
    box = trimesh.creation.box((2, 2, 2))
    scene = trimesh.Scene()
    for x in (-5, 5):
        scene.add_geometry(box, geom_name="box", transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    data = scene.export(file_type="glb")
    tree = glb_json(data)
    (position,) = {p["attributes"]["POSITION"] for m in tree["meshes"] for p in m["primitives"]}
    view = tree["bufferViews"][tree["accessors"][position]["bufferView"]]
    (json_length,) = struct.unpack_from("<I", data, 12)
    start = 28 + json_length + view["byteOffset"]
    floats = np.frombuffer(data[start : start + view["byteLength"]], np.float32).reshape(-1, 3)
    packed = np.zeros((len(floats), 6), np.int16)  # the same room, each vertex padded
    packed[:, :3] = np.rint(floats * 32767)
    data = data[:start] + packed.tobytes() + data[start + view["byteLength"] :]
    view["byteStride"] = 12
    tree["accessors"][position].update(componentType=5122, normalized=True)
    tree["extensionsRequired"] = tree["extensionsUsed"] = ["KHR_mesh_quantization"]
    mesh = load(write(tmp_path / "a.glb", with_json(data, tree))).mesh
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), (12, 2, 2), atol=1e-3)


@pytest.mark.parametrize("required", [True, False])
def test_texture_transforms_are_applied(required: bool, tmp_path: Path) -> None:
    data, tree = glb_with_uv(trimesh.creation.box(), np.zeros((8, 2), np.float32))
    uv = load(write(tmp_path / "a.glb", data)).mesh.uv
    assert uv is not None
    u, v = uv[:, 0], 1 - uv[:, 1]  # glTF's v points down
    transform = {"offset": [0.25, 0.5], "rotation": np.pi / 2, "scale": [2, 3]}
    tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = {
        "KHR_texture_transform": transform
    }
    tree["extensionsUsed"] = ["KHR_texture_transform"]
    tree["extensionsRequired"] = ["KHR_texture_transform"] if required else []
    moved = load(write(tmp_path / "a.glb", with_json(data, tree))).mesh.uv
    assert moved is not None
    # A quarter turn counter-clockwise: what pointed right points up, which is -v.
    np.testing.assert_allclose(moved[:, 0], 0.25 + 3 * v, atol=1e-5)
    np.testing.assert_allclose(1 - moved[:, 1], 0.5 - 2 * u, atol=1e-5)


@pytest.mark.parametrize(("name", "extra"), [("a.step", "cad"), ("a.igs", "cad"), ("a.fbx", "fbx"), ("a.usda", "usd")])
def test_some_formats_need_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with raises_code(MeshError, "needs_extra", f"mvretrieval[{extra}]"):
        load(write(tmp_path / name, "anything"))


# --- bad files ------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0).bytes(3000)
TEXT = b"hello world, this is no mesh\n" * 20
NOT_MESHES = {"unreadable", "no_faces", "needs_extra"}


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("content", [RANDOM, TEXT, b"\0", b"\0" * 500, b"\xff\xfe" * 50], ids=range(5))
def test_files_without_a_mesh_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    assert code_of(write(tmp_path / f"a{suffix}", content)) in NOT_MESHES


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_empty_and_missing_files(suffix: str, tmp_path: Path) -> None:
    assert code_of(write(tmp_path / f"a{suffix}", b"")) == "empty_file"
    assert code_of(tmp_path / f"b{suffix}") == "missing_file"
    (tmp_path / f"c{suffix}").mkdir()
    assert code_of(tmp_path / f"c{suffix}") == "not_a_file"
    (tmp_path / f"d{suffix}").symlink_to(tmp_path / f"b{suffix}")
    assert code_of(tmp_path / f"d{suffix}") == "missing_file"


def test_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "a", "a.blend", ".stl"):
        assert code_of(write(tmp_path / name, wedge().export(file_type="stl"))) == "unknown_format"


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.stl")
    assert code_of(tmp_path / "a.stl") == "not_a_file"
    # Nor as a texture.
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png"))
    os.mkfifo(tmp_path / "t.png")
    assert "t.png" in load(tmp_path / "a.obj").mesh.notes[0]


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.stl", b"data")
    path.chmod(0)
    if os.geteuid() != 0:
        assert code_of(path) == "no_permission"
        return
    # root may read everything: check as another user in a forked process, which is safe as only the file is opened.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for folder in [tmp_path, *list(tmp_path.parents)[:3]]:
                folder.chmod(0o755)
            os.setuid(65534)
            load(path)
        except MeshError as error:
            code = 0 if error.code == "no_permission" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("suffix", ["glb", "stl", "ply", "3mf", "dae"])
def test_truncated_files(suffix: str, share: float, tmp_path: Path) -> None:
    data = wedge().export(file_type=suffix)
    data = data if isinstance(data, bytes) else data.encode()
    path = write(tmp_path / f"a.{suffix}", data[: int(len(data) * share)])
    assert code_of(path) == "unreadable"


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.3mf"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", b" " * 3_000_000)
    with raises_code(MeshError, "too_large", "unpacks to 0.0 GB"):
        load(path, limits=Limits(memory_bytes=8_000_000))
    assert code_of(path) == "unreadable"


def test_a_truncated_obj_loads_the_faces_that_are_left(tmp_path: Path) -> None:
    text = wedge().export(file_type="obj")
    first_face = text.index("\nf ")
    assert code_of(write(tmp_path / "a.obj", text[: first_face + 1])) == "no_faces"
    # Missing faces, or a missing digit of the last number, cannot be detected.
    assert 0 < load(write(tmp_path / "a.obj", text[: first_face + 60])).facts["faces"] < len(wedge().faces)


def test_the_error_of_a_truncated_stl_names_both_sizes(tmp_path: Path) -> None:
    data = wedge().export(file_type="stl")
    path = write(tmp_path / "a.stl", data[:-20])
    with raises_code(MeshError, "unreadable", f"{len(data):,} bytes, truncated after {len(data) - 20:,}"):
        load(path)
    # Bytes after the last triangle are ignored, and so is a header that begins like text.
    plain = load(write(path, data)).mesh
    for other in (data + b"extra", b"solid of a kind".ljust(80) + data[80:]):
        np.testing.assert_array_equal(load(write(path, other)).mesh.vertices, plain.vertices)


OFF = "OFF\n3 1 0\n{} 0 0\n1 0 0\n0 1 0\n3 0 1 {}\n"
OBJ = "v {} 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 {}\n"
PLY = (
    "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n{} 0 0\n1 0 0\n0 1 0\n3 0 1 {}\n"
)
POINTS = np.array([[(np.nan, 0, 0), (1, 0, 0), (0, 1, 0)], [(np.inf, 0, 0), (1, 0, 0), (0, 1, 0)]])


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        *((f"{bad}.obj", OBJ.format(bad, 3), "not_finite") for bad in ("nan", "inf", "-inf", "1e300")),
        *((f"{bad}.off", OFF.format(bad, 2), "not_finite") for bad in ("nan", "inf")),
        *((f"{bad}.ply", PLY.format(bad, 2), "not_finite") for bad in ("nan", "inf")),
        ("nan.stl", binary_stl(POINTS[:1]), "not_finite"),
        ("inf.stl", binary_stl(POINTS[1:]), "not_finite"),
        ("far.obj", OBJ.format(0, 9), "bad_indices"),
        ("far.off", OFF.format(0, 7), "bad_indices"),
        ("far.ply", PLY.format(0, 7), "bad_indices"),
        ("negative.ply", PLY.format(0, -1), "bad_indices"),
        ("empty.stl", binary_stl(np.zeros((0, 3, 3))), "no_faces"),
        ("points.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no_faces"),
        ("lines.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2\n", "no_faces"),
        ("point.obj", "v 2 2 2\nv 2 2 2\nv 2 2 2\nf 1 2 3\n", "degenerate"),
        ("point.stl", binary_stl(np.full((2, 3, 3), 7)), "degenerate"),
        ("cloud.ply", trimesh.PointCloud(np.eye(3)).export(file_type="ply"), "no_faces"),
        ("cloud.glb", trimesh.Scene(trimesh.PointCloud(np.eye(3))).export(file_type="glb"), "no_faces"),
        ("many.ply", PLY.replace("vertex 3", "vertex 3000000000").format(0, 2), None),
        ("many.off", OFF.replace("3 1 0", "3000000000 1000000000 0").format(0, 2), None),
        ("nothing.gltf", '{"asset": {"version": "2.0"}}', None),
        ("list.gltf", "[1, 2]", "unreadable"),
        ("strings.gltf", '{"asset": {"version": "2.0"}, "extensionsRequired": 7}', "unreadable"),
    ],
)
def test_damaged_files_get_specific_codes(name: str, content: Any, code: str | None, tmp_path: Path) -> None:
    found = code_of(write(tmp_path / name, content))
    assert found == code if code else found in NOT_MESHES


def test_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.stl", wedge().export(file_type="stl"))
    assert code_of(path, limits=Limits(max_faces=len(wedge().faces) - 1)) == "too_large"
    assert code_of(path, limits=Limits(max_file_bytes=100)) == "too_large"
    assert load(path, limits=Limits(max_faces=len(wedge().faces), max_file_bytes=path.stat().st_size))
    # Every instance counts.
    scene = trimesh.Scene()
    for x in range(5):
        scene.add_geometry(wedge(), geom_name="w", transform=trimesh.transformations.translation_matrix((x, 0, 0)))
    scene.export(tmp_path / "b.glb")
    assert load(tmp_path / "b.glb").facts["faces"] == 5 * len(wedge().faces)
    assert code_of(tmp_path / "b.glb", limits=Limits(max_faces=4 * len(wedge().faces))) == "too_large"


def test_text_in_latin_1_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.obj", obj(mtl="mü.mtl").encode("latin-1"))
    write(tmp_path / "mü.mtl", mtl("tü.png").encode("latin-1"))
    png(tmp_path / "tü.png")
    mesh = load(path).mesh
    assert mesh.textures and not mesh.notes
    ascii_stl = wedge().export(file_type="stl_ascii").replace("solid", "solid grün", 1).encode("latin-1")
    assert load(write(tmp_path / "a.stl", ascii_stl)).facts["faces"] == len(wedge().faces)


def test_detail_far_from_the_origin_is_kept(tmp_path: Path) -> None:
    far = wedge()
    far.apply_translation((1e7, 2e7, -1e7))  # where float32 has only integers, as in maps
    path = write(tmp_path / "a.obj", far.export(file_type="obj", digits=8))
    np.testing.assert_allclose(corners(load(path).mesh), corners(wedge()), atol=1e-3)


# --- references -----------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the mesh's folder, with files that must not be read."""
    secret = tmp_path / "secret"
    png(secret / "t.png")
    write(secret / "m.mtl", mtl(kd="1 0 0"))
    (tmp_path / "mine").mkdir()
    return secret


OUTSIDE_NAMES = ["../secret/{}", "..\\secret\\{}", "{folder}/{}", "sub/../../secret/{}", "link/{}", "%2e%2e/secret/{}"]


@pytest.mark.parametrize("pattern", OUTSIDE_NAMES)
@pytest.mark.parametrize("kind", ["mtl", "texture"])
def test_references_out_of_the_folder_are_not_read(pattern: str, kind: str, outside: Path) -> None:
    mine = outside.parent / "mine"
    (mine / "link").symlink_to(outside)
    name = pattern.replace("{folder}", str(outside)).replace("{}", "m.mtl" if kind == "mtl" else "t.png")
    write(mine / "a.obj", obj(mtl=name if kind == "mtl" else "m.mtl"))
    if kind == "texture":
        write(mine / "m.mtl", mtl(name))
    loaded = load(mine / "a.obj")
    assert not loaded.mesh.textures and str(outside) not in "".join(loaded.references)
    colors = loaded.mesh.vertex_colors
    assert colors is None if kind == "mtl" else colors is not None and (colors == 255).all()
    (note,) = loaded.mesh.notes
    assert f"reference '{name}'" in note and ("outside of the folder" in note or pattern.startswith("%"))
    # The root may be a parent folder.
    if not pattern.startswith(("..\\", "%", "sub")):
        wider = load(mine / "a.obj", root=outside.parent)
        assert len(wider.references) == (1 if kind == "mtl" else 2)
        assert not wider.mesh.notes


def test_a_texture_that_is_a_symlink_to_another_folder_is_not_read(outside: Path) -> None:
    mine = outside.parent / "mine"
    write(mine / "a.obj", obj())
    write(mine / "m.mtl", mtl("t.png"))
    (mine / "t.png").symlink_to(outside / "t.png")
    loaded = load(mine / "a.obj")
    assert not loaded.mesh.textures and "t.png" in loaded.mesh.notes[0] and len(loaded.references) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}/t.png", "HTTPS://127.0.0.1:{}/t.png", "ftp://127.0.0.1:{}/t.png"])
@pytest.mark.parametrize("kind", ["obj", "mtl", "gltf"])
def test_urls_are_never_fetched(url: str, kind: str, tmp_path: Path) -> None:
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        address = url.format(server.getsockname()[1])
        png(tmp_path / "t.png")  # a local file of that name is not used instead
        if kind == "gltf":
            path = tmp_path / "a.gltf"
            textured(wedge(), quadrants()).export(path)
            tree = json.loads(path.read_text())
            tree["images"] = [{"uri": address}]
            path.write_text(json.dumps(tree))
        else:
            path = write(tmp_path / "a.obj", obj(mtl=address if kind == "mtl" else "m.mtl"))
            write(tmp_path / "m.mtl", mtl(address))
        mesh = load(path).mesh
        assert not mesh.textures
        assert any(address in note for note in mesh.notes)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    "name",
    ["C:\\Users\\me\\maps\\t.png", "/home/me/maps/t.png", "..\\t.png", "D:/maps/t.png", "\\\\server\\maps\\t.png"],
)
def test_paths_of_other_machines_are_resolved_beside_the_mesh(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl(name))
    png(tmp_path / "t.png")
    loaded = load(tmp_path / "a.obj")
    assert loaded.mesh.textures and not loaded.mesh.notes
    assert str(tmp_path / "t.png") in loaded.references


@pytest.mark.parametrize("name", ["maps/t.png", "maps\\t.png", "./maps/t.png", "maps/a b.png", "maps/a%20b.png"])
def test_textures_in_sub_folders(name: str, tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl(name))
    png(tmp_path / "maps" / "t.png")
    png(tmp_path / "maps" / "a b.png")
    assert load(tmp_path / "a.obj").mesh.textures


def gltf(folder: Path) -> tuple[Path, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    wedge().export(folder / "a.gltf")
    return folder / "a.gltf", json.loads((folder / "a.gltf").read_text())


def test_a_missing_geometry_buffer_is_an_error(outside: Path) -> None:
    path, tree = gltf(outside.parent / "mine")
    buffer = path.with_name(tree["buffers"][0]["uri"])
    shutil.move(buffer, outside / "b.bin")
    assert code_of(path) == "missing_reference"
    for uri in ("../secret/b.bin", str(outside / "b.bin"), "http://127.0.0.1:9/b.bin"):
        tree["buffers"][0]["uri"] = uri
        write(path, json.dumps(tree))
        assert code_of(path) == "outside_reference", uri
    tree["buffers"][0]["uri"] = "../secret/b.bin"
    write(path, json.dumps(tree))
    assert load(path, root=outside.parent).facts["faces"] == len(wedge().faces)


def test_a_mesh_with_a_missing_or_damaged_texture_loads_with_a_note(tmp_path: Path) -> None:
    path = write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png", kd="1 0 0"))
    for content, problem in (
        (None, "is missing"),
        (b"no image", "not a readable image"),
        (b"", "not a readable image"),
    ):
        if content is not None:
            write(tmp_path / "t.png", content)
        mesh = load(path).mesh
        (note,) = mesh.notes
        assert "t.png" in note and problem in note
        assert not mesh.textures and mesh.vertex_colors is not None and (mesh.vertex_colors == (255, 0, 0)).all()
    # A truncated image is detected only by decoding it.
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "t.png")
    write(tmp_path / "t.png", (tmp_path / "t.png").read_bytes()[:5000])
    (note,) = load(path).mesh.notes
    assert "texture unreadable" in note


def test_textures_over_the_limit_are_omitted(tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png"))
    png(tmp_path / "t.png")
    assert load(tmp_path / "a.obj", limits=Limits(max_texture_pixels=16)).mesh.textures
    mesh = load(tmp_path / "a.obj", limits=Limits(max_texture_pixels=15)).mesh
    assert not mesh.textures and "4 x 4 pixels omitted" in mesh.notes[0]


def test_an_image_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png"))
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    write(tmp_path / "t.png", start + struct.pack(">I", 4) + b"IDAT" + b"some")
    mesh = load(tmp_path / "a.obj").mesh
    assert not mesh.textures and "100000 x 100000 pixels omitted" in mesh.notes[0]


@pytest.mark.parametrize("side", [4096, pytest.param(16384, marks=pytest.mark.slow)])
def test_a_large_texture_is_reduced(side: int, tmp_path: Path) -> None:
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl("t.png"))
    image = Image.new("P", (side, side))  # one byte a pixel: quick to write
    image.putpalette([*RED, *GREEN])
    image.paste(1, (side // 2, 0, side, side))
    image.save(tmp_path / "t.png", compress_level=1)
    (texture,) = load(tmp_path / "a.obj").mesh.textures
    assert texture.shape == (2048, 2048, 3)
    np.testing.assert_array_equal(texture[5, [5, -5]], [RED, GREEN])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_images_of_every_mode_are_read(mode: str, tmp_path: Path) -> None:
    grey = Image.new("L", (4, 4), 255)
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    else:
        image = grey.convert(mode)
    name = "t.tif" if mode in ("CMYK", "F", "I;16") else "t.png"
    image.save(tmp_path / name)
    write(tmp_path / "a.obj", obj())
    write(tmp_path / "m.mtl", mtl(name))
    (texture,) = load(tmp_path / "a.obj").mesh.textures
    assert texture.shape == (4, 4, 3) and (texture == 255).all()


# --- content hash ---------------------------------------------------------------------------------------------------


def test_the_content_hash_covers_everything_that_affects_the_appearance(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = write(home / "a.obj", obj())
    write(home / "m.mtl", mtl("t.png"))
    png(home / "t.png")
    first = load(path).content_hash
    assert load(path).content_hash == first

    moved = shutil.copytree(home, tmp_path / "elsewhere")
    (moved / "a.obj").rename(moved / "other.obj")
    assert load(moved / "other.obj").content_hash == first

    seen = {first, load(path, up="+z").content_hash}
    png(home / "t.png", GREEN)
    seen.add(load(path).content_hash)
    write(home / "m.mtl", mtl("t.png", kd="1 0 0"))
    seen.add(load(path).content_hash)
    write(home / "a.obj", obj() + "# more\n")
    seen.add(load(path).content_hash)
    (home / "t.png").unlink()
    seen.add(load(path).content_hash)
    assert len(seen) == 6
    # Files that are not referenced do not count.
    png(home / "u.png")
    assert load(path).content_hash in seen
    assert load(path, up="+y").content_hash == load(path).content_hash


def test_the_content_hash_depends_on_the_format(tmp_path: Path) -> None:
    content = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    hashes = {load(write(tmp_path / name, content)).content_hash for name in ("a.off", "a.obj")}
    assert len(hashes) == 2


@pytest.mark.parametrize("kept", [5, 19, 200, -4])
def test_a_truncated_glb_is_reported(tmp_path: Path, kept: int) -> None:
    whole = trimesh.creation.box().export(file_type="glb")
    path = tmp_path / "cut.glb"
    path.write_bytes(whole[:kept])
    with raises_code(MeshError, "unreadable", "bytes, truncated after", "copy it again"):
        load(path)
