"""glTF features that trimesh does not read: converted on loading, or refused by name."""

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
# Marks primitives whose attributes need conversion: trimesh calls `_convert_attributes` with the decoded accessors.
_CONVERT = "MVRENDER_convert_attributes"


def prepare_gltf(data: bytes, suffix: str) -> bytes:
    """Convert the content of a `.glb` or `.gltf` file to what trimesh can read.

    Raises:
        MeshError: not a glTF file, or it requires an extension that trimesh would load as nothing or as zeros.
    """
    try:
        text, rest = data, b""
        if suffix == ".glb":
            if data[:4] != b"glTF":
                raise ValueError("no glTF magic")
            expected = int.from_bytes(data[8:12], "little")
            if len(data) < max(expected, 20):
                raise ValueError(f"{max(expected, 20):,} bytes, truncated after {len(data):,}; copy it again")
            end = 20 + int.from_bytes(data[12:16], "little")
            text, rest = data[20:end], data[end:]
        tree = json.loads(text.decode("utf-8-sig"))
        required, used = set(tree.get("extensionsRequired", [])), set(tree.get("extensionsUsed", []))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise MeshError("unreadable", f"not a readable {suffix[1:].upper()} file: {error}") from None
    if "KHR_draco_mesh_compression" in required | used and importlib.util.find_spec("DracoPy") is None:
        raise MeshError("needs_extra", "Draco-compressed glTF needs an extra: run pip install 'mvretrieval[draco]'")
    unknown = sorted(name for name in required if name not in _SUPPORTED and not name.startswith("KHR_materials_"))
    if unknown:
        raise MeshError(
            "unsupported_extension",
            f"the file requires the extension {', '.join(unknown)}, which is not supported; export it without",
        )
    try:
        if not _mark(tree):
            return data
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return data  # a malformed tree: trimesh reports the problem
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
    """Mark the primitives that `_convert_attributes` must convert. Returns whether there are any."""
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
                # Added last, so that Draco's attributes are decoded before.
                primitive.setdefault("extensions", {})[_CONVERT] = {
                    "normalized": normalized,
                    "uv": uv,
                    "matrix": matrix,
                }
                found = True
    return found


def _uv_matrix(transform: dict[str, Any]) -> NDArray[np.float64]:
    """(2, 3) matrix of KHR_texture_transform: scale, then counter-clockwise rotation (v points down), then offset."""
    angle = float(transform.get("rotation", 0))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    scale = np.array(transform.get("scale", (1, 1)), float)
    offset = np.array(transform.get("offset", (0, 0)), float)
    return np.column_stack([turn * scale, offset])


@register_handler(_CONVERT, scope="primitive_preprocess")  # type: ignore[untyped-decorator]  # trimesh
def _convert_attributes(context: Any) -> None:
    """Convert normalized integers to floats, and move the base colour's texture coordinates to the first set."""
    attributes, accessors, request = context["primitive"]["attributes"], context["accessors"], context["data"]

    def put(name: str, values: NDArray[Any]) -> None:
        attributes[name] = len(accessors)  # a new accessor: other primitives may use the old one differently
        accessors.append(values)

    for name in request["normalized"]:
        values = accessors[attributes[name]]
        if values.dtype.kind in "iu":
            put(name, np.maximum(values.astype(np.float32) / np.iinfo(values.dtype).max, -1))
    if request["uv"] in attributes:
        uv = accessors[attributes[request["uv"]]]
        if request["matrix"] is not None:
            matrix = np.array(request["matrix"])
            uv = (uv @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
        put("TEXCOORD_0", uv)
