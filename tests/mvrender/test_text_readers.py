"""OBJ, OFF, PLY and STL as programs write them: what each file means, as triangles with colours."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from mesh_area import areas
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.mesh import Mesh
from mvrender.shading import CLAY

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
U = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
UV = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def halves(path: Path, left: Any = RED, right: Any = BLUE) -> Path:
    """An image of two colours side by side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([[left, right]], np.uint8).repeat(8, 0).repeat(8, 1)).save(path)
    return path


def face_colors(mesh: Mesh) -> NDArray[np.float64]:
    """(m, 3) mean colour of each face: of its vertices, times the texture at its middle."""
    colors = np.tile(CLAY, (len(mesh.vertices), 1)) if mesh.vertex_colors is None else mesh.vertex_colors
    found: NDArray[np.float64] = np.asarray(colors[mesh.faces].mean(axis=1), np.float64)
    if mesh.face_texture is None:
        return found
    assert mesh.uv is not None
    for i, texture in enumerate(mesh.face_texture):
        if texture >= 0:
            pixels = mesh.textures[texture]
            u, v = mesh.uv[mesh.faces[i]].mean(axis=0) % 1
            found[i] *= pixels[int((1 - v) * len(pixels)) % len(pixels), int(u * pixels.shape[1])] / 255
    return found


def colors_of(path: Path) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.rint(face_colors(load(path).mesh)).astype(int).tolist()}


# -- OBJ -----------------------------------------------------------------------------------------------------------------


def test_relative_indices_count_from_their_line(tmp_path: Path) -> None:
    """Two triangles, each behind its own vertices; texture coordinates count separately."""
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\n{}v 5 0 0\nv 6 0 0\nv 5 1 0\n{}"
    absolute = load(write(tmp_path / "a.obj", text.format("f 1 2 3\n", "f 4 5 6\n"))).mesh
    relative = load(write(tmp_path / "b.obj", text.format("f -3 -2 -1\n", "f -3 -2 -1\n"))).mesh
    mixed = load(write(tmp_path / "c.obj", text.format("f 1 -2 3\n", "f -3 5 -1\n"))).mesh
    for mesh in (relative, mixed):
        np.testing.assert_array_equal(mesh.vertices[mesh.faces], absolute.vertices[absolute.faces])
    halves(tmp_path / "t.png")
    write(tmp_path / "m.mtl", "newmtl a\nmap_Kd t.png\n")
    head = "mtllib m.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\n"
    text = (
        head + "vt .1 .1\nvt .2 .1\nvt .1 .2\nf -3/-3 -2/-2 -1/-1\nvt .9 .1\nvt .8 .1\nvt .9 .2\nf -1/-1 -2/-2 -3/-3\n"
    )
    assert colors_of(write(tmp_path / "d.obj", text)) == {RED, BLUE}
    with raises_code(MeshError, "bad_indices"):
        load(write(tmp_path / "e.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 -2 -1\n"))


@pytest.mark.parametrize(
    "text", ["f 1 2 3 4 5 6 7 8\n", "f 1//1 2//1 3//1 4//1 5//1 6//1 7//1 8//1\n", "f 8 7 6 5 4 3 2 1\n"]
)
def test_concave_faces(text: str, tmp_path: Path) -> None:
    vertices = "".join(f"v {x} 0 {y}\n" for x, y in U)
    mesh = load(write(tmp_path / "a.obj", vertices + "vn 0 1 0\n" + text)).mesh
    assert areas(mesh) == pytest.approx(7) and len(mesh.faces) == 6


@pytest.mark.parametrize(
    "statements", ["mtllib a.mtl b.mtl\n", "mtllib a.mtl\nmtllib b.mtl\n", "mtllib b.mtl\nmtllib a.mtl\n"]
)
def test_several_material_libraries(statements: str, tmp_path: Path) -> None:
    write(tmp_path / "a.mtl", "newmtl red\nKd 1 0 0\n")
    write(tmp_path / "b.mtl", "newmtl blue\nKd 0 0 1\n")
    text = statements + SQUARE + "usemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\n"
    assert colors_of(write(tmp_path / "a.obj", text)) == {RED, BLUE}


def test_a_library_whose_name_has_a_space(tmp_path: Path) -> None:
    write(tmp_path / "my paint.mtl", "newmtl red\nKd 1 0 0\n")
    assert colors_of(write(tmp_path / "a.obj", "mtllib my paint.mtl\nusemtl red\n" + SQUARE + "f 1 2 3 4\n")) == {RED}


@pytest.mark.parametrize(
    "line",
    [
        "map_Kd t.png", "map_Kd -s 1 1 1 t.png", "map_Kd -clamp on -bm 0.5 t.png", "map_Kd -o 0 0 -mm 0 1 t.png",
        "map_kd\tt.png", 'map_Kd "t.png"', "map_Kd T.PNG", "map_Kd -texres 512 -blendu on t.png", "map_Kd .\\t.png",
    ],
)  # fmt: skip
def test_options_and_names_of_maps(line: str, tmp_path: Path) -> None:
    halves(tmp_path / "t.png")
    write(tmp_path / "m.mtl", f"newmtl a\nKd 1 1 1\n{line}\n")
    text = "mtllib m.mtl\nusemtl a\n" + SQUARE + "vt .1 0\nvt .2 0\nvt .9 0\nvt .8 0\nf 1/1 2/2 3/1\nf 1/3 3/4 4/3\n"
    loaded = load(write(tmp_path / "a.obj", text))
    assert {tuple(color) for color in np.rint(face_colors(loaded.mesh)).tolist()} == {RED, BLUE}
    assert loaded.mesh.notes == ()


def test_scale_and_offset_of_maps_move_the_texture(tmp_path: Path) -> None:
    halves(tmp_path / "t.png")
    write(tmp_path / "m.mtl", "newmtl a\nmap_Kd -s 2 1 1 -o 0.5 0 0 t.png\n")
    text = "mtllib m.mtl\nusemtl a\n" + SQUARE + "vt .1 0\nvt .6 0\nf 1/1 2/1 3/1\nf 1/2 3/2 4/2\n"
    mesh = load(write(tmp_path / "a.obj", text)).mesh
    assert mesh.uv is not None
    np.testing.assert_allclose(sorted(set(mesh.uv[:, 0].round(3).tolist())), [0.7, 1.7])


@pytest.mark.parametrize("place", ["maps/t.png", "t.png"])
def test_textures_are_sought_beside_the_library_and_beside_the_mesh(place: str, tmp_path: Path) -> None:
    halves(tmp_path / place)
    write(tmp_path / "maps" / "m.mtl", "newmtl a\nmap_Kd t.png\n")
    text = "mtllib maps/m.mtl\nusemtl a\n" + SQUARE + UV + "f 1/1 2/2 3/3 4/4\n"
    loaded = load(write(tmp_path / "a.obj", text))
    assert len(loaded.mesh.textures) == 1 and loaded.mesh.notes == ()
    assert str(tmp_path / place) in loaded.references


def test_a_face_without_texture_coordinates_leaves_the_others_textured(tmp_path: Path) -> None:
    halves(tmp_path / "t.png", GREEN, GREEN)
    write(tmp_path / "m.mtl", "newmtl a\nKd 1 1 1\nmap_Kd t.png\n")
    text = "mtllib m.mtl\nusemtl a\n" + SQUARE + UV + "f 1/1 2/2 3/3\nf 1 3 4\n"
    assert colors_of(write(tmp_path / "a.obj", text)) == {GREEN, (255, 255, 255)}


def test_a_black_base_colour_does_not_hide_a_texture(tmp_path: Path) -> None:
    halves(tmp_path / "t.png", GREEN, GREEN)
    write(tmp_path / "m.mtl", "newmtl a\nKd 0 0 0\nmap_Kd t.png\nnewmtl b\nKd 0 0 0\n")
    text = "mtllib m.mtl\nusemtl a\n" + SQUARE + UV + "f 1/1 2/2 3/3\nusemtl b\nf 1 3 4\n"
    assert colors_of(write(tmp_path / "a.obj", text)) == {GREEN, (0, 0, 0)}


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + (SQUARE + "f 1 2 3 4\n").encode(),
        b"\xff\xfe" + (SQUARE + "f 1 2 3 4\n").encode("utf-16-le"),
        (SQUARE + "f 1 2 3 4\n").replace(" ", "\t").encode(),
        (SQUARE + "f 1 2 3 4\n").replace(" ", "   ").replace("\n", " \r\n").encode(),
        (SQUARE + "f 1 2 3 4  # the square\n").replace("v 1 1 0", "v 1 1 0 # corner").encode(),
        (SQUARE + "f 1 2 \\ \n 3 4\n").encode(),
        (SQUARE + "s 1\ng side one\no thing # 3\nf 1/ 2/ 3/ 4/\n").encode(),
        ("# caf\u00e9\n" + SQUARE + "f 1 2 3 4").encode("latin-1"),
        (SQUARE + "f 1 2 3 4\nf 1 2").encode(),
        ("mtllib \n usemtl\n" + SQUARE + " f 1 2 3 4\n").encode(),
    ],
)
def test_ways_to_write_a_square(content: bytes, tmp_path: Path) -> None:
    mesh = load(write(tmp_path / "a.obj", content)).mesh
    assert areas(mesh) == pytest.approx(1) and len(mesh.faces) == 2


def test_colours_behind_vertices(tmp_path: Path) -> None:
    for one in ("1 0 0", "255 0 0", "1.0 0.0 0.0 1.0"):
        text = "".join(f"v {x} {y} 0 {one}\n" for x, y in ((0, 0), (1, 0), (0, 1))) + "f 1 2 3\n"
        assert colors_of(write(tmp_path / "a.obj", text)) == {RED}
    assert load(write(tmp_path / "a.obj", SQUARE.replace(" 0\n", " 0 1.0\n") + "f 1 2 3\n")).mesh.vertex_colors is None


def test_what_is_not_rendered_is_noted(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "a.obj", SQUARE + "f 1 2 3\ncstype bspline\nsurf 0 1 0 1 1 2 3 4\nend\n"))
    assert any("free-form surfaces" in note for note in loaded.mesh.notes)
    for bad in ("f 1 2 x\n", "v 1 2 z\nf 1 2 3\n", "f 1/a 2/b 3/c\n"):
        with raises_code(MeshError, "unreadable"):
            load(write(tmp_path / "a.obj", SQUARE + bad))


# -- OFF -----------------------------------------------------------------------------------------------------------------


def off(header: str, vertices: list[str], faces: list[str]) -> str:
    return "\n".join([header, f"{len(vertices)} {len(faces)} 0", *vertices, *faces, ""])


CORNERS = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]


@pytest.mark.parametrize(
    ("header", "suffix", "color"),
    [
        ("COFF", "255 0 0 255", RED),
        ("COFF", "1.0 0 0 1.0", RED),
        ("OFF", "255 0 0", RED),
        ("NOFF", "0 0 1", None),
        ("CNOFF", "0 0 1 0 0 255 255", BLUE),
        ("STOFF", "0.5 0.5", None),
        ("STCNOFF", "0 0 1 0 255 0 255 .5 .5", GREEN),
    ],
)
def test_colours_of_off_vertices(header: str, suffix: str, color: Any, tmp_path: Path) -> None:
    text = off(header, [f"{corner} {suffix}" for corner in CORNERS], ["4 0 1 2 3"])
    assert colors_of(write(tmp_path / "a.off", text)) == {color or tuple(CLAY.astype(int).tolist())}


def test_colours_of_off_faces(tmp_path: Path) -> None:
    text = off("OFF", CORNERS, ["3 0 1 2 1.0 0 0", "3 0 2 3 0 0 1.0"])
    assert colors_of(write(tmp_path / "a.off", text)) == {RED, BLUE}
    text = off("OFF", CORNERS, ["3 0 1 2 255 0 0 255", "3 0 2 3"])
    assert colors_of(write(tmp_path / "b.off", text)) == {RED, tuple(CLAY.astype(int).tolist())}
    loaded = load(write(tmp_path / "c.off", off("OFF", CORNERS, ["3 0 1 2 7", "3 0 2 3 8"])))
    assert loaded.mesh.vertex_colors is None and "colour map" in loaded.mesh.notes[0]


def test_ways_to_write_off(tmp_path: Path) -> None:
    plain = off("OFF", [f"{x} 0 {y}" for x, y in U], ["8 0 1 2 3 4 5 6 7"])
    for text in (plain, plain.replace("OFF\n", "OFF "), plain.replace("OFF\n", "# by hand\nOFF # text\n\n"), plain[4:]):
        assert areas(load(write(tmp_path / "a.off", text)).mesh) == pytest.approx(7)
    for bad in (
        plain[:-20],
        plain.replace("8 0 1", "9 0 1"),
        plain.replace("3 0 3", "3 0 x"),
        "OFF BINARY\n",
        "4OFF\n1 1 1\n",
    ):
        with raises_code(MeshError, "unreadable"):
            load(write(tmp_path / "a.off", bad))


# -- PLY -----------------------------------------------------------------------------------------------------------------


def ply(elements: str, body: str | bytes, form: str = "ascii", comments: str = "") -> bytes:
    head = f"ply\nformat {form} 1.0\n{comments}{elements}end_header\n".encode()
    return head + (body.encode() if isinstance(body, str) else body)


def properties(*names: str, kind: str = "float") -> str:
    return "".join(f"property {kind} {name}\n" for name in names)


XYZ = properties("x", "y", "z")
FACES = "property list uchar int vertex_indices\n"
POINTS = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


@pytest.mark.parametrize(
    ("names", "kind", "values"),
    [
        (("red", "green", "blue"), "uchar", "255 0 0"),
        (("red", "green", "blue", "alpha"), "uchar", "255 0 0 255"),
        (("diffuse_red", "diffuse_green", "diffuse_blue"), "uchar", "255 0 0"),
        (("r", "g", "b"), "uchar", "255 0 0"),
        (("red", "green", "blue"), "ushort", "65535 0 0"),
        (("red", "green", "blue"), "float", "1 0 0"),
        (("red", "green", "blue"), "int", "255 0 0"),
    ],
)
@pytest.mark.parametrize("more", ["", "st"])
def test_colours_of_ply_vertices(names: Any, kind: str, values: str, more: str, tmp_path: Path) -> None:
    """Also beside texture coordinates without an image, as Blender writes them."""
    uv = properties("s", "t") if more else ""
    elements = "element vertex 4\n" + XYZ + uv + properties(*names, kind=kind) + "element face 1\n" + FACES
    rows = [f"{x} {y} {z} {'0.5 0.5 ' if more else ''}{values}" for x, y, z in POINTS]
    assert colors_of(write(tmp_path / "a.ply", ply(elements, "\n".join([*rows, "4 0 1 2 3", ""])))) == {RED}


def test_colours_of_ply_faces_beside_texture_coordinates(tmp_path: Path) -> None:
    """As MeshLab writes them, with and without the image."""
    face = FACES + "property list uchar float texcoord\n" + properties("red", "green", "blue", kind="uchar")
    elements = "element vertex 4\n" + XYZ + "element face 2\n" + face
    rows = [f"{x} {y} {z}" for x, y, z in POINTS]
    body = "\n".join([*rows, "3 0 1 2 6 .1 0 .1 0 .1 0 255 0 0", "3 0 2 3 6 .9 0 .9 0 .9 0 0 255 0", ""])
    assert colors_of(write(tmp_path / "a.ply", ply(elements, body))) == {RED, GREEN}
    halves(tmp_path / "t.png", BLUE, (10, 20, 30))
    assert colors_of(write(tmp_path / "b.ply", ply(elements, body, comments="comment TextureFile t.png\n"))) == {
        BLUE,
        (10, 20, 30),
    }


def test_ply_faces_choose_among_several_images(tmp_path: Path) -> None:
    halves(tmp_path / "a.png", RED, RED)
    halves(tmp_path / "b c.png", GREEN, GREEN)
    face = FACES + "property list uchar float texcoord\nproperty int texnumber\n"
    elements = "element vertex 4\n" + XYZ + "element face 2\n" + face
    rows = [f"{x} {y} {z}" for x, y, z in POINTS]
    body = "\n".join([*rows, "3 0 1 2 6 0 0 1 0 1 1 1", "3 0 2 3 6 0 0 1 1 0 1 0", ""])
    data = ply(elements, body, comments="comment TextureFile a.png\ncomment TextureFile b c.png\n")
    mesh = load(write(tmp_path / "a.ply", data)).mesh
    assert len(mesh.textures) == 2 and {tuple(c) for c in np.rint(face_colors(mesh)).tolist()} == {RED, GREEN}


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("uniform", [True, False])
def test_binary_ply(order: str, uniform: bool, tmp_path: Path) -> None:
    """Rows of one length, and of several, with lists and scalars before and behind."""
    mark = "<" if order == "little" else ">"
    elements = (
        "element vertex 5\n" + XYZ + properties("red", "green", "blue", kind="uchar")
        + "element extra 2\nproperty short a\n"
        + "element face 2\nproperty uchar flag\n" + FACES + "property float quality\n"
    )  # fmt: skip
    points = [*POINTS, (2, 0.5, 0)]
    body = b"".join(struct.pack(f"{mark}3f3B", *point, *RED) for point in points) + struct.pack(f"{mark}2h", 1, 2)
    faces = [(0, 1, 2), (0, 2, 3)] if uniform else [(0, 1, 2, 3), (1, 4, 2)]
    for face in faces:
        body += struct.pack(f"{mark}BB{len(face)}if", 1, len(face), *face, 0.5)
    loaded = load(write(tmp_path / "a.ply", ply(elements, body, f"binary_{order}_endian")))
    assert areas(loaded.mesh) == pytest.approx(1 if uniform else 1.5)
    assert (face_colors(loaded.mesh) == RED).all()
    for cut in (5, 40, len(body) - 3):
        with raises_code(MeshError, "unreadable"):
            load(write(tmp_path / "b.ply", ply(elements, body[:cut], f"binary_{order}_endian")))


def test_triangle_strips_of_ply(tmp_path: Path) -> None:
    elements = "element vertex 6\n" + XYZ + "element tristrips 1\nproperty list int int vertex_indices\n"
    rows = [f"{x} {y} 0" for x in (0, 1, 2) for y in (0, 1)]
    for strip, area in (("6 0 1 2 3 4 5", 2), ("7 0 1 2 -1 3 4 5", 1), ("5 0 1 -1 2 3", 0)):
        path = write(tmp_path / "a.ply", ply(elements, "\n".join([*rows, strip, ""])))
        if area:
            mesh = load(path).mesh
            assert areas(mesh) == pytest.approx(area)
            a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
            if area == 2:
                assert (np.cross(b - a, c - a)[:, 2] < 0).all()  # all face the same side
        else:
            with raises_code(MeshError, "no_faces"):
                load(path)


def test_blank_lines_and_unknown_headers_of_ply(tmp_path: Path) -> None:
    elements = "element vertex 4\n" + XYZ + "element face 1\n" + FACES
    rows = "\n".join(["", *(f"{x} {y} {z}" for x, y, z in POINTS), "", "4 0 1 2 3", ""])
    assert areas(load(write(tmp_path / "a.ply", ply(elements, rows))).mesh) == pytest.approx(1)
    windows = ply(elements, rows).replace(b"\n", b"\r\n")
    assert areas(load(write(tmp_path / "a.ply", windows)).mesh) == pytest.approx(1)
    for bad in (
        ply(elements, rows, "ebcdic"),
        ply(elements.replace("float x", "quark x"), rows),
        b"ply\nformat ascii 1.0\n",
    ):
        with raises_code(MeshError, "unreadable"):
            load(write(tmp_path / "b.ply", bad))


# -- STL -----------------------------------------------------------------------------------------------------------------


def stl(attributes: list[int], header: bytes = b"") -> bytes:
    kind = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    rows = np.zeros(len(attributes), kind)
    rows["corners"] = [[(i, 0, 0), (i + 1, 0, 0), (i, 1, 0)] for i in range(len(attributes))]
    rows["attribute"] = attributes
    return header.ljust(80, b"\0") + struct.pack("<I", len(rows)) + rows.tobytes()


def test_colours_of_viscam_and_magics(tmp_path: Path) -> None:
    own, red, blue = 1 << 15, 31 << 10, 31
    clay = tuple(CLAY.astype(int).tolist())
    assert colors_of(write(tmp_path / "a.stl", stl([own | red, own | blue, 0]))) == {RED, BLUE, clay}
    header = b"COLOR=" + bytes([0, 255, 0, 255]) + b",MATERIAL="
    assert colors_of(
        write(tmp_path / "b.stl", stl([red, blue, own]), header=header)
        if False
        else write(tmp_path / "b.stl", stl([red, blue, own], header))
    ) == {BLUE, RED, GREEN}  # red is low
    assert load(write(tmp_path / "c.stl", stl([0, 7, 31]))).mesh.vertex_colors is None


def test_text_stl_with_several_solids(tmp_path: Path) -> None:
    facet = "facet normal 0 0 1\nouter loop\nvertex {0} 0 0\nvertex {1} 0 0\nvertex {0} 1e0 0\nendloop\nendfacet\n"
    text = "".join(f"solid part {i}\n{facet.format(i, i + 1)}endsolid part {i}\n" for i in range(3))
    for content in (
        text,
        text.upper(),
        text.replace("\n", "\r\n"),
        text.replace("vertex ", "\tVERTEX   "),
        "\n" + text,
    ):
        assert areas(load(write(tmp_path / "a.stl", content)).mesh) == pytest.approx(1.5)
    assert len(load(write(tmp_path / "a.stl", text[: text.rindex("vertex 2 1e0")])).mesh.faces) == 2
    for bad in ("vertex 0 0 0\n", text.replace("vertex 1 0 0", "vertex 1 zero 0")):
        with raises_code(MeshError, "unreadable"):
            load(write(tmp_path / "b.stl", bad))


# -- what other programs write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "area"),
    [
        (SQUARE + "vn 0 0 1\n" + UV + "f 1/1/1 2/2/1 3/3/1\nf 1 3 4\n", 1),  # as many slashes as if each word had one
        ("# C:\\models\\\n" + SQUARE + "f 1 2 3 4\n", 1),
        (SQUARE + "usemtl name\\\nf 1 2 3\nf 1 3 4\n", 1),
        (SQUARE + "g a\x85f 1 2 3\nf 1 2 3 4\n", 1),  # not a line end
        (SQUARE + "f 1 2 3 4 ", 1),
        (SQUARE.replace("\n", "\r ") + "f 1 2 3 4\r", 1),
        (SQUARE + "vt 0.5\nvt 1.#QNAN 0\nf 1/1 2/1 3/1 4/1\n", 1),
        (SQUARE + "v nan nan nan\nv 1e9 0 0\nf 1 2 3 4\n", 1),  # vertices of no face
    ],
)
def test_obj_files_of_other_programs(text: str, area: float, tmp_path: Path) -> None:
    mesh = load(write(tmp_path / "a.obj", text.encode("latin-1"))).mesh
    assert areas(mesh) == pytest.approx(area)


def test_names_of_materials_with_the_sign_of_comments(tmp_path: Path) -> None:
    halves(tmp_path / "t#1.png", GREEN, GREEN)
    write(tmp_path / "m.mtl", "# by hand\nnewmtl Material #25\nKd 1 1 1\nmap_Kd t#1.png\n")
    text = "mtllib m.mtl\nusemtl Material #25\n" + SQUARE + UV + "f 1/1 2/2 3/3 4/4\n"
    assert colors_of(write(tmp_path / "a.obj", text)) == {GREEN}


@pytest.mark.parametrize(
    ("kind", "values"),
    [("ushort", "255 128 0"), ("uint", "255 128 0"), ("float", "1.0001 0.5 0"), ("ushort", "65535 32896 0")],
)
def test_scales_of_colours(kind: str, values: str, tmp_path: Path) -> None:
    elements = "element vertex 3\n" + XYZ + properties("red", "green", "blue", kind=kind) + "element face 1\n" + FACES
    body = "\n".join([*(f"{x} {y} {z} {values}" for x, y, z in POINTS[:3]), "3 0 1 2", ""])
    assert colors_of(write(tmp_path / "a.ply", ply(elements, body))) == {(255, 128, 0)}
    assert colors_of(write(tmp_path / "a.off", off("OFF", CORNERS, ["4 0 1 2 3 255 0 0 1"]))) == {RED}
    assert colors_of(
        write(tmp_path / "b.off", off("NCOFF", [f"{c} 0 0 1 255 0 0 255" for c in CORNERS], ["4 0 1 2 3"]))
    ) == {RED}


def test_detail_far_from_a_vertex_that_no_face_uses(tmp_path: Path) -> None:
    elements = "element vertex 4\n" + properties("x", "y", "z", kind="double") + "element face 1\n" + FACES
    rows = ["500000 5000000 100", "500000.01 5000000 100", "500000 5000000.01 100", "0 0 0", "3 0 1 2", ""]
    mesh = load(write(tmp_path / "a.ply", ply(elements, "\n".join(rows)))).mesh
    assert areas(mesh) == pytest.approx(5e-5, rel=1e-3)


def test_images_of_formats_that_are_not_opened_are_noted(tmp_path: Path) -> None:
    """PostScript would start another program; a DDS with an unknown layout raises what is no error of files."""
    write(tmp_path / "m.mtl", "newmtl a\nKd 1 0 0\nmap_Kd t.png\n")
    path = write(tmp_path / "a.obj", "mtllib m.mtl\nusemtl a\n" + SQUARE + UV + "f 1/1 2/2 3/3 4/4\n")
    for content in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"DDS " + bytes([124, 0, 0, 0]) + b"\xff" * 120,
    ):
        write(tmp_path / "t.png", content)
        assert colors_of(path) == {RED} and any(
            word in load(path).mesh.notes[0] for word in ("not a readable image", "omitted")
        )


def test_vertices_of_an_obj_with_and_without_colours(tmp_path: Path) -> None:
    text = "v 0 0 0 1 0 0\nv 1 0 0\nv 0 1 0 0 0 1\nf 1 2 3\n"
    (tmp_path / "a.obj").write_text(text)
    mesh = load(tmp_path / "a.obj").mesh
    assert mesh.vertex_colors is not None
    assert mesh.vertex_colors.tolist() == [[255, 0, 0], CLAY.astype(int).tolist(), [0, 0, 255]]


@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_faces_without_a_place_are_left_out(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\nv {bad} 0 1\nf 1 2 3\nf 1 2 4\n")
    loaded = load(tmp_path / "a.obj")
    assert loaded.facts["faces"] == 1 and np.isfinite(loaded.mesh.vertices).all()
    assert loaded.mesh.notes == ("1 of 2 faces have a coordinate that is no number; rendered without them",)
