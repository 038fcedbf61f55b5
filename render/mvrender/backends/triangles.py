"""The rasterizer's kernels: eight samples per pixel, a depth buffer, and shading.

Compiled by numba and cached on disk. All compiled functions are in this file, and constants from elsewhere that affect the image
are arguments: numba's cache notices only changes of a function's own file.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvrender.backends.compilation import compiled

f4 = np.float32
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]

TEXTURE, CLAY, DEPTH, NORMAL, SILHOUETTE = range(5)

# Positions of the eight samples relative to the pixel's centre, in sixteenths of a pixel: no two in one column or row, point
# symmetric. They are OpenGL's standard four samples, shifted by 1/16 to either side along the diagonal, so that OpenGL can
# render the same in two passes.
_N_SAMPLES = 8
_DX = (f4(-1 / 16), f4(7 / 16), f4(3 / 16), f4(-5 / 16), f4(1 / 16), f4(-7 / 16), f4(-3 / 16), f4(5 / 16))
_DY = (f4(-5 / 16), f4(-1 / 16), f4(7 / 16), f4(3 / 16), f4(5 / 16), f4(1 / 16), f4(-7 / 16), f4(-3 / 16))
_REACH = f4(7 / 16)
_ZERO, _HALF, _ONE, _WHITE, _THIRD = f4(0), f4(0.5), f4(1), f4(255), f4(1 / 3)
_FLAT, _FAR_OFF = f4(1e-12), f4(1e30)
_DEPTH_BINS = 256
_CLIP_FROM = 4  # columns: for narrower triangles, testing every pixel is faster than computing the span


class Triangles(NamedTuple):
    """A mesh in world coordinates: vertices (n, 3), faces (m, 3), unit face normals (m, 3)."""

    vertices: Floats
    faces: Ints
    normals: Floats


class Screen(NamedTuple):
    """Projected vertices: (n,) columns and rows in pixels, and (n,) inverse depths, which are linear in the image."""

    x: Floats
    y: Floats
    inverse: Floats


class Samples(NamedTuple):
    """Depth buffer: (size, size, 8) largest inverse depth and its face, -1 for none; (size, size) minimum over the samples."""

    nearest: Floats
    face: Ints
    farthest: Floats


class Appearance(NamedTuple):
    """Colours of a mesh.

    `colored` is False for a mesh without colours. colors (n, 3) of vertices, uv (n, 2) of vertices and texture (m,) of faces are
    empty if missing. table and texels are the mipmaps (see `textures`).
    """

    colored: bool
    colors: Bytes
    uv: Floats
    texture: Ints
    table: NDArray[np.int64]
    texels: Bytes


class Holes(NamedTuple):
    """Texels that are not there, so that what is behind them is seen. Without any, uv and texture are empty.

    uv (n, 2) of vertices, texture (m,) of faces, -1 without holes, table (T, 3) of each texture: index of the first texel, height,
    width; opacity (N,) of texels.
    """

    uv: Floats
    texture: Ints
    table: NDArray[np.int64]
    opacity: Bytes


class Camera(NamedTuple):
    """Camera-to-world matrix (4, 4), size of a pixel at depth 1, and depth range of the unit sphere."""

    pose: Floats
    pixel: f4
    near: f4
    far: f4


class Lighting(NamedTuple):
    """Constants of `shading`.

    Directions to the lights (L, 3), their strengths (L,), ambient light, knee and slope of the highlight compression, clay
    colour (3,), grey of the nearest point, grey range from there to the farthest, grey of silhouettes, background.
    """

    towards: Floats
    strengths: Floats
    ambient: f4
    knee: f4
    slope: f4
    clay: Floats
    nearest: f4
    depths: f4
    outline: f4
    background: f4


@compiled
def face_normals(vertices: Floats, faces: Ints) -> Floats:
    """(m, 3) unit normals. Those of faces without area, which cover no sample, are arbitrary."""
    out = np.empty((len(faces), 3), f4)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x1, y1, z1 = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        x2, y2, z2 = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        x, y, z = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        length = max(f4(math.sqrt(x * x + y * y + z * z)), f4(1e-30))
        out[f, 0], out[f, 1], out[f, 2] = x / length, y / length, z / length
    return out


@compiled
def _project(vertices: Floats, camera: Floats, size: int, tan_half_fov: f4, screen: Screen) -> None:
    """Project the vertices, which all lie in front of the camera (4, 4 camera-to-world)."""
    middle, scale = f4(size) * _HALF, f4(size) * _HALF / tan_half_fov
    for i in range(len(vertices)):
        dx, dy, dz = vertices[i, 0] - camera[0, 3], vertices[i, 1] - camera[1, 3], vertices[i, 2] - camera[2, 3]
        right = dx * camera[0, 0] + dy * camera[1, 0] + dz * camera[2, 0]
        up = dx * camera[0, 1] + dy * camera[1, 1] + dz * camera[2, 1]
        away = -(dx * camera[0, 2] + dy * camera[1, 2] + dz * camera[2, 2])
        inverse = _ONE / away
        screen.x[i], screen.y[i] = middle + right * inverse * scale, middle - up * inverse * scale
        screen.inverse[i] = inverse


@compiled
def _sort_front_to_back(inverse: Floats, faces: Ints, order: Ints) -> None:
    """Sort faces (m,) roughly by distance: hidden faces then fail one comparison per pixel, which halves the time."""
    low, high = inverse.min(), inverse.max()
    factor = f4(_DEPTH_BINS - 1) / max(high - low, f4(1e-9))
    key = np.empty(len(faces), np.int32)
    start = np.zeros(_DEPTH_BINS + 1, np.int64)
    for f in range(len(faces)):
        middle = (inverse[faces[f, 0]] + inverse[faces[f, 1]] + inverse[faces[f, 2]]) * _THIRD
        key[f] = min(_DEPTH_BINS - 1, max(0, int((high - middle) * factor)))
        start[key[f] + 1] += 1
    for k in range(_DEPTH_BINS):
        start[k + 1] += start[k]
    for f in range(len(faces)):
        order[start[key[f]]] = f
        start[key[f]] += 1


@compiled
def _clip_span(slope: f4, start: f4, reach: f4, low: f4, high: f4) -> tuple[f4, f4]:
    """Part of a row, low to high, where start + slope * column > -reach; empty if high is below low."""
    if slope > _FLAT:
        return max(low, (-reach - start) / slope), high
    if slope < -_FLAT:
        return low, min(high, (-reach - start) / slope)
    return low, (high if start > -reach else f4(-1))


@compiled
def _pixel_range(a: f4, b: f4, c: f4, size: int) -> tuple[int, int]:
    """First and last pixel whose samples a triangle may cover, from its three coordinates along one axis."""
    first = max(0, math.ceil(min(a, b, c) - _HALF - _REACH))
    return first, min(size - 1, math.floor(max(a, b, c) - _HALF + _REACH))


@compiled
def _reach_of(dx: f4, dy: f4) -> f4:
    """Largest change of a linear function from a pixel's centre to a sample, from its slopes along x and y."""
    return _REACH * (abs(dx) + abs(dy))


@compiled
def _is_hole(holes: Holes, texture: int, a: int, b: int, c: int, of_b: f4, of_c: f4) -> bool:
    """Whether a point of a face is less than half opaque: bilinear between texels of full size, at every distance."""
    uv, of_a = holes.uv, _ONE - of_b - of_c
    s = of_a * uv[a, 0] + of_b * uv[b, 0] + of_c * uv[c, 0]
    t = of_a * uv[a, 1] + of_b * uv[b, 1] + of_c * uv[c, 1]
    start, height, width = holes.table[texture, 0], holes.table[texture, 1], holes.table[texture, 2]
    upper_left, upper_right, lower_left, lower_right, across, down = _between(height, width, s, t)
    opacity = holes.opacity
    mixed = _mixed(
        f4(opacity[start + upper_left]),
        f4(opacity[start + upper_right]),
        f4(opacity[start + lower_left]),
        f4(opacity[start + lower_right]),
        across,
        down,
    )
    return bool(mixed < _WHITE * _HALF)


@compiled
def _between(height: int, width: int, s: f4, t: f4) -> tuple[int, int, int, int, f4, f4]:
    """The four texels around uv (s, t), v upwards, of a repeating texture, and the position between them, across and down."""
    x = (s - f4(math.floor(s))) * f4(width) - _HALF
    y = (_ONE - (t - f4(math.floor(t)))) * f4(height) - _HALF
    column, row = f4(math.floor(x)), f4(math.floor(y))
    left, top = int(column) % width, int(row) % height
    right, bottom = (left + 1) % width, (top + 1) % height
    upper, lower = top * width, bottom * width
    return upper + left, upper + right, lower + left, lower + right, x - column, y - row


@compiled
def _rasterize(screen: Screen, faces: Ints, order: Ints, holes: Holes, samples: Samples) -> None:
    """Find the nearest face of every sample.

    u, v and w are barycentric coordinates and z is the inverse depth, all at a pixel's centre. Each is linear in column and
    row; its differences to the samples (du, dv, dw, dz) are constant over a face.
    """
    size = len(samples.farthest)
    x, y, inverse = screen.x, screen.y, screen.inverse
    nearest, face, farthest = samples.nearest, samples.face, samples.farthest
    du, dv = np.empty(_N_SAMPLES, f4), np.empty(_N_SAMPLES, f4)
    dw, dz = np.empty(_N_SAMPLES, f4), np.empty(_N_SAMPLES, f4)
    for i in range(len(order)):
        f = order[i]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = x[a], y[a], x[b], y[b], x[c], y[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        (left, right), (top, bottom) = _pixel_range(x0, x1, x2, size), _pixel_range(y0, y1, y2, size)
        if area == _ZERO or left > right or top > bottom:
            continue
        ceiling = max(inverse[a], inverse[b], inverse[c])
        if right - left < 2 and bottom - top < 2:  # in dense meshes this skips half of the faces, those behind others
            upper = min(farthest[top, left], farthest[top, right])
            if ceiling <= min(upper, min(farthest[bottom, left], farthest[bottom, right])):
                continue
        ux, uy, vx, vy = (y2 - y0) / area, (x0 - x2) / area, (y0 - y1) / area, (x1 - x0) / area
        wx, wy = -ux - vx, -uy - vy
        z0, to_b, to_c = inverse[a], inverse[b] - inverse[a], inverse[c] - inverse[a]
        zx, zy = to_b * ux + to_c * vx, to_b * uy + to_c * vy
        for k in range(_N_SAMPLES):
            du[k], dv[k] = _DX[k] * ux + _DY[k] * uy, _DX[k] * vx + _DY[k] * vy
            dw[k], dz[k] = -du[k] - dv[k], _DX[k] * zx + _DY[k] * zy
        u_reach, v_reach, w_reach, z_reach = _reach_of(ux, uy), _reach_of(vx, vy), _reach_of(wx, wy), _reach_of(zx, zy)
        hole = holes.texture[f] if len(holes.texture) else -1
        dx = f4(left) + _HALF - x0
        for row in range(top, bottom + 1):
            dy = f4(row) + _HALF - y0
            u, v, z = dx * ux + dy * uy, dx * vx + dy * vy, z0 + dx * zx + dy * zy
            w = _ONE - u - v
            low, high = _ZERO, f4(right - left)
            if right - left >= _CLIP_FROM:
                low, high = _clip_span(ux, u, u_reach, low, high)
                low, high = _clip_span(vx, v, v_reach, low, high)
                low, high = _clip_span(wx, w, w_reach, low, high)
                if low > high:
                    continue
            u_left, v_left, w_left, z_left = u, v, w, z
            for along in range(int(low), int(high) + 1):
                # Not accumulated along the row: rounding would differ between adjacent faces and leave holes.
                column, step = left + along, f4(along)
                u, v, w, z = u_left + step * ux, v_left + step * vx, w_left + step * wx, z_left + step * zx
                # Nearer than one of the pixel's samples, and within reach of all three edges.
                if min(z + z_reach, ceiling) > farthest[row, column] and u > -u_reach and v > -v_reach and w > -w_reach:
                    covered = u >= u_reach and v >= v_reach and w >= w_reach
                    least = _FAR_OFF
                    for k in range(_N_SAMPLES):
                        depth = z + dz[k]
                        inside = covered or (u + du[k] >= 0 and v + dv[k] >= 0 and w + dw[k] >= 0)
                        is_seen = inside and depth > nearest[row, column, k]
                        if is_seen and hole >= 0:
                            of_b, of_c = (u + du[k]) * inverse[b] / depth, (v + dv[k]) * inverse[c] / depth
                            is_seen = not _is_hole(holes, hole, a, b, c, of_b, of_c)
                        if is_seen:
                            nearest[row, column, k], face[row, column, k] = depth, f
                        least = min(least, nearest[row, column, k])
                    farthest[row, column] = least


@compiled
def _texel(appearance: Appearance, texture: int, level: f4, s: f4, t: f4) -> tuple[f4, f4, f4]:
    """Colour of a repeating texture at uv (s, t), v upwards: bilinear in the nearest mipmap level."""
    k = min(appearance.table.shape[1] - 1, max(0, math.floor(level + _HALF)))
    offset, height, width = (
        appearance.table[texture, k, 0],
        appearance.table[texture, k, 1],
        appearance.table[texture, k, 2],
    )
    upper_left, upper_right, lower_left, lower_right, across, down = _between(height, width, s, t)
    texels = appearance.texels
    a, b, c, d = offset + upper_left, offset + upper_right, offset + lower_left, offset + lower_right
    red = _mixed(f4(texels[a, 0]), f4(texels[b, 0]), f4(texels[c, 0]), f4(texels[d, 0]), across, down)
    green = _mixed(f4(texels[a, 1]), f4(texels[b, 1]), f4(texels[c, 1]), f4(texels[d, 1]), across, down)
    blue = _mixed(f4(texels[a, 2]), f4(texels[b, 2]), f4(texels[c, 2]), f4(texels[d, 2]), across, down)
    return red, green, blue


@compiled
def _mixed(upper_left: f4, upper_right: f4, lower_left: f4, lower_right: f4, across: f4, down: f4) -> f4:
    """Bilinear interpolation between four values."""
    upper = upper_left * (_ONE - across) + upper_right * across
    lower = lower_left * (_ONE - across) + lower_right * across
    return upper * (_ONE - down) + lower * down


@compiled
def _level(mesh: Triangles, appearance: Appearance, f: int, pixel: f4) -> f4:
    """Mipmap level of a face: log2 of the texels per pixel, where `pixel` is the size of a pixel at the face's depth."""
    a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
    uv, p = appearance.uv, mesh.vertices
    s1, t1, s2, t2 = uv[b, 0] - uv[a, 0], uv[b, 1] - uv[a, 1], uv[c, 0] - uv[a, 0], uv[c, 1] - uv[a, 1]
    height, width = appearance.table[appearance.texture[f], 0, 1], appearance.table[appearance.texture[f], 0, 2]
    texels = abs(s1 * t2 - t1 * s2) * f4(height) * f4(width)
    x1, y1, z1 = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
    x2, y2, z2 = p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
    x, y, z = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    area = f4(math.sqrt(x * x + y * y + z * z))
    return f4(_HALF * f4(math.log2(max(texels / max(area, f4(1e-12)), f4(1e-12)))) + f4(math.log2(pixel)))


@compiled
def _surface_color(
    mesh: Triangles, appearance: Appearance, screen: Screen, f: int, column: f4, row: f4, depth: f4, pixel: f4
) -> tuple[f4, f4, f4]:
    """Colour of a face at (column, row) of the image and `depth`."""
    a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
    x, y = screen.x, screen.y
    x1, y1, x2, y2, dx, dy = x[b] - x[a], y[b] - y[a], x[c] - x[a], y[c] - y[a], column - x[a], row - y[a]
    area = x1 * y2 - x2 * y1
    # Perspective-correct barycentric coordinates.
    of_b = (dx * y2 - x2 * dy) / area * screen.inverse[b] * depth
    of_c = (x1 * dy - dx * y1) / area * screen.inverse[c] * depth
    of_a = _ONE - of_b - of_c
    red, green, blue = _WHITE, _WHITE, _WHITE
    colors = appearance.colors
    if len(colors):
        red = of_a * f4(colors[a, 0]) + of_b * f4(colors[b, 0]) + of_c * f4(colors[c, 0])
        green = of_a * f4(colors[a, 1]) + of_b * f4(colors[b, 1]) + of_c * f4(colors[c, 1])
        blue = of_a * f4(colors[a, 2]) + of_b * f4(colors[b, 2]) + of_c * f4(colors[c, 2])
    if len(appearance.texture) and appearance.texture[f] >= 0:
        s = of_a * appearance.uv[a, 0] + of_b * appearance.uv[b, 0] + of_c * appearance.uv[c, 0]
        t = of_a * appearance.uv[a, 1] + of_b * appearance.uv[b, 1] + of_c * appearance.uv[c, 1]
        over_red, over_green, over_blue = _texel(
            appearance, appearance.texture[f], _level(mesh, appearance, f, pixel * depth), s, t
        )
        red, green, blue = red * (over_red / _WHITE), green * (over_green / _WHITE), blue * (over_blue / _WHITE)
    return red, green, blue


@compiled
def _facing_normal(normals: Floats, f: int, pose: Floats, right: f4, up: f4) -> tuple[f4, f4, f4]:
    """Normal of a face in the camera's frame, flipped to the side that faces the ray (right, up, -1)."""
    x = normals[f, 0] * pose[0, 0] + normals[f, 1] * pose[1, 0] + normals[f, 2] * pose[2, 0]
    y = normals[f, 0] * pose[0, 1] + normals[f, 1] * pose[1, 1] + normals[f, 2] * pose[2, 1]
    z = normals[f, 0] * pose[0, 2] + normals[f, 1] * pose[1, 2] + normals[f, 2] * pose[2, 2]
    if x * right + y * up - z > _ZERO:
        return -x, -y, -z
    return x, y, z


@compiled
def _irradiance(lighting: Lighting, x: f4, y: f4, z: f4) -> f4:
    """Light that a surface with this normal receives."""
    total = lighting.ambient
    for n in range(len(lighting.strengths)):
        cosine = x * lighting.towards[n, 0] + y * lighting.towards[n, 1] + z * lighting.towards[n, 2]
        total += max(cosine, _ZERO) * lighting.strengths[n]
    return total


@compiled
def _is_empty(face: Ints, row: int, column: int) -> bool:
    """Whether no sample of a pixel is covered."""
    most = -1
    for k in range(_N_SAMPLES):
        most = max(most, face[row, column, k])
    return most < 0


@compiled
def _is_first_of_face(face: Ints, row: int, column: int, k: int) -> bool:
    """Whether sample k of a pixel is the first sample of its face."""
    f = face[row, column, k]
    if f < 0:
        return False
    for j in range(k):
        if face[row, column, j] == f:
            return False
    return True


@compiled
def _face_coverage(samples: Samples, row: int, column: int, k: int) -> tuple[f4, f4, f4, f4]:
    """Number of samples of the face that sample k is the first of, and the means of their inverse depths, x and y."""
    f = samples.face[row, column, k]
    count, inverse, x, y = _ZERO, _ZERO, _ZERO, _ZERO
    for j in range(k, _N_SAMPLES):
        if samples.face[row, column, j] == f:
            count += _ONE
            inverse += samples.nearest[row, column, j]
            x += _DX[j]
            y += _DY[j]
    return count, inverse / count, x / count, y / count


@compiled
def _add_styles(
    total: Floats,
    styles: Ints,
    lighting: Lighting,
    share: f4,
    nx: f4,
    ny: f4,
    nz: f4,
    irradiance: f4,
    place: f4,
    red: f4,
    green: f4,
    blue: f4,
) -> None:
    """Add one face's part of a pixel to the sums (S, 3) of all styles.

    `share` is its number of samples, `place` its position in the depth range in 0..1, and (red, green, blue) its colour in the
    texture style.
    """
    clay, nearest, depths, knee, slope = lighting.clay, lighting.nearest, lighting.depths, lighting.knee, lighting.slope
    for s in range(len(styles)):
        style = styles[s]
        if style == NORMAL:
            total[s, 0] += share * (nx * _HALF + _HALF) * _WHITE
            total[s, 1] += share * (ny * _HALF + _HALF) * _WHITE
            total[s, 2] += share * (nz * _HALF + _HALF) * _WHITE
        elif style == SILHOUETTE:
            for c in range(3):
                total[s, c] += share * lighting.outline
        elif style == DEPTH:
            for c in range(3):
                total[s, c] += share * _WHITE * (nearest + depths * place)
        else:
            lit_red, lit_green, lit_blue = clay[0] * irradiance, clay[1] * irradiance, clay[2] * irradiance
            if style == TEXTURE:
                lit_red, lit_green, lit_blue = red * irradiance, green * irradiance, blue * irradiance
            total[s, 0] += share * min(lit_red, knee + slope * (lit_red - knee))
            total[s, 1] += share * min(lit_green, knee + slope * (lit_green - knee))
            total[s, 2] += share * min(lit_blue, knee + slope * (lit_blue - knee))


@compiled
def _shade(
    mesh: Triangles,
    appearance: Appearance,
    lighting: Lighting,
    screen: Screen,
    samples: Samples,
    camera: Camera,
    styles: Ints,
    images: Bytes,
) -> bool:
    """Shade images (S, size, size, 3), filled with the background before. Returns whether the mesh is visible.

    A face is shaded once per pixel, at the mean of the samples that it covers.
    """
    size, visible = len(samples.farthest), False
    # Unpacked once: in the loop each access to a tuple would count references.
    face, farthest, normals, pose = samples.face, samples.farthest, mesh.normals, camera.pose
    clay, background = lighting.clay, lighting.background
    textured = appearance.colored and (styles == TEXTURE).any()
    total = np.empty((len(styles), 3), f4)
    middle, last = f4(size) * _HALF, -1
    nx, ny, nz, irradiance = _ZERO, _ZERO, _ZERO, _ZERO
    for row in range(size):
        for column in range(size):
            if farthest[row, column] == _ZERO and _is_empty(face, row, column):
                continue
            visible = True
            total[:] = _ZERO
            empty = f4(_N_SAMPLES)
            for k in range(_N_SAMPLES):
                if not _is_first_of_face(face, row, column, k):
                    continue
                f = face[row, column, k]
                share, inverse, x, y = _face_coverage(samples, row, column, k)
                empty -= share
                at_column, at_row, depth = f4(column) + _HALF + x, f4(row) + _HALF + y, _ONE / inverse
                if f != last:  # adjacent pixels mostly show the same face
                    right, up = (at_column - middle) * camera.pixel, (middle - at_row) * camera.pixel
                    nx, ny, nz = _facing_normal(normals, f, pose, right, up)
                    irradiance = _irradiance(lighting, nx, ny, nz)
                    last = f
                red, green, blue = clay[0], clay[1], clay[2]
                if textured:
                    red, green, blue = _surface_color(
                        mesh, appearance, screen, f, at_column, at_row, depth, camera.pixel
                    )
                place = min(_ONE, max(_ZERO, (depth - camera.near) / (camera.far - camera.near)))
                _add_styles(total, styles, lighting, share, nx, ny, nz, irradiance, place, red, green, blue)
                if share == f4(_N_SAMPLES):
                    break
            for s in range(len(styles)):
                for c in range(3):
                    mean = (total[s, c] + empty * background) * f4(1 / _N_SAMPLES)
                    images[s, row, column, c] = np.uint8(min(_WHITE, max(_ZERO, mean)) + _HALF)
    return visible


@compiled
def draw(
    mesh: Triangles,
    appearance: Appearance,
    holes: Holes,
    lighting: Lighting,
    cameras: Floats,
    tan_half_fov: f4,
    distance: f4,
    styles: Ints,
    images: Bytes,
) -> NDArray[np.bool_]:
    """Render every view into images (V, S, size, size, 3), filled with the background before; (V,) whether it shows anything."""
    n, size = len(mesh.vertices), images.shape[2]
    screen = Screen(np.empty(n, f4), np.empty(n, f4), np.empty(n, f4))
    order = np.empty(len(mesh.faces), np.int32)
    samples = Samples(
        np.empty((size, size, _N_SAMPLES), f4), np.empty((size, size, _N_SAMPLES), np.int32), np.empty((size, size), f4)
    )
    mask = np.zeros(len(cameras), np.bool_)
    pixel = f4(2) * tan_half_fov / f4(size)
    for v in range(len(cameras)):
        samples.nearest[:] = f4(0)
        samples.face[:] = -1
        samples.farthest[:] = f4(0)
        _project(mesh.vertices, cameras[v], size, tan_half_fov, screen)
        _sort_front_to_back(screen.inverse, mesh.faces, order)
        _rasterize(screen, mesh.faces, order, holes, samples)
        camera = Camera(cameras[v], pixel, distance - f4(1), distance + f4(1))
        mask[v] = _shade(mesh, appearance, lighting, screen, samples, camera, styles, images[v])
    return mask
