"""The same object in every format that can hold it, written here without the libraries that read it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from mvrender.glb import to_glb
from mvrender.mesh import Mesh

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Twin:
    """An object: triangles, and vertex colours, a texture or a colour for each face.

    Attributes:
        name: of its files.
        vertices: (n, 3), +Y up.
        faces: (m, 3).
        colors: (n, 3) bytes, or None.
        face_colors: (m, 3) bytes, or None.
        uv: (n, 2), or None.
        image: of the texture, or None.
        child: (4, 4) transform of a second copy below the first, whose own transform is `PARENT`; or None.
    """

    name: str
    vertices: Array
    faces: NDArray[np.int64]
    colors: NDArray[np.uint8] | None = None
    face_colors: NDArray[np.uint8] | None = None
    uv: Array | None = None
    image: Image.Image | None = None
    child: Array | None = None


PARENT = trimesh.transformations.compose_matrix(scale=(1, 2, 1), angles=(0, 0.5, 0), translate=(3, 0, 0))


def twins() -> list[Twin]:
    """A ball with vertex colours, a textured box, a box of two colours, and a hierarchy with transforms."""
    ball = trimesh.creation.icosphere(3)
    shades = np.rint(127.5 + 127.5 * np.sin(3 * ball.vertices + (0, 1, 2))).astype(np.uint8)
    box = trimesh.creation.box((1, 2, 3))
    corners = box.vertices[box.faces.ravel()]
    own = np.arange(len(corners)).reshape(-1, 3)
    uv = np.column_stack([corners[:, 2] / 3 + 0.5, corners[:, 1] / 2 + 0.5])
    pattern = np.kron(np.random.default_rng(0).integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    two = np.where(np.arange(len(own))[:, None] % 4 < 2, [[255, 0, 0]], [[0, 0, 255]]).astype(np.uint8)
    cone = trimesh.creation.cone(0.5, 1.0)
    child = trimesh.transformations.compose_matrix(scale=(0.5, 0.5, 2), angles=(1, 0, 0), translate=(0, 1, 1))
    return [
        Twin("vertex colours", ball.vertices * (1, 1.5, 0.7), np.asarray(ball.faces), colors=shades),
        Twin("texture", corners, own, uv=uv, image=Image.fromarray(pattern)),
        Twin("two materials", corners, own, face_colors=two),
        Twin("hierarchy", np.asarray(cone.vertices), np.asarray(cone.faces), child=child),
    ]


def placed(twin: Twin) -> tuple[Array, NDArray[np.int64]]:
    """Vertices and faces of all copies, after their transforms."""
    if twin.child is None:
        return twin.vertices, twin.faces
    first, second = (trimesh.transform_points(twin.vertices, m) for m in (PARENT, PARENT @ twin.child))
    return np.concatenate([first, second]), np.concatenate([twin.faces, twin.faces + len(first)])


def files(twin: Twin, folder: Path) -> Iterator[Path]:
    """Write a twin in every format that can hold it; the first is GLB."""
    for suffix, write in _WRITERS.items():
        path = folder / f"twin{suffix}"
        if write(twin, path):
            yield path


def _rows(values: Array | NDArray[np.int64], prefix: str = "") -> str:
    return "".join(f"{prefix}{' '.join(map(str, row))}\n" for row in np.asarray(values).tolist())


def _glb(twin: Twin, path: Path) -> bool:
    vertices, faces = placed(twin)
    colors, face_texture, uv = twin.colors, None, None
    textures: tuple[NDArray[np.uint8], ...] = ()
    if twin.face_colors is not None:
        colors = np.repeat(twin.face_colors, 3, axis=0)
    if twin.image is not None and twin.uv is not None:
        textures, face_texture, uv = (
            (np.asarray(twin.image),),
            np.zeros(len(faces), np.int32),
            twin.uv.astype(np.float32),
        )
    mesh = Mesh(vertices.astype(np.float32), faces.astype(np.int32), colors, uv, face_texture, textures)
    path.write_bytes(to_glb(mesh))
    return True


def _obj(twin: Twin, path: Path) -> bool:
    vertices, faces = placed(twin)
    text = "mtllib twin.mtl\n"
    text += _rows(vertices if twin.colors is None else np.column_stack([vertices, twin.colors / 255]), "v ")
    library = ""
    if twin.image is not None and twin.uv is not None:
        twin.image.save(path.with_name("twin.png"))
        library = "newmtl a\nKd 1 1 1\nmap_Kd twin.png\n"
        text += _rows(twin.uv, "vt ") + "usemtl a\n"
        text += "".join(f"f {' '.join(f'{i}/{i}' for i in face)}\n" for face in (faces + 1).tolist())
    elif twin.face_colors is not None:
        for i, color in enumerate(np.unique(twin.face_colors, axis=0)):
            library += f"newmtl m{i}\nKd {' '.join(map(str, (color / 255).tolist()))}\n"
            text += f"usemtl m{i}\n" + _rows(faces[(twin.face_colors == color).all(axis=1)] + 1, "f ")
    else:
        text += _rows(faces - len(vertices), "f ")  # relative
    path.with_suffix(".mtl").write_text(library)
    path.write_text(text)
    return True


def _ply(twin: Twin, path: Path) -> bool:
    vertices, faces = placed(twin)
    columns = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    parts: list[NDArray[np.generic]] = [vertices[:, i] for i in range(3)]
    if twin.colors is not None:
        columns += [(name, "u1") for name in ("red", "green", "blue")]
        parts += [twin.colors[:, i] for i in range(3)]
    if twin.uv is not None:
        columns += [("s", "<f4"), ("t", "<f4")]
        parts += [twin.uv[:, i] for i in range(2)]
    rows = np.rec.fromarrays(parts, dtype=columns)
    kinds = {"<f4": "float", "u1": "uchar"}
    head = "ply\nformat binary_little_endian 1.0\n"
    if twin.image is not None:
        twin.image.save(path.with_name("twin.png"))
        head += "comment TextureFile twin.png\n"
    head += f"element vertex {len(vertices)}\n" + "".join(f"property {kinds[k]} {n}\n" for n, k in columns)
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
    face_kind = [("n", "u1"), ("i", "<i4", 3)]
    if twin.face_colors is not None:
        head += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        face_kind.append(("c", "u1", 3))
    table = np.zeros(len(faces), face_kind)
    table["n"], table["i"] = 3, faces
    if twin.face_colors is not None:
        table["c"] = twin.face_colors
    path.write_bytes(head.encode() + b"end_header\n" + rows.tobytes() + table.tobytes())
    return True


def _off(twin: Twin, path: Path) -> bool:
    if twin.image is not None:
        return False
    vertices, faces = placed(twin)
    table = vertices if twin.colors is None else np.column_stack([vertices, twin.colors])
    rows = [f"3 {' '.join(map(str, face))}" for face in faces.tolist()]
    if twin.face_colors is not None:
        rows = [
            f"{row} {' '.join(map(str, color))}" for row, color in zip(rows, twin.face_colors.tolist(), strict=True)
        ]
    head = "COFF" if twin.colors is not None else "OFF"
    path.write_text(f"{head}\n{len(vertices)} {len(faces)} 0\n{_rows(table)}" + "\n".join(rows) + "\n")
    return True


def _z_up(vertices: Array) -> Array:
    return vertices[:, [0, 2, 1]] * (1, -1, 1)


def _stl(twin: Twin, path: Path) -> bool:
    if twin.image is not None or twin.colors is not None:
        return False
    vertices, faces = placed(twin)
    table = np.zeros(len(faces), [("n", "<f4", 3), ("v", "<f4", (3, 3)), ("a", "<u2")])
    table["v"] = _z_up(vertices)[faces]
    if twin.face_colors is not None:
        r, g, b = (twin.face_colors.astype(np.uint16) >> 3).T
        table["a"] = 1 << 15 | r << 10 | g << 5 | b
    path.write_bytes(bytes(80) + struct.pack("<I", len(faces)) + table.tobytes())
    return True


def _3mf(twin: Twin, path: Path) -> bool:
    faces = twin.faces
    resources, more = "", {}
    attributes = [""] * len(faces)
    if twin.colors is not None:
        colors = "".join(f'<m:color color="#{r:02X}{g:02X}{b:02X}"/>' for r, g, b in twin.colors.tolist())
        resources = f'<m:colorgroup id="5">{colors}</m:colorgroup>'
        attributes = [f'pid="5" p1="{a}" p2="{b}" p3="{c}"' for a, b, c in faces.tolist()]
    elif twin.face_colors is not None:
        unique, which = np.unique(twin.face_colors, axis=0, return_inverse=True)
        bases = "".join(f'<base name="m" displaycolor="#{r:02X}{g:02X}{b:02X}"/>' for r, g, b in unique.tolist())
        resources = f'<basematerials id="5">{bases}</basematerials>'
        attributes = [f'pid="5" p1="{i}"' for i in which.ravel().tolist()]
    elif twin.image is not None and twin.uv is not None:
        stream = io.BytesIO()
        twin.image.save(stream, "PNG")
        more["3D/t.png"] = stream.getvalue()
        coordinates = "".join(f'<m:tex2coord u="{u}" v="{v}"/>' for u, v in twin.uv.tolist())
        resources = '<m:texture2d id="4" path="/3D/t.png" contenttype="image/png"/>'
        resources += f'<m:texture2dgroup id="5" texid="4">{coordinates}</m:texture2dgroup>'
        attributes = [f'pid="5" p1="{a}" p2="{b}" p3="{c}"' for a, b, c in faces.tolist()]
    points = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in twin.vertices.tolist())
    triangles = "".join(
        f'<triangle v1="{a}" v2="{b}" v3="{c}" {given}/>'
        for (a, b, c), given in zip(faces.tolist(), attributes, strict=True)
    )
    mesh = f"<mesh><vertices>{points}</vertices><triangles>{triangles}</triangles></mesh>"
    resources += f'<object id="1" type="model">{mesh}</object>'
    upright = np.array([(1, 0, 0, 0), (0, 0, -1, 0), (0, 1, 0, 0), (0, 0, 0, 1)], float)
    root, item = 1, upright
    if twin.child is not None:
        second = f'<component objectid="1" {_3mf_matrix(twin.child)}/>'
        resources += f'<object id="2" type="model"><components><component objectid="1"/>{second}</components></object>'
        root, item = 2, upright @ PARENT
    _write_3mf(path, resources, f'<item objectid="{root}" {_3mf_matrix(item)}/>', more)
    return True


def _3mf_matrix(matrix: Array) -> str:
    return f'transform="{" ".join(map(str, matrix[:3].T.ravel().tolist()))}"'


def _write_3mf(path: Path, resources: str, items: str, more: dict[str, bytes]) -> None:
    schema = "http://schemas.microsoft.com/3dmanufacturing"
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    model = (
        f'{head}<model unit="millimeter" xmlns="{schema}/core/2015/02" xmlns:m="{schema}/material/2015/02">'
        f"<resources>{resources}</resources><build>{items}</build></model>"
    )
    package = "http://schemas.openxmlformats.org/package/2006"
    kinds = {
        "rels": "application/vnd.openxmlformats-package.relationships+xml",
        "model": "application/vnd.ms-package.3dmanufacturing-3dmodel+xml",
        "png": "image/png",
    }
    types = "".join(f'<Default Extension="{suffix}" ContentType="{kind}"/>' for suffix, kind in kinds.items())

    def link(target: str, kind: str) -> str:
        row = f'<Relationship Id="r" Target="/{target}" Type="{kind}"/>'
        return f'{head}<Relationships xmlns="{package}/relationships">{row}</Relationships>'

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", f'{head}<Types xmlns="{package}/content-types">{types}</Types>')
        archive.writestr("_rels/.rels", link("3D/3dmodel.model", f"{schema}/2013/01/3dmodel"))
        archive.writestr("3D/3dmodel.model", model)
        for name, content in more.items():
            archive.writestr("3D/_rels/3dmodel.model.rels", link(name, f"{schema}/2013/01/3dtexture"))
            archive.writestr(name, content)


def _dae(twin: Twin, path: Path) -> bool:
    def source(name: str, values: Array, width: int) -> str:
        numbers = " ".join(map(str, np.asarray(values, float).ravel().tolist()))
        parameters = '<param type="float"/>' * width
        accessor = f'<accessor source="#{name}-a" count="{len(values)}" stride="{width}">{parameters}</accessor>'
        array = f'<float_array id="{name}-a">{numbers}</float_array>'
        return f'<source id="{name}">{array}<technique_common>{accessor}</technique_common></source>'

    sources = source("p", twin.vertices, 3)
    inputs = '<input semantic="VERTEX" source="#v" offset="0"/>'
    effects, materials, images, bindings = "", "", "", ""
    groups = [("", twin.faces)]

    def add(symbol: str, diffuse: str, parameters: str = "") -> None:
        nonlocal effects, materials, bindings
        shader = f'<technique sid="c"><lambert><diffuse>{diffuse}</diffuse></lambert></technique>'
        effects += f'<effect id="{symbol}-fx"><profile_COMMON>{parameters}{shader}</profile_COMMON></effect>'
        materials += f'<material id="{symbol}"><instance_effect url="#{symbol}-fx"/></material>'
        bindings += f'<instance_material symbol="{symbol}" target="#{symbol}"/>'

    if twin.colors is not None:
        sources += source("c", twin.colors / 255, 3)
        inputs += '<input semantic="COLOR" source="#c" offset="0"/>'
    if twin.uv is not None and twin.image is not None:
        twin.image.save(path.with_name("twin.png"))
        sources += source("t", twin.uv, 2)
        inputs += '<input semantic="TEXCOORD" source="#t" offset="0" set="0"/>'
        images = '<image id="i"><init_from>twin.png</init_from></image>'
        surface = '<newparam sid="f"><surface type="2D"><init_from>i</init_from></surface></newparam>'
        sampler = '<newparam sid="s"><sampler2D><source>f</source></sampler2D></newparam>'
        add("m", '<texture texture="s" texcoord="UV"/>', surface + sampler)
        groups = [("m", twin.faces)]
    if twin.face_colors is not None:
        groups = []
        for i, color in enumerate(np.unique(twin.face_colors, axis=0)):
            add(f"m{i}", f"<color>{' '.join(map(str, (color / 255).tolist()))} 1</color>")
            groups.append((f"m{i}", twin.faces[(twin.face_colors == color).all(axis=1)]))
    primitives = ""
    for symbol, faces in groups:
        indices = " ".join(map(str, faces.ravel().tolist()))
        primitives += f'<triangles count="{len(faces)}" material="{symbol}">{inputs}<p>{indices}</p></triangles>'
    mesh = f'{sources}<vertices id="v"><input semantic="POSITION" source="#p"/></vertices>{primitives}'
    bound = f"<bind_material><technique_common>{bindings}</technique_common></bind_material>" if bindings else ""
    node = f'<instance_geometry url="#g">{bound}</instance_geometry>'
    if twin.child is not None:
        matrix = "<matrix>{}</matrix>"
        inner, outer = (matrix.format(" ".join(map(str, m.ravel().tolist()))) for m in (twin.child, PARENT))
        node = f"{outer}{node}<node>{inner}{node}</node>"
    path.write_text(
        '<?xml version="1.0"?><COLLADA xmlns="http://www.collada.org/2005/11/COLLADASchema" version="1.4.1">'
        f"<asset><up_axis>Y_UP</up_axis></asset><library_images>{images}</library_images>"
        f"<library_effects>{effects}</library_effects><library_materials>{materials}</library_materials>"
        f'<library_geometries><geometry id="g"><mesh>{mesh}</mesh></geometry></library_geometries>'
        f'<library_visual_scenes><visual_scene id="s"><node>{node}</node></visual_scene></library_visual_scenes>'
        '<scene><instance_visual_scene url="#s"/></scene></COLLADA>'
    )
    return True


_WRITERS: dict[str, Callable[[Twin, Path], bool]] = {
    ".glb": _glb, ".obj": _obj, ".ply": _ply, ".off": _off, ".stl": _stl, ".3mf": _3mf, ".dae": _dae,
}  # fmt: skip
