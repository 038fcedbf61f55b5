"""What glTF files say that trimesh does not read: refused by name, or made plain on the way in."""

from __future__ import annotations

import importlib.util
import json
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trimesh.exchange.gltf.extensions import register_handler

from mvrender.errors import MeshError

_SUPPORTED = {
    "KHR_materials_unlit",
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "EXT_texture_webp",
    "KHR_draco_mesh_compression",
}
_TRANSFORM = "KHR_texture_transform"
# Put on primitives whose attributes have to be made plain: trimesh calls `_make_plain` with what it decoded.
_PLAIN = "MVRENDER_plain_attributes"


def prepare(data: bytes, suffix: str) -> bytes:
    """Content of a `.glb` or `.gltf` file as trimesh can read it.

    Raises:
        MeshError: no glTF, or it requires what trimesh would load as nothing or as zeros.
    """
    try:
        text, rest = data, b""
        if suffix == ".glb":
            if data[:4] != b"glTF":
                raise ValueError("no glTF magic")
            expected = int.from_bytes(data[8:12], "little")
            if len(data) < max(expected, 20):
                raise ValueError(f"{max(expected, 20):,} bytes, cut off after {len(data):,}; copy it again")
            end = 20 + int.from_bytes(data[12:16], "little")
            text, rest = data[20:end], data[end:]
        tree = json.loads(text.decode("utf-8-sig"))
        required, used = set(tree.get("extensionsRequired", [])), set(tree.get("extensionsUsed", []))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise MeshError("unreadable", f"not a readable {suffix[1:].upper()} file: {error}") from None
    if "KHR_draco_mesh_compression" in required | used and importlib.util.find_spec("DracoPy") is None:
        raise MeshError("needs_extra", "Draco-compressed glTF needs the extra: pip install 'mvretrieval[draco]'")
    unknown = sorted(name for name in required if name not in _SUPPORTED and not name.startswith("KHR_materials_"))
    if unknown:
        raise MeshError(
            "unsupported_extension",
            f"the file requires {', '.join(unknown)}, which cannot be decoded here; export it without",
        )
    try:
        if not _mark(tree):
            return data
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return data  # a broken tree: trimesh says what is wrong with it
    text = json.dumps(tree).encode()
    if suffix == ".gltf":
        return text
    text += b" " * (-len(text) % 4)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest)),
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            rest,
        ]
    )


def _mark(tree: dict[str, Any]) -> bool:
    """Mark the primitives that `_make_plain` has to look at; tells whether there are any."""
    found = False
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            attributes = primitive["attributes"]
            normalized = [
                name
                for name, index in attributes.items()
                if (name == "POSITION" or name.startswith("TEXCOORD")) and tree["accessors"][index].get("normalized")
            ]
            material = tree["materials"][primitive["material"]] if "material" in primitive else {}
            info = material.get("pbrMetallicRoughness", {}).get("baseColorTexture", {})
            transform = info.get("extensions", {}).get(_TRANSFORM, {})
            uv = f"TEXCOORD_{transform.get('texCoord', info.get('texCoord', 0))}"
            matrix = _uv_matrix(transform).tolist() if transform and uv in attributes else None
            if normalized or matrix or (uv != "TEXCOORD_0" and uv in attributes):
                # Last, so that Draco's attributes are there.
                primitive.setdefault("extensions", {})[_PLAIN] = {"normalized": normalized, "uv": uv, "matrix": matrix}
                found = True
    return found


def _uv_matrix(transform: dict[str, Any]) -> NDArray[np.float64]:
    """(2, 3) of KHR_texture_transform: scale, then counter-clockwise turn (v points down), then offset."""
    angle = float(transform.get("rotation", 0))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    scale = np.array(transform.get("scale", (1, 1)), float)
    offset = np.array(transform.get("offset", (0, 0)), float)
    return np.column_stack([turn * scale, offset])


@register_handler(_PLAIN, scope="primitive_preprocess")  # type: ignore[untyped-decorator]  # trimesh
def _make_plain(context: Any) -> None:
    """Whole numbers that stand for -1 to 1 as floats, and the base colour's texture coordinates as the first ones."""
    attributes, accessors, wanted = context["primitive"]["attributes"], context["accessors"], context["data"]

    def put(name: str, values: NDArray[Any]) -> None:
        attributes[name] = len(accessors)  # a new one: other primitives may use the old one otherwise
        accessors.append(values)

    for name in wanted["normalized"]:
        values = accessors[attributes[name]]
        if values.dtype.kind in "iu":
            put(name, np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1))
    if wanted["uv"] in attributes:
        uv = accessors[attributes[wanted["uv"]]]
        if wanted["matrix"] is not None:
            matrix = np.array(wanted["matrix"])
            uv = (uv @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        put("TEXCOORD_0", uv)
