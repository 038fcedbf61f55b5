"""Charts as inline SVG. Colours come from the page's style sheet, for light and dark mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mvrender.cameras import Rig
from mvretrieval.evaluation.report.results import RECALL_LEVELS, PrecisionRecallCurve

# Markers also differ by shape, for colour-blind readers and for printing.
MARKERS = (
    '<circle r="5"/>',
    '<path d="M-4.5-4.5h9v9h-9z"/>',
    '<path d="M0-6 5.5 4h-11z"/>',
    '<path d="M0-6.2 6.2 0 0 6.2-6.2 0z"/>',
    '<path d="M0 6-5.5-4h11z"/>',
)
MAP_WIDTH, MAP_HEIGHT = 960, 640
_MAP_MARGIN = 18
_REACH, _RIM = 126.0, 166.0  # radii in ring charts: of the longest sector, and of the images' centres


def curve_chart(curve: PrecisionRecallCurve) -> Markup:
    """Draw precision over recall, with the classes' quartiles as a band and chance as a dashed line."""
    left, top, width, height = 44.0, 8.0, 408.0, 268.0

    def at(recall: float, precision: float) -> tuple[float, float]:
        return left + recall * width, top + (1 - precision) * height

    grid = []
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        (x, y), (x0, y0) = at(tick, tick), at(0, 0)
        grid.append(f'<path class="grid" d="M{x0:.1f} {y:.1f}h{width:g}M{x:.1f} {y0:.1f}v{-height:g}"/>')
        grid.append(f'<text x="{x:.1f}" y="{y0 + 18:.1f}" class="middle">{tick:g}</text>')
        grid.append(f'<text x="{x0 - 8:.1f}" y="{y + 4:.1f}" class="end">{tick:g}</text>')
    parts = ["".join(grid)]
    if curve.lower is not None and curve.upper is not None:
        outline = [at(r, p) for r, p in zip(RECALL_LEVELS, curve.upper, strict=True)]
        outline += [at(r, p) for r, p in zip(RECALL_LEVELS[::-1], curve.lower[::-1], strict=True)]
        parts.append(f'<path class="band" d="{_path(outline)}Z"/>')
        points = [at(r, p) for r, p in zip(RECALL_LEVELS, curve.class_mean, strict=True)]
        parts.append(f'<path class="line thin" d="{_path(points)}"/>')
    parts.append(f'<path class="chance" d="{_path([at(0, curve.chance), at(1, curve.chance)])}"/>')
    points = [at(r, p) for r, p in zip(RECALL_LEVELS, curve.mean, strict=True)]
    parts.append(f'<path class="line" d="{_path(points)}"/>')
    for (x, y), recall, precision in zip(points, RECALL_LEVELS, curve.mean, strict=True):
        label = f"recall {recall:.2f}: precision {precision:.3f}"
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{label}</title></circle>')
    parts.append(f'<text x="{left + width / 2:g}" y="{top + height + 36:g}" class="middle">recall</text>')
    parts.append(f'<text transform="translate(11 {top + height / 2:g}) rotate(-90)" class="middle">precision</text>')
    description = ", ".join(f"{curve.mean[i]:.2f} at {RECALL_LEVELS[i]:g}" for i in range(0, len(RECALL_LEVELS), 4))
    return _svg("0 0 460 320", "chart", f"Precision-recall curve. Mean precision {description}.", parts)


def is_ring(rig: Rig) -> bool:
    """Whether all cameras have the same elevation, so that azimuth distinguishes them."""
    return float(np.ptp(rig.directions[:, 1])) < 1e-6 and abs(rig.directions[0, 1]) < 1 - 1e-6


def rim(rig: Rig, images: Sequence[str | None]) -> Markup:
    """Draw images (V data URIs) around a ring chart at their cameras' azimuths; empty for more than 24 views."""
    if len(images) != rig.n_views or rig.n_views > 24:
        return Markup("")
    side = min(52.0, 2 * math.pi * _RIM / rig.n_views * 0.9)
    parts = []
    for image, azimuth in zip(images, np.radians(rig.azimuths_deg), strict=True):
        x, y = _polar(_RIM, azimuth)
        size = f'width="{side:.1f}" height="{side:.1f}"'
        parts.append(f'<image href="{image}" x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" {size}/>' if image else "")
    return Markup(f'<g id="rim">{"".join(parts)}</g>')


def ring_chart(
    rig: Rig,
    mean: NDArray[np.float64],  # (V,) 1 is the uniform weight
    lower: NDArray[np.float64],  # (V,)
    upper: NDArray[np.float64],  # (V,)
    longest: float,  # weight at the outer circle, the same for charts to be compared
    images: Markup,  # see `rim`
) -> Markup:
    """Draw the weights of a ring of views seen from above: the length of a sector is the weight of its view."""
    n = rig.n_views
    scale = _REACH / max(1.5, longest)
    parts = [f'<circle class="grid" r="{k * scale:.1f}"/>' for k in range(1, int(_REACH / scale) + 1)]
    half = math.pi / n * 0.82 if n > 1 else math.pi / 8
    for v, azimuth in enumerate(np.radians(rig.azimuths_deg)):
        corners = [_polar(mean[v] * scale, azimuth + half * t / 4) for t in range(-4, 5)]
        spread = f"10 % to 90 %: {lower[v]:.2f} to {upper[v]:.2f}"
        label = f"azimuth {math.degrees(azimuth):g}°: {mean[v]:.2f} × the uniform weight ({spread})"
        whisker = _path([_polar(lower[v] * scale, azimuth), _polar(upper[v] * scale, azimuth)])
        parts.append(
            f'<g><title>{label}</title><path class="sector" d="M0 0{_path(corners).replace("M", "L", 1)}Z"/>'
            f'<path class="whisker" d="{whisker}"/></g>'
        )
    parts.append(f'<circle class="uniform" r="{scale:.1f}"/>')
    between = (math.floor(225 / (360 / n)) + 0.5) * 2 * math.pi / n if n > 1 else math.pi
    for k in range(1, int(_REACH / scale) + 1):
        x, y = _polar(k * scale, between)
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" class="middle tick">{k}×</text>')
    for degrees in (0, 90, 180, 270):
        x, y = _polar(_RIM + 42 if images else _REACH + 16, math.radians(degrees))
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" class="middle">{degrees}°</text>')
    box = "-228 -222 456 444" if images else "-160 -156 320 312"
    return _svg(box, "chart round", f"Weights of {n} views by azimuth. {_extremes(rig, mean)}", [*parts, images])


def plane_chart(rig: Rig, mean: NDArray[np.float64], lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Markup:
    """Draw the weights of any rig: a disc per camera at its angles; areas are weights, the faint disc is the 90th percentile."""
    left, top, width, height = 84.0, 26.0, 430.0, 250.0
    uniform = min(17.0, 0.34 * math.sqrt(width * height / rig.n_views), 34 / math.sqrt(max(1.0, float(upper.max()))))
    parts = []
    for azimuth in range(0, 361, 90):
        x = left + azimuth / 360 * width
        parts.append(f'<path class="grid" d="M{x:g} {top:g}v{height:g}"/>')
        parts.append(f'<text x="{x:g}" y="{top + height + 40:g}" class="middle">{azimuth}°</text>')
    for elevation in range(-90, 91, 45):
        y = top + (90 - elevation) / 180 * height
        parts.append(f'<path class="grid" d="M{left:g} {y:g}h{width:g}"/>')
        parts.append(f'<text x="{left - 38:g}" y="{y + 4:g}" class="end">{elevation}°</text>')
    for v, (azimuth, elevation) in enumerate(zip(rig.azimuths_deg, elevations_deg(rig), strict=True)):
        x, y = left + azimuth / 360 * width, top + (90 - elevation) / 180 * height
        label = f"azimuth {azimuth:.0f}°, elevation {elevation:.0f}°: {mean[v]:.2f} × the uniform weight"
        parts.append(
            f'<g transform="translate({x:.1f} {y:.1f})"><title>{label} (10 % to 90 %: {lower[v]:.2f} to {upper[v]:.2f})</title>'
            f'<circle class="band" r="{uniform * math.sqrt(max(0.0, upper[v])):.1f}"/>'
            f'<circle class="disc" r="{uniform * math.sqrt(max(0.0, mean[v])):.1f}"/><circle class="uniform" r="{uniform:.1f}"/>'
        )
        if rig.n_views <= 26:
            parts.append(f'<text y="4" class="middle on">{mean[v]:.1f}</text>')
        parts.append("</g>")
    parts.append(f'<text x="{left + width / 2:g}" y="{top + height + 58:g}" class="middle">azimuth</text>')
    parts.append(f'<text transform="translate(12 {top + height / 2:g}) rotate(-90)" class="middle">elevation</text>')
    text = f"Weights of {rig.n_views} views by azimuth and elevation. {_extremes(rig, mean)}"
    return _svg("0 0 550 340", "chart", text, parts)


def elevations_deg(rig: Rig) -> NDArray[np.float64]:
    """(V,) elevation of each camera in degrees, -90 to 90."""
    return np.asarray(np.degrees(np.arcsin(np.clip(rig.directions[:, 1], -1, 1))).round(3) + 0.0)


def on_map(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale positions (N, 2) to pixels of the map, each axis separately: t-SNE's axes have no unit, and screens are wide."""
    if not len(positions):
        return positions
    low, high = positions.min(axis=0), positions.max(axis=0)
    extent = np.maximum(high - low, max(1e-3 * float((high - low).max()), 1e-12))
    size = np.array([MAP_WIDTH, MAP_HEIGHT]) - 2 * _MAP_MARGIN
    unit = 0.5 + (positions - (low + high) / 2) / extent * [1, -1]
    return np.asarray((_MAP_MARGIN + unit * size).round(1))


def map_chart(pixels: NDArray[np.float64], groups: Iterable[int], n_groups: int) -> Markup:
    """Draw the map of objects (N, 2) for the page's script: the i-th `use` is the i-th object.

    Args:
        pixels: see `on_map`.
        groups: colour group of each object, -1 for none.
        n_groups: number of markers to define.
    """
    defined = "".join(f'<g id="m{g}">{marker(g)}</g>' for g in range(-1, n_groups))
    parts = [f"<defs>{defined}</defs>"]
    for (x, y), group in zip(pixels, groups, strict=True):
        parts.append(f'<use href="#m{group}" class="g{group}" x="{x:g}" y="{y:g}"/>')
    parts.append('<circle class="highlight" r="10"/>')
    text = f"Map of {len(pixels)} objects; similar objects are near each other. Arrow keys move from object to object."
    return _svg(f"0 0 {MAP_WIDTH} {MAP_HEIGHT}", "map", text, parts, ' id="map-svg" tabindex="0"')


def marker(group: int) -> Markup:
    """Marker of a group, a small dot for -1."""
    return Markup('<circle r="3"/>' if group < 0 else MARKERS[group % len(MARKERS)])


def _extremes(rig: Rig, mean: NDArray[np.float64]) -> str:
    v, w = int(mean.argmax()), int(mean.argmin())
    angles = list(zip(rig.azimuths_deg, elevations_deg(rig), strict=True))
    return (
        f"Largest: azimuth {angles[v][0]:g}°, elevation {angles[v][1]:g}° with {mean[v]:.2f} times the uniform weight; "
        f"smallest: azimuth {angles[w][0]:g}°, elevation {angles[w][1]:g}° with {mean[w]:.2f}."
    )


def _polar(radius: float, azimuth: float) -> tuple[float, float]:
    """Chart position of an azimuth: 0 (the front) is at the bottom, 90 degrees (+X) on the right."""
    return radius * math.sin(azimuth), radius * math.cos(azimuth)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _svg(view_box: str, kind: str, label: str, parts: Iterable[str], more: str = "") -> Markup:
    # Parts contain numbers and literals of this module only, no user text.
    opening = f'<svg viewBox="{view_box}" class="{kind}" role="img" aria-label="{label}"{more}>'
    return Markup(opening + "".join(parts) + "</svg>")
