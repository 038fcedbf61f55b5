"""USD as text, crate and package, made here: shape, colours, textures and visibility."""

from __future__ import annotations

import io
import zipfile
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

pytest.importorskip("pxr")

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
U = "(0,0,0),(3,0,0),(3,3,0),(2,3,0),(2,1,0),(1,1,0),(1,3,0),(0,3,0)"
SQUARE = "(0,0,0),(2,0,0),(2,3,0),(0,3,0)"


def mesh(name: str = "m", points: str = SQUARE, counts: str = "4", indices: str = "0,1,2,3", more: str = "") -> str:
    return (
        f'def Mesh "{name}" {{\n point3f[] points = [{points}]\n int[] faceVertexCounts = [{counts}]\n'
        f" int[] faceVertexIndices = [{indices}]\n{more}\n}}\n"
    )


def material(name: str, diffuse: str, more: str = "") -> str:
    return (
        f'def Material "{name}" {{\n token outputs:surface.connect = </Looks/{name}/s.outputs:surface>\n'
        f' def Shader "s" {{\n uniform token info:id = "UsdPreviewSurface"\n {diffuse}\n token outputs:surface\n }}\n{more}\n}}\n'
    )


def usda(path: Path, body: str, looks: str = "", up: str = "Y") -> Path:
    head = f'#usda 1.0\n(\n upAxis = "{up}"\n)\n'
    path.write_text(head + body + (f'def Scope "Looks" {{\n{looks}}}\n' if looks else ""))
    return path


def colors_of(found: Mesh) -> set[tuple[int, ...]]:
    assert found.vertex_colors is not None
    return {tuple(color) for color in found.vertex_colors.tolist()}


BOUND = "rel material:binding = </Looks/{}>\n uniform token[] primvars:x = []"


@pytest.mark.parametrize(("up", "axis"), [("Y", "+y"), ("Z", "+z")])
def test_hierarchies_visibility_and_the_up_axis(up: str, axis: Any, tmp_path: Path) -> None:
    body = (
        'def Xform "a" {\n double3 xformOp:translate = (10,0,0)\n uniform token[] xformOpOrder = ["xformOp:translate"]\n'
        + mesh(points=U, counts="8", indices="0,1,2,3,4,5,6,7")
        + 'def Xform "b" {\n double3 xformOp:scale = (1,2,1)\n uniform token[] xformOpOrder = ["xformOp:scale"]\n'
        + mesh() + "}\n}\n"
        + mesh("hidden", more='token visibility = "invisible"')
        + mesh("guide", more='uniform token purpose = "guide"')
    )  # fmt: skip
    loaded = load(usda(tmp_path / "a.usda", body, up=up))
    assert loaded.up == axis and areas(loaded.mesh) == pytest.approx(7 + 12)
    np.testing.assert_allclose(np.ptp(loaded.mesh.vertices, axis=0), (3, 6, 0) if up == "Y" else (3, 0, 6), atol=1e-5)


def test_colours_of_faces_vertices_and_materials(tmp_path: Path) -> None:
    by_face = 'color3f[] primvars:displayColor = [(1,0,0),(0,0,1)] (interpolation = "uniform")'
    loaded = load(usda(tmp_path / "a.usda", mesh(counts="3,3", indices="0,1,2,0,2,3", more=by_face)))
    assert colors_of(loaded.mesh) == {RED, BLUE}
    subset = (
        'def GeomSubset "s" {\n uniform token elementType = "face"\n uniform token familyName = "materialBind"\n'
        " int[] indices = [1]\n"
    )
    more = "rel material:binding = </Looks/red>\n" + subset + " rel material:binding = </Looks/green>\n}\n"
    looks = material("red", "color3f inputs:diffuseColor = (1,0,0)") + material(
        "green", "color3f inputs:diffuseColor = (0,1,0)"
    )
    loaded = load(usda(tmp_path / "b.usda", mesh(counts="3,3", indices="0,1,2,0,2,3", more=more), looks))
    assert colors_of(loaded.mesh) == {RED, GREEN}
    assert load(usda(tmp_path / "c.usda", mesh())).mesh.vertex_colors is None


def textured(name: str) -> tuple[str, str]:
    """A mesh, and the look that it is bound to."""
    uv = 'texCoord2f[] primvars:uvs = [(0,0),(1,0),(1,1),(0,1)] (interpolation = "faceVarying")\n rel material:binding = </Looks/t>'
    nodes = (
        f'def Shader "tex" {{\n uniform token info:id = "UsdUVTexture"\n asset inputs:file = @{name}@\n'
        ' token inputs:wrapS = "repeat"\n'
        " float2 inputs:st.connect = </Looks/t/reader.outputs:result>\n float3 outputs:rgb\n}\n"
        'def Shader "reader" {\n uniform token info:id = "UsdPrimvarReader_float2"\n string inputs:varname = "uvs"\n'
        " float2 outputs:result\n}\n"
    )
    return mesh(more=uv), material("t", "color3f inputs:diffuseColor.connect = </Looks/t/tex.outputs:rgb>", nodes)


def test_textures_beside_the_file_and_in_a_package(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), BLUE).save(tmp_path / "t.png")
    loaded = load(usda(tmp_path / "a.usda", *textured("./t.png")))
    assert tuple(loaded.mesh.textures[0][0, 0].tolist()) == BLUE and loaded.references == (str(tmp_path / "t.png"),)
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), GREEN).save(stream, "PNG")
    with zipfile.ZipFile(tmp_path / "b.usdz", "w", zipfile.ZIP_STORED) as package:
        package.write(usda(tmp_path / "x.usda", *textured("maps/t.png")), "model.usda")
        package.writestr("maps/t.png", stream.getvalue())
    loaded = load(tmp_path / "b.usdz")
    assert (
        tuple(loaded.mesh.textures[0][0, 0].tolist()) == GREEN and loaded.references == () and loaded.mesh.notes == ()
    )


def test_crate_files(tmp_path: Path) -> None:
    from pxr import Usd

    Usd.Stage.Open(str(usda(tmp_path / "a.usda", mesh()))).Export(str(tmp_path / "b.usdc"))
    (tmp_path / "c.usd").write_bytes((tmp_path / "b.usdc").read_bytes())
    assert areas(load(tmp_path / "b.usdc").mesh) == areas(load(tmp_path / "c.usd").mesh) == pytest.approx(6)


def test_what_is_not_rendered_is_noted_and_other_layers_are_not_read(tmp_path: Path) -> None:
    other = usda(tmp_path / "other.usda", mesh("secret"))
    body = mesh() + 'def Sphere "s" {\n}\n' + f'def Xform "r" (references = @{other}@</secret>) {{\n}}\n'
    with raises_code(MeshError, "outside_reference"):
        load(usda(tmp_path / "a.usda", body))
    loaded = load(
        usda(
            tmp_path / "b.usda",
            mesh() + 'def Sphere "s" {\n}\n' + 'def Xform "r" (references = @./other.usda@</secret>) {\n}\n',
        )
    )
    assert areas(loaded.mesh) == pytest.approx(6) and any("Sphere" in note for note in loaded.mesh.notes)


@pytest.mark.parametrize("name", ["a.usda", "a.usdc", "a.usd", "a.usdz"])
def test_damaged_usd(name: str, tmp_path: Path) -> None:
    for content in (b"nothing", b"#usda 1.0\ndef Mesh {", b"PXR-USDC" + b"\xff" * 200, b"PK\x03\x04"):
        (tmp_path / name).write_bytes(content)
        with raises_code(MeshError, "unreadable"):
            load(tmp_path / name)
    with raises_code(MeshError, "bad_indices"):
        load(usda(tmp_path / "b.usda", mesh(indices="0,1,2,9")))
