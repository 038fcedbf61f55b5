"""Formats of mesh files. A module of its own, so that scanning for files does not import the readers."""

from __future__ import annotations

from mvrender.mesh import UpAxis

CAD = (".step", ".stp", ".iges", ".igs")
USD = (".usd", ".usda", ".usdc", ".usdz")
FORMATS: dict[str, UpAxis] = {
    ".glb": "+y",
    ".gltf": "+y",
    ".obj": "+y",
    ".off": "+y",
    ".ply": "+y",
    ".dae": "+y",
    ".stl": "+z",
    ".3mf": "+z",
    ".step": "+z",
    ".stp": "+z",
    ".iges": "+z",
    ".igs": "+z",
    ".fbx": "+y",
    ".usd": "+y",
    ".usda": "+y",
    ".usdc": "+y",
    ".usdz": "+y",
    ".zip": "+y",
    ".zae": "+y",
}
"""Conventional up axis of each format by suffix. DAE, FBX and USD files state their own; an archive has that of the file in it."""

_READERS = {
    **dict.fromkeys((".glb", ".gltf"), 4),
    ".obj": 3,
    **dict.fromkeys((".off", ".ply", ".stl", ".3mf", ".dae", ".fbx", ".step", ".stp"), 2),
}


def reader_version(suffix: str) -> int:
    """Version of the reader of a format. It grows when files of it may look different from before."""
    return _READERS.get(suffix, 1)


NOT_READ = frozenset(
    """.3ds .3dm .7z .abc .ac .amf .ase .blend .brep .c4d .catpart .catproduct .ctm .dwg .dxf .f3d .fcstd .gcode .hda .iam
    .ipt .iv .jt .lwo .lws .lxo .ma .max .mb .md2 .md3 .md5mesh .mdl .nif .pmx .prt .rar .rvt .sat .scad .shapr
    .skp .sldasm .sldprt .smd .spz .stpz .tar .tgz .u3d .unitypackage .vox .vrm .vrml .vtk .vtp .wrl .x .x3d
    .x3db .x3dv .x_b .x_t .xyz .ztl""".split()
)
"""Suffixes of 3D files, and of archives that may hold some, which no reader of this package reads."""
