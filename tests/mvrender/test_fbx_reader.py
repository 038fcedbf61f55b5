"""FBX as text, made here: shape, colours, textures and pose."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from mesh_area import areas
from PIL import Image

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.mesh import Mesh

pytest.importorskip("ufbx")

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
SQUARE = "0,0,0,2,0,0,2,3,0,0,3,0"
U = "0,0,0,3,0,0,3,3,0,2,3,0,2,1,0,1,1,0,1,3,0,0,3,0"


def array(name: str, values: str) -> str:
    return f"{name}: *{values.count(',') + 1} {{\n a: {values}\n}}\n"


def layer(name: str, content: str, mapping: str = "ByPolygonVertex", reference: str = "IndexToDirect") -> str:
    return (
        f'{name}: 0 {{\nVersion: 101\nName: ""\nMappingInformationType: "{mapping}"\n'
        f'ReferenceInformationType: "{reference}"\n{content}}}\n'
    )


def geometry(vertices: str = SQUARE, polygons: str = "0,1,2,-4", layers: str = "", id: int = 100) -> str:
    content = array("Vertices", vertices) + array("PolygonVertexIndex", polygons) + "GeometryVersion: 124\n" + layers
    return f'Geometry: {id}, "Geometry::g", "Mesh" {{\n{content}}}\n'


def model(id: int = 200, kind: str = "Mesh", **properties: Any) -> str:
    rows = "".join(
        f'P: "{name.replace("_", " ")}", "{name.replace("_", " ")}", "", "A",{",".join(map(str, np.atleast_1d(value)))}\n'
        for name, value in properties.items()
    )
    return f'Model: {id}, "Model::m{id}", "{kind}" {{\nVersion: 232\nProperties70: {{\n{rows}}}\n}}\n'


def material(id: int, rgb: str) -> str:
    row = f'P: "DiffuseColor", "Color", "", "A",{rgb}\n'
    return f'Material: {id}, "Material::m{id}", "" {{\nVersion: 102\nShadingModel: "phong"\nProperties70: {{\n{row}}}\n}}\n'


def texture(id: int, name: str, relative: str) -> str:
    return (
        f'Texture: {id}, "Texture::t", "" {{\nType: "TextureVideoClip"\nVersion: 202\nTextureName: "Texture::t"\n'
        f'FileName: "{name}"\nRelativeFilename: "{relative}"\n}}\n'
    )


def fbx(path: Path, objects: str, connections: str, up: int = 1) -> Path:
    """`connections` are rows of `KIND child parent [property]`."""
    rows = ""
    for line in connections.split(";"):
        kind, child, parent, *prop = line.split()
        rows += f'C: "{kind}",{child},{parent}' + (f', "{prop[0]}"' if prop else "") + "\n"
    axes = f'P: "UpAxis", "int", "Integer", "",{up}\nP: "UpAxisSign", "int", "Integer", "",1\n'
    axes += f'P: "FrontAxis", "int", "Integer", "",{2 if up == 1 else 1}\nP: "FrontAxisSign", "int", "Integer", "",1\n'
    axes += 'P: "CoordAxis", "int", "Integer", "",0\nP: "CoordAxisSign", "int", "Integer", "",1\n'
    path.write_text(
        "; FBX 7.4.0 project file\nFBXHeaderExtension: {\nFBXHeaderVersion: 1003\nFBXVersion: 7400\n}\n"
        f"GlobalSettings: {{\nVersion: 1000\nProperties70: {{\n{axes}}}\n}}\n"
        f"Objects: {{\n{objects}}}\nConnections: {{\n{rows}}}\n"
    )
    return path


def colors_of(mesh: Mesh) -> set[tuple[int, ...]]:
    assert mesh.vertex_colors is not None
    return {tuple(color) for color in mesh.vertex_colors.tolist()}


@pytest.mark.parametrize(
    ("vertices", "polygons", "area"),
    [(SQUARE, "0,1,2,-4", 6), (U, "0,1,2,3,4,5,6,-8", 7), (SQUARE, "0,1,-3,0,2,-4", 6)],
)
def test_polygons(vertices: str, polygons: str, area: float, tmp_path: Path) -> None:
    path = fbx(tmp_path / "a.fbx", geometry(vertices, polygons) + model(), "OO 100 200;OO 200 0")
    assert areas(load(path).mesh) == pytest.approx(area)


@pytest.mark.parametrize(("up", "axis"), [(1, "+y"), (2, "+z")])
def test_nodes_and_the_up_axis_that_the_file_states(up: int, axis: Any, tmp_path: Path) -> None:
    """A child is placed in its parent; what is hidden is not drawn."""
    objects = (
        geometry() + model(200, Lcl_Translation=(10, 0, 0)) + model(201, "Null", Lcl_Scaling=(1, 2, 1)) + geometry(id=101)
        + model(202, Lcl_Scaling=(99, 99, 99), Visibility=0)
    )  # fmt: skip
    path = fbx(tmp_path / "a.fbx", objects, "OO 100 200;OO 200 201;OO 201 0;OO 101 202;OO 202 0", up)
    loaded = load(path)
    assert loaded.up == axis and len(loaded.mesh.faces) == 2
    extent = np.ptp(loaded.mesh.vertices, axis=0)
    np.testing.assert_allclose(extent, (2, 6, 0) if up == 1 else (2, 0, 6), atol=1e-5)
    assert load(path, up="+y").up == "+y"


def test_materials_of_faces_and_vertex_colours(tmp_path: Path) -> None:
    by_face = layer("LayerElementMaterial", array("Materials", "0,1"), "ByPolygon")
    objects = (
        geometry(polygons="0,1,-3,0,2,-4", layers=by_face) + model() + material(300, "1,0,0") + material(301, "0,0,1")
    )
    path = fbx(tmp_path / "a.fbx", objects, "OO 100 200;OO 200 0;OO 300 200;OO 301 200")
    assert colors_of(load(path).mesh) == {RED, BLUE}
    colors = layer("LayerElementColor", array("Colors", "0,1,0,1") + array("ColorIndex", "0,0,0,0"))
    path = fbx(tmp_path / "b.fbx", geometry(layers=colors) + model(), "OO 100 200;OO 200 0")
    assert colors_of(load(path).mesh) == {GREEN}
    path = fbx(tmp_path / "c.fbx", geometry() + model(), "OO 100 200;OO 200 0")
    assert load(path).mesh.vertex_colors is None


@pytest.mark.parametrize(
    ("name", "relative", "place"),
    [
        ("C:\\work\\maps\\t.png", "maps\\t.png", "maps/t.png"),
        ("C:\\work\\t.png", "..\\..\\t.png", "t.png"),
        ("/home/me/T.PNG", "", "t.png"),
    ],
)
def test_textures(name: str, relative: str, place: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4), GREEN).save(tmp_path / place)
    uv = layer("LayerElementUV", array("UV", "0,0,1,0,1,1,0,1") + array("UVIndex", "0,1,2,3"))
    objects = geometry(layers=uv) + model() + material(300, "1,0,0") + texture(400, name, relative)
    path = fbx(tmp_path / "a.fbx", objects, "OO 100 200;OO 200 0;OO 300 200;OP 400 300 DiffuseColor")
    loaded = load(path)
    assert [tuple(t[0, 0].tolist()) for t in loaded.mesh.textures] == [GREEN] and loaded.mesh.notes == ()
    assert loaded.mesh.uv is not None and sorted(map(tuple, loaded.mesh.uv.tolist()))[0] == (0, 0)
    (tmp_path / place).unlink()
    without = load(path).mesh
    assert colors_of(without) == {RED} and "rendered without it" in without.notes[0]


def test_embedded_textures(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), BLUE).save(stream, "PNG")
    content = base64.b64encode(stream.getvalue()).decode()
    video = (
        'Video: 500, "Video::v", "Clip" {\nType: "Clip"\nFilename: "t.png"\nRelativeFilename: "t.png"\n'
        f'Content: ,\n"{content}"\n}}\n'
    )
    uv = layer("LayerElementUV", array("UV", "0,0,1,0,1,1,0,1") + array("UVIndex", "0,1,2,3"))
    objects = geometry(layers=uv) + model() + material(300, "1,0,0") + texture(400, "t.png", "t.png") + video
    links = "OO 100 200;OO 200 0;OO 300 200;OP 400 300 DiffuseColor;OO 500 400"
    loaded = load(fbx(tmp_path / "a.fbx", objects, links))
    assert [tuple(t[0, 0].tolist()) for t in loaded.mesh.textures] == [BLUE] and loaded.references == ()


def test_damaged_fbx(tmp_path: Path) -> None:
    good = fbx(tmp_path / "a.fbx", geometry() + model(), "OO 100 200;OO 200 0").read_bytes()
    for content in (b"nothing", good[:200], b"Kaydara FBX Binary  \x00\x1a\x00" + b"\xff" * 100):
        (tmp_path / "b.fbx").write_bytes(content)
        with pytest.raises(MeshError) as error:
            load(tmp_path / "b.fbx")
        assert error.value.code in ("unreadable", "no_faces")
    with raises_code(MeshError, "no_faces"):
        load(fbx(tmp_path / "c.fbx", model(kind="Null"), "OO 200 0"))
