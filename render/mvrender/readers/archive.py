"""ZIP archives of one model with its textures, and ZAE (COLLADA in a ZIP archive): read in place, nothing is unpacked to disk."""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Collection

from mvrender.errors import MeshError
from mvrender.mesh import Limits
from mvrender.references import ArchiveReferences

SUFFIXES = (".zip", ".zae")
DAMAGED = (zipfile.BadZipFile, ValueError, NotImplementedError, OSError)
"""What zipfile raises on a file that is no archive."""

_SHOWN = 3
# Share of the memory limit: readers need several times the size of text.
_UNPACKED_SHARE = 0.25
# Of a model in several formats the first is read: those that keep most of it.
_PREFERRED = (
    ".glb", ".gltf", ".usdz", ".usdc", ".usd", ".usda", ".fbx", ".dae", ".obj", ".3mf", ".ply", ".step", ".stp", ".off", ".stl",
)  # fmt: skip


def open_archive(data: bytes, formats: Collection[str], limits: Limits) -> tuple[bytes, str, ArchiveReferences]:
    """The mesh file in an archive.

    Args:
        data: of the archive.
        formats: suffixes of mesh files.
        limits: the size of the unpacked files is checked before they are read.

    Returns:
        Content and suffix of the mesh file, and the files that it names.

    Raises:
        MeshError: it is no archive, damaged, encrypted, unpacks to too much, or holds no or several models.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except DAMAGED as error:
        raise MeshError("unreadable", f"not a readable ZIP archive ({error}); copy it again") from None
    check_unpacked(archive, limits)
    names = [info.filename for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
    models = [name for name in names if _suffix(name) in formats]
    if not models:
        raise MeshError(
            "no_model", f"the archive holds no mesh file, but {_listed(names)}; give an archive of one model"
        )
    stems = {posixpath.splitext(posixpath.basename(name))[0].casefold() for name in models}
    if len(stems) > 1:
        raise MeshError(
            "several_models", f"the archive holds {len(models)} mesh files ({_listed(models)}); unpack it to index each"
        )
    chosen = min(models, key=lambda name: (_PREFERRED.index(_suffix(name)), name))
    try:
        content = archive.read(chosen)
    except RuntimeError:
        raise MeshError("unreadable", "the archive is encrypted; unpack it with its password") from None
    except (*DAMAGED, zlib.error) as error:
        raise MeshError("unreadable", f"'{chosen}' in the archive cannot be read ({error}); copy it again") from None
    return content, _suffix(chosen), ArchiveReferences(archive, chosen)


def check_unpacked(archive: zipfile.ZipFile, limits: Limits) -> None:
    """Refuse an archive whose unpacked size does not fit into memory.

    Raises:
        MeshError: code `too_large`.
    """
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > limits.memory_bytes * _UNPACKED_SHARE:
        raise MeshError(
            "too_large",
            f"unpacks to {unpacked / 1e9:.1f} GB, too much for {limits.memory_bytes / 1e9:.1f} GB of memory; "
            "raise --max-memory-gb if the file is right",
        )


def _is_hidden(name: str) -> bool:
    """What operating systems add, such as `__MACOSX/._chair.glb`."""
    return any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in name.split("/"))


def _suffix(name: str) -> str:
    return posixpath.splitext(name)[1].lower()


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) or "nothing"
    return shown + (", ..." if len(names) > _SHOWN else "")
