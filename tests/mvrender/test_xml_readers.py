"""3MF and DAE: what is on the plate or in the scene, with its colours, in files made here."""

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
from mvrender.shading import CLAY

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
CLAY_COLOR = tuple(CLAY.astype(int).tolist())


def face_colors(mesh: Mesh) -> set[tuple[int, ...]]:
    """Mean colour of each face, with the texture at its middle."""
    colors = np.tile(CLAY, (len(mesh.vertices), 1)) if mesh.vertex_colors is None else mesh.vertex_colors
    found = np.asarray(colors[mesh.faces].mean(axis=1), float)
    if mesh.face_texture is not None and mesh.uv is not None:
        for i in np.flatnonzero(mesh.face_texture >= 0):
            pixels = mesh.textures[mesh.face_texture[i]]
            u, v = mesh.uv[mesh.faces[i]].mean(axis=0) % 1
            found[i] *= pixels[int((1 - v) * len(pixels)) % len(pixels), int(u * pixels.shape[1])] / 255
    return {tuple(color) for color in np.rint(found).astype(int).tolist()}


def size(mesh: Mesh) -> list[float]:
    extent: list[float] = np.ptp(mesh.vertices[np.unique(mesh.faces)], axis=0).round(3).tolist()
    return extent


# -- 3MF -----------------------------------------------------------------------------------------------------------------

NAMESPACES = (
    'xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02" '
    'xmlns:m="http://schemas.microsoft.com/3dmanufacturing/material/2015/02" '
    'xmlns:p="http://schemas.microsoft.com/3dmanufacturing/production/2015/06"'
)
RELATION = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
TEXTURE = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dtexture"
POINTS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
FACES = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]


def mesh_xml(scale: tuple[float, float, float] = (1, 1, 1), properties: list[str] | None = None) -> str:
    """A tetrahedron."""
    vertices = "".join(f'<vertex x="{x * scale[0]}" y="{y * scale[1]}" z="{z * scale[2]}"/>' for x, y, z in POINTS)
    triangles = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {properties[i] if properties else ""}/>'
        for i, (a, b, c) in enumerate(FACES)
    )
    return f"<mesh><vertices>{vertices}</vertices><triangles>{triangles}</triangles></mesh>"


def model_xml(resources: str, items: str) -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><model unit="millimeter" {NAMESPACES} requiredextensions="">'
        f"<resources>{resources}</resources><build>{items}</build></model>"
    )


def package(
    path: Path, models: dict[str, str], start: str = "3D/3dmodel.model", more: dict[str, bytes] | None = None
) -> Path:
    kinds = "".join(
        f'<Default Extension="{suffix}" ContentType="{kind}"/>'
        for suffix, kind in (
            ("rels", "application/vnd.openxmlformats-package.relationships+xml"),
            ("model", "application/vnd.ms-package.3dmanufacturing-3dmodel+xml"),
            ("png", "image/png"),
        )
    )
    relations = "http://schemas.openxmlformats.org/package/2006/relationships"

    def linked(targets: dict[str, str]) -> str:
        rows = "".join(
            f'<Relationship Id="r{i}" Target="/{t}" Type="{k}"/>' for i, (t, k) in enumerate(targets.items())
        )
        return f'<?xml version="1.0" encoding="UTF-8"?><Relationships xmlns="{relations}">{rows}</Relationships>'

    folder, _, name = start.rpartition("/")
    with zipfile.ZipFile(path, "w") as archive:
        types = "http://schemas.openxmlformats.org/package/2006/content-types"
        archive.writestr(
            "[Content_Types].xml", f'<?xml version="1.0" encoding="UTF-8"?><Types xmlns="{types}">{kinds}</Types>'
        )
        archive.writestr("_rels/.rels", linked({start: RELATION}))
        others = {part: RELATION for part in models if part != start} | dict.fromkeys(more or {}, TEXTURE)
        if others:
            archive.writestr(f"{folder}/_rels/{name}.rels", linked(others))
        for part, text in models.items():
            archive.writestr(part, text)
        for part, content in (more or {}).items():
            archive.writestr(part, content)
    return path


def test_components_of_other_model_parts(tmp_path: Path) -> None:
    """An object is named by its path and id: both parts number their object 1, and one has components of its own."""
    other = model_xml(f'<object id="1" type="model">{mesh_xml((2, 1, 1))}</object>', "")
    nested = model_xml(
        f'<object id="1" type="model">{mesh_xml((1, 1, 3))}</object>'
        '<object id="2" type="model"><components>'
        '<component objectid="1"/><component objectid="1" transform="1 0 0 0 1 0 0 0 1 0 10 0"/></components></object>', "",
    )  # fmt: skip
    root = model_xml(
        '<object id="1" type="model"><components><component p:path="/3D/a.model" objectid="1"/>'
        '<component p:path="/3D/b.model" objectid="2" transform="1 0 0 0 1 0 0 0 1 20 0 0"/></components></object>',
        '<item objectid="1" transform="1 0 0 0 1 0 0 0 2 0 0 0"/>',
    )
    models = {"3D/3dmodel.model": root, "3D/a.model": other, "3D/b.model": nested}
    mesh = load(package(tmp_path / "a.3mf", models), up="+y").mesh
    assert len(mesh.faces) == 12 and size(mesh) == [21, 11, 6]


@pytest.mark.parametrize("start", ["3D/3dmodel.model", "3D/other.model", "parts/thing.model"])
def test_build_items_only_and_any_name_of_the_start_part(start: str, tmp_path: Path) -> None:
    resources = (
        f'<object id="1" type="model">{mesh_xml()}</object><object id="2" type="model">{mesh_xml((9, 9, 9))}</object>'
    )
    mesh = load(package(tmp_path / "a.3mf", {start: model_xml(resources, '<item objectid="1"/>')}, start)).mesh
    assert size(mesh) == [1, 1, 1]
    loaded = load(package(tmp_path / "b.3mf", {start: model_xml(resources, "")}, start))
    assert size(loaded.mesh) == [9, 9, 9] and "nothing is on the build plate" in loaded.mesh.notes[0]


def test_colours_of_3mf(tmp_path: Path) -> None:
    """Of triangles, of corners, of the object, and of base materials."""
    colors = '<m:colorgroup id="5"><m:color color="#FF0000"/><m:color color="#0000FFFF"/></m:colorgroup>'
    names = '<basematerials id="6"><base name="a" displaycolor="#00FF00"/><base name="b" displaycolor="#FF0000FF"/></basematerials>'
    given = ['pid="5" p1="0"', 'pid="5" p1="1"', 'pid="6" p1="0"', 'pid="5" p1="0" p2="1" p3="1"']

    def of(resources: str) -> Mesh:
        text = model_xml(resources, '<item objectid="1"/>')
        return load(package(tmp_path / "a.3mf", {"3D/3dmodel.model": text})).mesh

    mesh = of(f'{colors}{names}<object id="1" type="model">{mesh_xml(properties=given)}</object>')
    assert face_colors(mesh) == {RED, BLUE, GREEN, (85, 0, 170)}
    mesh = of(f'{names}<object id="1" pid="6" pindex="1" type="model">{mesh_xml()}</object>')
    assert face_colors(mesh) == {RED}
    mesh = of(
        f'{colors}<object id="1" pid="5" pindex="1" type="model">{mesh_xml(properties=["", given[0], "", ""])}</object>'
    )
    assert face_colors(mesh) == {BLUE, RED}
    assert of(f'<object id="1" type="model">{mesh_xml()}</object>').vertex_colors is None


def test_textures_of_3mf(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.array([[RED, GREEN], [BLUE, (9, 9, 9)]], np.uint8).repeat(8, 0).repeat(8, 1)).save(stream, "PNG")
    group = "".join(f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in ((0.25, 0.75), (0.75, 0.75), (0.25, 0.25)))
    resources = (
        '<m:texture2d id="7" path="/3D/t.png" contenttype="image/png"/>'
        f'<m:texture2dgroup id="8" texid="7">{group}</m:texture2dgroup>'
        '<object id="1" type="model">'
        + mesh_xml(properties=[f'pid="8" p1="{i}" p2="{i}" p3="{i}"' for i in (0, 1, 2)] + [""])
        + "</object>"
    )
    models = {"3D/3dmodel.model": model_xml(resources, '<item objectid="1"/>')}
    mesh = load(package(tmp_path / "a.3mf", models, more={"3D/t.png": stream.getvalue()})).mesh
    assert face_colors(mesh) == {RED, GREEN, BLUE, CLAY_COLOR}  # v points upwards


def test_a_3mf_that_is_not_valid_is_drawn_with_a_note(tmp_path: Path) -> None:
    degenerate = mesh_xml().replace("</triangles>", '<triangle v1="0" v2="0" v3="1"/></triangles>')
    text = model_xml(f'<object id="1" type="model">{degenerate}</object>', '<item objectid="1"/>')
    loaded = load(package(tmp_path / "a.3mf", {"3D/3dmodel.model": text}))
    assert size(loaded.mesh) == [1, 1, 1] and "not valid" in loaded.mesh.notes[0]


def test_damaged_3mf(tmp_path: Path) -> None:
    good = package(
        tmp_path / "a.3mf",
        {"3D/3dmodel.model": model_xml(f'<object id="1">{mesh_xml()}</object>', '<item objectid="1"/>')},
    )
    assert size(load(good).mesh) == [1, 1, 1]
    text = model_xml(
        '<object id="1"><components><component objectid="1"/></components></object>', '<item objectid="1"/>'
    )
    for content in (good.read_bytes()[:300], b"PK\x03\x04", b"no archive"):
        (tmp_path / "b.3mf").write_bytes(content)
        with raises_code(MeshError, "unreadable"):
            load(tmp_path / "b.3mf")
    for bad in (text, model_xml("", '<item objectid="4"/>'), "<model", ""):
        with pytest.raises(MeshError) as error:
            load(package(tmp_path / "c.3mf", {"3D/3dmodel.model": bad}))
        assert error.value.code in ("unreadable", "no_faces")


# -- DAE -----------------------------------------------------------------------------------------------------------------


def source(name: str, values: str, width: int = 3, kind: str = "float") -> str:
    n = len(values.split()) // width
    if kind == "name":
        return f'<source id="{name}"><Name_array id="{name}-a" count="{n}">{values}</Name_array></source>'
    parameters = '<param type="float"/>' * width if width < 16 else '<param name="TRANSFORM" type="float4x4"/>'
    array = f'<float_array id="{name}-a" count="{n * width}">{values}</float_array>'
    accessor = f'<accessor source="#{name}-a" count="{n}" stride="{width}">{parameters}</accessor>'
    return f'<source id="{name}">{array}<technique_common>{accessor}</technique_common></source>'


SQUARE = "0 0 0 2 0 0 2 2 0 0 2 0"


def geometry(name: str, primitives: str, positions: str = SQUARE, more: str = "") -> str:
    vertices = f'<vertices id="{name}-v"><input semantic="POSITION" source="#{name}-p"/></vertices>'
    mesh = f"{source(f'{name}-p', positions)}{more}{vertices}{primitives}"
    return f'<geometry id="{name}"><mesh>{mesh}</mesh></geometry>'


def polylist(name: str, p: str, vcount: str, material: str = "", more: str = "") -> str:
    link = f' material="{material}"' if material else ""
    head = f'<polylist count="1"{link}><input semantic="VERTEX" source="#{name}-v" offset="0"/>{more}'
    return f"{head}<vcount>{vcount}</vcount><p>{p}</p></polylist>"


def effect(name: str, diffuse: str, parameters: str = "") -> str:
    shader = f'<technique sid="c"><lambert><diffuse>{diffuse}</diffuse></lambert></technique>'
    return (
        f'<effect id="{name}-fx"><profile_COMMON>{parameters}{shader}</profile_COMMON></effect>',
        f'<material id="{name}"><instance_effect url="#{name}-fx"/></material>',
    )  # type: ignore[return-value]


def bound(**symbols: str) -> str:
    links = "".join(f'<instance_material symbol="{s}" target="#{t}"/>' for s, t in symbols.items())
    return f"<bind_material><technique_common>{links}</technique_common></bind_material>"


def dae(path: Path, geometries: str, nodes: str, effects: Any = (), images: str = "", controllers: str = "") -> Path:
    fx, materials = "".join(e[0] for e in effects), "".join(e[1] for e in effects)
    path.write_text(
        '<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">'
        "<asset><up_axis>Y_UP</up_axis></asset>"
        f"<library_images>{images}</library_images><library_effects>{fx}</library_effects>"
        f"<library_materials>{materials}</library_materials><library_geometries>{geometries}</library_geometries>"
        f"<library_controllers>{controllers}</library_controllers>"
        f'<library_visual_scenes><visual_scene id="s">{nodes}</visual_scene></library_visual_scenes>'
        '<scene><instance_visual_scene url="#s"/></scene></COLLADA>'
    )
    return path


def colored(name: str, rgb: str) -> Any:
    return effect(name, f"<color>{rgb} 1</color>")


U = "0 0 0 3 0 0 3 3 0 2 3 0 2 1 0 1 1 0 1 3 0 0 3 0"
INPUT = '<input semantic="VERTEX" source="#g-v" offset="0"/>'


@pytest.mark.parametrize(
    ("positions", "primitives", "area"),
    [
        (SQUARE, f'<triangles count="2">{INPUT}<p>0 1 2 0 2 3</p></triangles>', 4),
        (SQUARE, f"<tristrips>{INPUT}<p>0 1 3 2</p></tristrips>", 4),
        (SQUARE, f"<trifans>{INPUT}<p>0 1 2 3</p><p>0 1 2</p></trifans>", 6),
        (U, polylist("g", "0 1 2 3 4 5 6 7", "8"), 7),
        (U, f"<polygons>{INPUT}<p>0 1 2 3 4 5 6 7</p></polygons>", 7),
        (
            SQUARE + " .5 .5 0 1 .5 0 1 1 0 .5 1 0",
            f"<polygons>{INPUT}<ph><p>0 1 2 3</p><h>4 5 6 7</h></ph></polygons>", 3.75,
        ),
        (SQUARE.replace("2", "2,0"), polylist("g", "0 1 2 3", "4"), 4),
        (SQUARE, f"<lines>{INPUT}<p>0 1</p></lines>" + polylist("g", "0 1 2 3", "4"), 4),
    ],
)  # fmt: skip
def test_primitives_of_dae(positions: str, primitives: str, area: float, tmp_path: Path) -> None:
    node = '<node><instance_geometry url="#g"/></node>'
    loaded = load(dae(tmp_path / "a.dae", geometry("g", primitives, positions), node))
    assert areas(loaded.mesh) == pytest.approx(area)
    assert any("commas" in note for note in loaded.mesh.notes) == ("," in positions)
    assert any("lines" in note for note in loaded.mesh.notes) == ("<lines>" in primitives)


def test_transforms_and_instances_of_dae(tmp_path: Path) -> None:
    nodes = (
        '<node><translate>10 0 0</translate><rotate>0 0 1 90</rotate><scale>1 3 1</scale><instance_geometry url="#g"/></node>'
        '<node><matrix>1 0 0 0  0 1 0 20  0 0 1 0  0 0 0 1</matrix><instance_node url="#n"/></node>'
        '<node id="n"><instance_geometry url="#g"/><instance_geometry url="#gone"/></node>'
    )
    loaded = load(dae(tmp_path / "a.dae", geometry("g", polylist("g", "0 1 2 3", "4")), nodes))
    assert len(loaded.mesh.faces) == 6
    points = loaded.mesh.vertices[loaded.mesh.faces].reshape(-1, 3)
    np.testing.assert_allclose(points.max(axis=0) - points.min(axis=0), (10 - 0, 22, 0), atol=1e-4)
    assert any("'gone' is missing" in note for note in loaded.mesh.notes)


def test_instances_of_one_geometry_have_materials_of_their_own(tmp_path: Path) -> None:
    nodes = "".join(
        f'<node><translate>{x} 0 0</translate><instance_geometry url="#g">{bound(m=name)}</instance_geometry></node>'
        for x, name in ((0, "red"), (10, "blue"), (20, "red"))
    )
    primitive = polylist("g", "0 1 2 3", "4").replace("<polylist", '<polylist material="m"', 1)
    effects = (colored("red", "1 0 0"), colored("blue", "0 0 1"))
    mesh = load(dae(tmp_path / "a.dae", geometry("g", primitive), nodes, effects)).mesh
    assert mesh.vertex_colors is not None
    by_place = {round(float(mesh.vertices[face].mean(axis=0)[0])): mesh.vertex_colors[face[0]] for face in mesh.faces}
    assert [tuple(by_place[x].tolist()) for x in sorted(by_place)] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]


def test_nodes_that_double_one_another_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvrender.readers.dae._MOST_NODES", 5000)
    double = '<instance_node url="#n{0}"/><instance_node url="#n{0}"/>'
    nodes = "".join(f'<node id="n{n}">{double.format(n + 1)}</node>' for n in range(40)) + '<node id="n40"/>'
    with raises_code(MeshError, "too_large", "5,000"):
        load(dae(tmp_path / "a.dae", geometry("g", polylist("g", "0 1 2 3", "4")), nodes))


def test_materials_of_dae(tmp_path: Path) -> None:
    """A missing material leaves its geometry; what an exporter forgot to bind is found by its name."""
    primitives = polylist("g", "0 1 2", "3", "a") + polylist("g", "0 2 3", "3", "b")
    node = '<node><instance_geometry url="#g">{}</instance_geometry></node>'
    effects = [colored("red", "1 0 0"), colored("blue", "0 0 1")]
    both = dae(tmp_path / "a.dae", geometry("g", primitives), node.format(bound(a="red", b="blue")), effects)
    assert face_colors(load(both).mesh) == {RED, BLUE}
    one = load(dae(tmp_path / "b.dae", geometry("g", primitives), node.format(bound(a="red", b="gone")), effects))
    assert face_colors(one.mesh) == {RED, CLAY_COLOR} and any("'gone' is missing" in note for note in one.mesh.notes)
    named = geometry("g", primitives.replace('"a"', '"red"').replace('"b"', '"blue"'))
    assert face_colors(load(dae(tmp_path / "c.dae", named, node.format(""), effects)).mesh) == {RED, BLUE}


@pytest.mark.parametrize(
    "name", ["t.png", "file:///C:/maps/t.png", "file:///home/me/t.png", "file://localhost/maps/T.PNG", "./t.png"]
)
def test_textures_of_dae(name: str, tmp_path: Path) -> None:
    """Through sampler and surface, with the texture coordinates that the material is bound to."""
    Image.fromarray(np.array([[RED, GREEN]], np.uint8).repeat(8, 0).repeat(8, 1)).save(tmp_path / "t.png")
    parameters = (
        '<newparam sid="f"><surface type="2D"><init_from>img</init_from></surface></newparam>'
        '<newparam sid="s"><sampler2D><source>f</source><wrap_s>CLAMP</wrap_s></sampler2D></newparam>'
    )
    paint = effect("paint", '<texture texture="s" texcoord="UV1"/>', parameters)
    first, second = source("uv0", ".25 .5", 2), source("uv1", "1.75 .5", 2)
    inputs = (
        '<input semantic="TEXCOORD" source="#uv0" offset="1" set="0"/>'
        '<input semantic="TEXCOORD" source="#uv1" offset="1" set="1"/>'
    )
    shape = geometry("g", polylist("g", "0 0 1 0 2 0 3 0", "4", "a", inputs), more=first + second)
    link = (
        '<instance_material symbol="a" target="#paint">'
        '<bind_vertex_input semantic="UV1" input_semantic="TEXCOORD" input_set="1"/>'
    )
    link = f"<bind_material><technique_common>{link}</instance_material></technique_common></bind_material>"
    image = f'<image id="img"><init_from>{name}</init_from></image>'
    node = f'<node><instance_geometry url="#g">{link}</instance_geometry></node>'
    loaded = load(dae(tmp_path / "a.dae", shape, node, [paint], image))
    assert face_colors(loaded.mesh) == {GREEN} and loaded.mesh.notes == ()


def test_vertex_colours_of_dae(tmp_path: Path) -> None:
    colors = source("c", "1 0 0 0 0 1", 3)
    more = '<input semantic="COLOR" source="#c" offset="1"/>'
    shape = geometry(
        "g", polylist("g", "0 0 1 0 2 0", "3", "", more) + polylist("g", "0 1 2 1 3 1", "3", "", more), more=colors
    )
    assert face_colors(load(dae(tmp_path / "a.dae", shape, '<node><instance_geometry url="#g"/></node>')).mesh) == {
        RED,
        BLUE,
    }


def skin(weights: bool = True) -> str:
    inverse = "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1  1 0 0 -1 0 1 0 0 0 0 1 0 0 0 0 1"
    joints = source("j", "left right", 1, "name") + source("i", inverse, 16) + source("w", "1 0.5", 1)
    bound_to = '<joints><input semantic="JOINT" source="#j"/><input semantic="INV_BIND_MATRIX" source="#i"/></joints>'
    shares = (
        '<vertex_weights count="4"><input semantic="JOINT" source="#j" offset="0"/>'
        '<input semantic="WEIGHT" source="#w" offset="1"/><vcount>1 1 2 1</vcount><v>0 0  1 0  0 1 1 1  -1 0</v></vertex_weights>'
    )
    shape = "<bind_shape_matrix>1 0 0 0 0 1 0 0 0 0 1 5 0 0 0 1</bind_shape_matrix>"
    return (
        f'<controller id="k"><skin source="#g">{shape}{joints}{bound_to}{shares if weights else ""}</skin></controller>'
    )


def test_skins_of_dae(tmp_path: Path) -> None:
    """In the pose of the joints, wherever the mesh's node is; without weights in the bind shape at the node."""
    node = (
        '<node><scale>9 9 9</scale><instance_controller url="#k"><skeleton>#root</skeleton></instance_controller></node>'
        '<node id="root" sid="left"><node sid="right"><translate>7 0 0</translate></node></node>'
    )
    shape = geometry("g", polylist("g", "0 1 2 3", "4"))
    points = load(dae(tmp_path / "a.dae", shape, node, controllers=skin())).mesh.vertices.astype(float)
    # Joint 1 moves by 6; the third vertex goes half of it, the fourth belongs to no joint.
    np.testing.assert_allclose(points - points[0], [(0, 0, 0), (8, 0, 0), (5, 2, 0), (0, 2, 0)], atol=1e-5)
    alone = node.replace('sid="right"', 'sid="other"')
    assert size(load(dae(tmp_path / "b.dae", shape, alone, controllers=skin())).mesh) == [18, 18, 0]
    assert size(load(dae(tmp_path / "c.dae", shape, node, controllers=skin(weights=False))).mesh) == [18, 18, 0]


@pytest.mark.parametrize(("method", "expected"), [("RELATIVE", [4, 4, 0]), ("NORMALIZED", [3, 3, 0])])
def test_morphs_of_dae(method: str, expected: list[float], tmp_path: Path) -> None:
    shapes = geometry("g", polylist("g", "0 1 2 3", "4")) + geometry(
        "t", polylist("t", "0 1 2 3", "4"), SQUARE.replace("2", "4")
    )
    targets = (
        '<targets><input semantic="MORPH_TARGET" source="#n"/><input semantic="MORPH_WEIGHT" source="#w"/></targets>'
    )
    names = source("n", "t", 1, "name")
    morph = f'<controller id="k"><morph source="#g" method="{method}">{names}{source("w", "0.5", 1)}{targets}</morph></controller>'
    node = '<node><instance_controller url="#k"/></node>'
    assert size(load(dae(tmp_path / "a.dae", shapes, node, controllers=morph)).mesh) == expected


def test_damaged_dae(tmp_path: Path) -> None:
    shape, node = geometry("g", polylist("g", "0 1 2 3", "4")), '<node id="n"><instance_geometry url="#g"/></node>'
    assert load(dae(tmp_path / "a.dae", shape, node)).facts["faces"] == 2
    for bad, code in (
        (shape.replace("0 1 2 3", "0 1 2 9"), "bad_indices"),
        (shape.replace("<vcount>4", "<vcount>9"), "unreadable"),
        (shape.replace("2 0 0", "2 x 0"), "unreadable"),
    ):
        with raises_code(MeshError, code):
            load(dae(tmp_path / "b.dae", bad, node))
    loop = '<node id="n"><instance_node url="#n"/></node>'
    with raises_code(MeshError, "unreadable", "nested"):
        load(dae(tmp_path / "c.dae", shape, loop))
    # Entities are not expanded, and no other file is read.
    text = (tmp_path / "a.dae").read_text()
    (tmp_path / "secret.txt").write_text(SQUARE)
    head = f'<!DOCTYPE COLLADA [<!ENTITY e SYSTEM "file://{tmp_path}/secret.txt">]><COLLADA'
    (tmp_path / "d.dae").write_text(text.replace("<COLLADA", head, 1).replace(SQUARE, "&e;"))
    with raises_code(MeshError, "bad_indices"):
        load(tmp_path / "d.dae")
