"""Load a file as a `Mesh`, with a content hash of everything that its appearance depends on."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from mvrender.assemble import assemble
from mvrender.errors import FailureCode, MeshError
from mvrender.formats import CAD, FORMATS, USD, reader_version
from mvrender.mesh import Limits, Mesh, UpAxis, check, rotate_to_y_up
from mvrender.readers import dae, gltf, obj, off, ply, stl, threemf
from mvrender.readers.archive import SUFFIXES as ARCHIVES
from mvrender.readers.archive import open_archive
from mvrender.readers.parts import Part, Reading
from mvrender.references import FolderReferences, References

_READERS: dict[str, Callable[[bytes, Reading], Iterator[Part]]] = {
    ".3mf": threemf.read,
    ".dae": dae.read,
    ".glb": gltf.read,
    ".gltf": gltf.read,
    ".obj": obj.read,
    ".off": off.read,
    ".ply": ply.read,
    ".stl": stl.read,
}
# Suffixes, the module that their reader needs, and the extra that installs it.
_EXTRAS = ((CAD, "cascadio", "cad"), ((".fbx",), "ufbx", "fbx"), (USD, "pxr", "usd"))
_MOST_NOTES = 50
_BAD_INDICES = re.compile(r"is out of bounds for axis|face index outside the range")


@dataclass(frozen=True)
class Loaded:
    """A loaded mesh with +Y up, and its origin.

    Attributes:
        mesh: not yet normalized.
        content_hash: sha256 over the file, the referenced files that were read, the suffix and the up axis.
        references: absolute paths of the referenced files that were read.
        up: up axis of the file.
        facts: `format`, `faces`, `vertices`, `textured`, and `reader`, the version of the reader.
    """

    mesh: Mesh
    content_hash: str
    references: tuple[str, ...]
    up: UpAxis
    facts: dict[str, Any]


def load(path: Path, *, root: Path | None = None, up: UpAxis | None = None, limits: Limits | None = None) -> Loaded:
    """Load one mesh file.

    Args:
        path: file with a suffix in `FORMATS`.
        root: folder that references may not leave; the file's folder by default.
        up: up axis of the file; the format's convention by default.
        limits: resources that the file may use.

    Raises:
        MeshError: the file cannot be rendered; the code is that of the failure.
    """
    limits = limits or Limits()
    suffix = path.suffix.lower()
    data = _read(path, suffix, limits)
    references: References = FolderReferences(path.parent, root or path.parent)
    content, inner = data, suffix
    if suffix in ARCHIVES:
        content, inner, references = open_archive(data, FORMATS.keys() - set(ARCHIVES), limits)
    reading = Reading(inner, references, limits)
    mesh = _parsed(content, reading)
    check(mesh)
    notes = [*reading.notes]
    notes += [f"reference '{name}' is missing; rendered without it" for name in references.missing]
    notes += [f"reference '{name}' is outside of the folder; rendered without it" for name in references.refused]
    notes += [f"reference '{name}' is not a readable image; rendered without it" for name in references.broken]
    if len(notes) > _MOST_NOTES:
        notes[_MOST_NOTES:] = [f"{len(notes) - _MOST_NOTES} more notes are left out"]
    axis = up or reading.up or FORMATS[inner]
    digest = hashlib.sha256(data)
    for name, used in sorted((os.fsencode(file.name), sha) for file, sha in references.used.items()):
        digest.update(b"\0" + name + b"\0" + used.encode())
    digest.update(f"\0{suffix}\0{axis}".encode())
    facts = {
        "format": inner[1:],
        "faces": len(mesh.faces),
        "vertices": len(mesh.vertices),
        "textured": bool(mesh.textures),
        "reader": reader_version(inner),
    }
    return Loaded(
        mesh=replace(rotate_to_y_up(mesh, axis), notes=tuple(notes)),
        content_hash=digest.hexdigest(),
        references=tuple(str(file) for file in references.used),
        up=axis,
        facts=facts,
    )


def _read(path: Path, suffix: str, limits: Limits) -> bytes:
    """Read a file, if its format is known and it is within the limits."""
    if suffix not in FORMATS:
        if path.is_dir():
            raise MeshError("not_a_file", "this is a folder; give a mesh file")
        raise MeshError(
            "unknown_format", f"'{suffix}' is not a supported mesh format; supported are {', '.join(sorted(FORMATS))}"
        )
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise MeshError("not_a_file", "not a regular file")
        if info.st_size == 0:
            raise MeshError("empty_file", "the file is empty; copy it again from its source")
        if info.st_size > limits.max_file_bytes:
            raise MeshError(
                "too_large", f"{info.st_size / 1e9:.1f} GB, over the limit of {limits.max_file_bytes / 1e9:.1f} GB"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise MeshError("missing_file", "no such file; check the path") from None
    except PermissionError:
        raise MeshError("no_permission", "this user may not read the file; change its mode or owner") from None
    except OSError as error:
        raise MeshError("unreadable", f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise MeshError("bad_name", f"not a valid file name: {error}") from None


def _parsed(data: bytes, reading: Reading) -> Mesh:
    suffix, references = reading.suffix, reading.references
    for kinds, module, extra in _EXTRAS:
        if suffix in kinds and importlib.util.find_spec(module) is None:
            raise MeshError(
                "needs_extra", f"{suffix[1:].upper()} files need an extra: run pip install 'mvretrieval[{extra}]'"
            )
    # Our limit on texture pixels is checked before decoding. Pillow's limit is below a 16k texture.
    Image.MAX_IMAGE_PIXELS = None
    try:
        if suffix == ".fbx":
            from mvrender.readers import fbx  # an extra

            return assemble(fbx.read(data, reading), reading)
        if suffix in USD:
            from mvrender.readers import usd  # an extra

            return assemble(usd.read(data, reading), reading)
        if suffix in CAD:
            from mvrender.readers import cad  # an extra

            return assemble(cad.read(data, reading), reading)
        return assemble(_READERS[suffix](data, reading), reading)
    except MeshError:
        raise  # a geometry buffer is missing or outside of the folder
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # parsers raise anything on a damaged file
        if references.refused or references.missing:
            code: FailureCode = "outside_reference" if references.refused else "missing_reference"
            names = ", ".join(f"'{name}'" for name in (references.refused or references.missing)[:3])
            raise MeshError(code, f"the geometry needs {names}, which cannot be read from the folder") from error
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        if _BAD_INDICES.search(detail):
            raise MeshError("bad_indices", f"faces use vertices that do not exist ({detail})") from error
        raise MeshError(
            "unreadable",
            f"not a readable {suffix[1:].upper()} file ({type(error).__name__}: {detail}); open and save it again",
        ) from error
