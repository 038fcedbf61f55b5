"""STEP and IGES files made in code: boxes and a ball."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Point = tuple[float, float, float]
Color = tuple[float, float, float]
NO_NAME = "''"

# Corners of each side in order, seen from outside: its normal, and a direction in it.
_SIDES: tuple[tuple[tuple[Point, ...], Point, Point], ...] = (
    (((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)), (0, 0, -1), (1, 0, 0)),
    (((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)), (0, 0, 1), (1, 0, 0)),
    (((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)), (0, -1, 0), (1, 0, 0)),
    (((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)), (0, 1, 0), (1, 0, 0)),
    (((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)), (-1, 0, 0), (0, 1, 0)),
    (((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)), (1, 0, 0), (0, 1, 0)),
)


Argument: TypeAlias = "str | float | Sequence[Argument]"


class _Step:
    """Entities of a STEP file, numbered from 1."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, text: str) -> str:
        """Add an entity; returns the reference to it."""
        self.lines.append(text)
        return f"#{len(self.lines)}"

    def entity(self, kind: str, *arguments: Argument) -> str:
        return self.add(f"{kind}{_text(arguments)}")

    def point(self, point: Point) -> str:
        return self.entity("CARTESIAN_POINT", NO_NAME, point)

    def direction(self, direction: Point) -> str:
        return self.entity("DIRECTION", NO_NAME, direction)

    def axes(self, origin: str, z: Point = (0, 0, 1), x: Point = (1, 0, 0)) -> str:
        return self.entity("AXIS2_PLACEMENT_3D", NO_NAME, origin, self.direction(z), self.direction(x))

    def color(self, color: Color, item: str) -> str:
        """A styled item."""
        filled = self.entity("FILL_AREA_STYLE_COLOUR", NO_NAME, self.entity("COLOUR_RGB", NO_NAME, *color))
        area = self.entity("SURFACE_STYLE_FILL_AREA", self.entity("FILL_AREA_STYLE", NO_NAME, [filled]))
        usage = self.entity("SURFACE_STYLE_USAGE", ".BOTH.", self.entity("SURFACE_SIDE_STYLE", NO_NAME, [area]))
        return self.entity("STYLED_ITEM", NO_NAME, [self.entity("PRESENTATION_STYLE_ASSIGNMENT", [usage])], item)

    def file(self, faces: Sequence[str], colors: Mapping[int, Color], whole: Color | None) -> str:
        """A product with one solid; `colors` of faces by their position."""
        solid = self.entity("MANIFOLD_SOLID_BREP", NO_NAME, self.entity("CLOSED_SHELL", NO_NAME, faces))
        length = self.add("(LENGTH_UNIT() NAMED_UNIT(*) SI_UNIT(.MILLI.,.METRE.))")
        angle = self.add("(NAMED_UNIT(*) PLANE_ANGLE_UNIT() SI_UNIT($,.RADIAN.))")
        steradian = self.add("(NAMED_UNIT(*) SI_UNIT($,.STERADIAN.) SOLID_ANGLE_UNIT())")
        context = self.add(
            f"(GEOMETRIC_REPRESENTATION_CONTEXT(3) GLOBAL_UNIT_ASSIGNED_CONTEXT(({length},{angle},{steradian})) "
            "REPRESENTATION_CONTEXT('',''))"
        )
        origin = self.axes(self.point((0, 0, 0)))
        shape = self.entity("ADVANCED_BREP_SHAPE_REPRESENTATION", NO_NAME, [origin, solid], context)
        application = self.entity("APPLICATION_CONTEXT", "'automotive design'")
        use = self.entity("PRODUCT_CONTEXT", NO_NAME, application, "'mechanical'")
        product = self.entity("PRODUCT", "'p'", "'p'", NO_NAME, [use])
        version = self.entity("PRODUCT_DEFINITION_FORMATION", NO_NAME, NO_NAME, product)
        stage = self.entity("PRODUCT_DEFINITION_CONTEXT", "'part definition'", application, "'design'")
        definition = self.entity("PRODUCT_DEFINITION", "'design'", NO_NAME, version, stage)
        defined = self.entity("PRODUCT_DEFINITION_SHAPE", NO_NAME, NO_NAME, definition)
        self.entity("SHAPE_DEFINITION_REPRESENTATION", defined, shape)
        styled = [self.color(color, faces[n]) for n, color in colors.items()]
        styled += [self.color(whole, solid)] if whole else []
        if styled:
            self.entity("MECHANICAL_DESIGN_GEOMETRIC_PRESENTATION_REPRESENTATION", NO_NAME, styled, context)
        body = "\n".join(f"#{n}={line};" for n, line in enumerate(self.lines, 1))
        head = (
            "FILE_DESCRIPTION((''),'2;1');\nFILE_NAME('','',(''),(''),'','','');\nFILE_SCHEMA(('AUTOMOTIVE_DESIGN'));"
        )
        return f"ISO-10303-21;\nHEADER;\n{head}\nENDSEC;\nDATA;\n{body}\nENDSEC;\nEND-ISO-10303-21;\n"


def step_box(size: Point, colors: Mapping[int, Color] | None = None, whole: Color | None = None) -> str:
    """A box from the origin to `size`, in millimetres; sides are bottom, top, front, back, left and right."""
    made = _Step()
    points = {corner: made.point(_times(corner, size)) for side in _SIDES for corner in side[0]}
    vertices = {corner: made.entity("VERTEX_POINT", NO_NAME, point) for corner, point in points.items()}
    edges: dict[tuple[Point, Point], str] = {}

    def oriented(start: Point, end: Point) -> str:
        is_reverse = (end, start) in edges
        if not is_reverse:
            along = made.direction((end[0] - start[0], end[1] - start[1], end[2] - start[2]))
            line = made.entity("LINE", NO_NAME, points[start], made.entity("VECTOR", NO_NAME, along, 1))
            edges[start, end] = made.entity("EDGE_CURVE", NO_NAME, vertices[start], vertices[end], line, ".T.")
        edge = edges[end, start] if is_reverse else edges[start, end]
        return made.entity("ORIENTED_EDGE", NO_NAME, "*", "*", edge, ".F." if is_reverse else ".T.")

    faces = []
    for corners, normal, along in _SIDES:
        edges_of_side = [oriented(a, b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)]
        loop = made.entity("EDGE_LOOP", NO_NAME, edges_of_side)
        bound = made.entity("FACE_OUTER_BOUND", NO_NAME, loop, ".T.")
        plane = made.entity("PLANE", NO_NAME, made.axes(points[corners[0]], normal, along))
        faces.append(made.entity("ADVANCED_FACE", NO_NAME, [bound], plane, ".T."))
    return made.file(faces, colors or {}, whole)


def step_ball(radius: float) -> str:
    """A ball around the origin, in millimetres."""
    made = _Step()
    surface = made.entity("SPHERICAL_SURFACE", NO_NAME, made.axes(made.point((0, 0, 0))), radius)
    pole = made.entity("VERTEX_POINT", NO_NAME, made.point((0, 0, -radius)))
    bound = made.entity("FACE_BOUND", NO_NAME, made.entity("VERTEX_LOOP", NO_NAME, pole), ".T.")
    return made.file([made.entity("ADVANCED_FACE", NO_NAME, [bound], surface, ".T.")], {}, None)


def iges_box(size: Point) -> str:
    """A box as six B-spline surfaces of degree one (entity 128), in millimetres."""
    start = ["".ljust(72) + "S      1"]
    header = "1H,,1H;,1Hp,5Hp.igs,,,32,38,6,308,15,,1.,2,2HMM,1,0.01,,1.E-6,10.,,,11,0;"
    header_lines = [
        header[at : at + 72].ljust(72) + f"G{n:7d}" for n, at in enumerate(range(0, len(header), 72), start=1)
    ]
    directory: list[str] = []
    parameters: list[str] = []
    for (a, b, c, d), _, _ in _SIDES:
        number = len(directory) + 1
        values: list[float | int] = [128, 1, 1, 1, 1, 0, 0, 1, 0, 0, *(0.0, 0.0, 1.0, 1.0) * 2, *(1.0,) * 4]
        for corner in (a, b, d, c):
            values += [float(x) for x in _times(corner, size)]
        rows = _wrapped([*values, 0.0, 1.0, 0.0, 1.0])
        fields = (
            (128, len(parameters) + 1, 0, 0, 0, 0, 0, 0, "00000000"),
            (128, 0, 0, len(rows), 0, "", "", "", 0),
        )
        for entry in fields:
            directory.append("".join(f"{field:>8}" for field in entry) + f"D{len(directory) + 1:7d}")
        for row in rows:
            parameters.append(row.ljust(64) + f"{number:8d}P{len(parameters) + 1:7d}")
    counts = f"S{1:7d}G{len(header_lines):7d}D{len(directory):7d}P{len(parameters):7d}"
    return "\n".join([*start, *header_lines, *directory, *parameters, counts.ljust(72) + "T      1"]) + "\n"


def _wrapped(values: Sequence[float | int]) -> list[str]:
    """Values in lines of at most 64 characters."""
    lines = [""]
    for n, value in enumerate(values):
        text = f"{value}{';' if n == len(values) - 1 else ','}"
        if len(lines[-1]) + len(text) > 64:
            lines.append("")
        lines[-1] += text
    return lines


def _times(point: Point, size: Point) -> Point:
    return point[0] * size[0], point[1] * size[1], point[2] * size[2]


def _text(argument: Argument) -> str:
    if isinstance(argument, str):
        return argument
    if isinstance(argument, int | float):
        return str(float(argument))
    return f"({','.join(_text(own) for own in argument)})"
