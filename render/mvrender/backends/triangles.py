"""Triangles to pixels: eight samples a pixel, a depth buffer, and the colours of what the samples see.

Compiled by numba, and kept on disk for the next process. All compiled functions stand in this file, and what decides a picture
elsewhere comes as an argument: numba's cache notices changes of a function's own file alone.
"""

from __future__ import annotations

import math
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numba
import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

f4 = np.float32
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bytes = NDArray[np.uint8]
_Function = TypeVar("_Function", bound=Callable[..., object])

TEXTURE, CLAY, DEPTH, NORMAL, SILHOUETTE = range(5)

# Eight samples of a pixel, no two in one column or row, each opposite to another; in sixteenths of a pixel from its centre.
# They are OpenGL's usual four, shifted by one to either side along the diagonal, so that OpenGL can draw the same in two passes.
_N = 8
_X = (f4(-1 / 16), f4(7 / 16), f4(3 / 16), f4(-5 / 16), f4(1 / 16), f4(-7 / 16), f4(-3 / 16), f4(5 / 16))
_Y = (f4(-5 / 16), f4(-1 / 16), f4(7 / 16), f4(3 / 16), f4(5 / 16), f4(1 / 16), f4(-7 / 16), f4(-3 / 16))
_REACH = f4(7 / 16)
_ZERO, _HALF, _ONE, _WHITE, _THIRD = f4(0), f4(0.5), f4(1), f4(255), f4(1 / 3)
_FLAT, _FAR_OFF = f4(1e-12), f4(1e30)
_DISTANCES = 256
_NARROW_FROM = 4  # columns: below, looking at each is faster than finding where the triangle begins


def compiled(function: _Function) -> _Function:
    """The same, compiled. Without fast mathematics, so that floats are rounded alike on every machine."""
    try:
        fast: _Function = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither beside this file nor in a home may anything be kept
        own = _own_temporary_folder() if numba.config.CACHE_DIR == "" else None
        if own is None:
            fast = njit(nogil=True, error_model="numpy")(function)
        else:
            numba.config.CACHE_DIR = str(own)
            fast = compiled(function)
    return fast


def _own_temporary_folder() -> Path | None:
    """A folder for temporary files that nobody else can write to: what is kept there is run."""
    if not hasattr(os, "getuid"):
        return None
    folder = Path(tempfile.gettempdir()) / f"mvrender-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077
    return folder if is_own else None


def keep_nothing() -> None:
    """From now on, what is compiled is not written to disk: it is full, or a quota is used up."""
    for function in globals().values():
        if isinstance(function, Dispatcher):
            function._cache.disable()  # type: ignore[attr-defined]  # numba has no other way


class Triangles(NamedTuple):
    """A mesh in the world: vertices (n, 3), faces (m, 3), normals of the faces (m, 3), unit."""

    vertices: Floats
    faces: Ints
    normals: Floats


class Screen(NamedTuple):
    """Its vertices in a picture: (n,) columns and rows in pixels, and (n,) inverse depths, which are linear there."""

    x: Floats
    y: Floats
    inverse: Floats


class Samples(NamedTuple):
    """What has been found: (size, size, 8) largest inverse depth and its face, -1 for none; (size, size) least of the eight."""

    nearest: Floats
    face: Ints
    farthest: Floats


class Looks(NamedTuple):
    """Colours of a mesh.

    `colored` says whether it has any; colors (n, 3) of vertices, uv (n, 2) and texture (m,) of faces are empty where it has
    none; table and texels are the textures' pyramids.
    """

    colored: bool
    colors: Bytes
    uv: Floats
    texture: Ints
    table: NDArray[np.int64]
    texels: Bytes


class Camera(NamedTuple):
    """Pose (4, 4), width and height of a pixel at depth 1, and depths of the nearest and farthest point that could be seen."""

    pose: Floats
    pixel: f4
    near: f4
    far: f4


class Light(NamedTuple):
    """Numbers of `shading`.

    Directions to the lights (L, 3), their strengths (L,), ambient light, where and how much light is squeezed below white; clay
    (3,), greys of the nearest point, of the range to the farthest and of outlines; the background.
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
def normals_of(vertices: Floats, faces: Ints) -> Floats:
    """(m, 3) unit normals; of a face without area, which no sample sees, anything."""
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
    """Where a camera (4, 4), which sees all vertices in front of it, sees them."""
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
def _near_first(inverse: Floats, faces: Ints, order: Ints) -> None:
    """Faces (m,) roughly by distance: what lies behind is then refused by one comparison a pixel, which halves the time."""
    low, high = inverse.min(), inverse.max()
    factor = f4(_DISTANCES - 1) / max(high - low, f4(1e-9))
    key = np.empty(len(faces), np.int32)
    start = np.zeros(_DISTANCES + 1, np.int64)
    for f in range(len(faces)):
        middle = (inverse[faces[f, 0]] + inverse[faces[f, 1]] + inverse[faces[f, 2]]) * _THIRD
        key[f] = min(_DISTANCES - 1, max(0, int((high - middle) * factor)))
        start[key[f] + 1] += 1
    for k in range(_DISTANCES):
        start[k + 1] += start[k]
    for f in range(len(faces)):
        order[start[key[f]]] = f
        start[key[f]] += 1


@compiled
def _narrowed(slope: f4, start: f4, reach: f4, low: f4, high: f4) -> tuple[f4, f4]:
    """The part of a row, low to high, where start + slope * column > -reach; high below low where there is none."""
    if slope > _FLAT:
        return max(low, (-reach - start) / slope), high
    if slope < -_FLAT:
        return low, min(high, (-reach - start) / slope)
    return low, (high if start > -reach else f4(-1))


@compiled
def _cover(screen: Screen, faces: Ints, order: Ints, samples: Samples) -> None:
    """Find the nearest face of every sample.

    u, v and w are barycentric coordinates, and z the inverse depth, at a pixel's centre; each is linear in column and row, and
    at the samples differs by the same numbers all over a face.
    """
    size = len(samples.farthest)
    x, y, inverse = screen.x, screen.y, screen.inverse
    nearest, face, farthest = samples.nearest, samples.face, samples.farthest
    du, dv, dw, dz = np.empty(_N, f4), np.empty(_N, f4), np.empty(_N, f4), np.empty(_N, f4)
    for i in range(len(order)):
        f = order[i]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x0, y0, x1, y1, x2, y2 = x[a], y[a], x[b], y[b], x[c], y[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        left = max(0, math.ceil(min(x0, x1, x2) - _HALF - _REACH))
        right = min(size - 1, math.floor(max(x0, x1, x2) - _HALF + _REACH))
        top = max(0, math.ceil(min(y0, y1, y2) - _HALF - _REACH))
        bottom = min(size - 1, math.floor(max(y0, y1, y2) - _HALF + _REACH))
        if area == _ZERO or left > right or top > bottom:
            continue
        ceiling = max(inverse[a], inverse[b], inverse[c])
        if right - left < 2 and bottom - top < 2:  # where faces are dense, half of them end here, behind others
            upper, lower = (
                min(farthest[top, left], farthest[top, right]),
                min(farthest[bottom, left], farthest[bottom, right]),
            )
            if ceiling <= min(upper, lower):
                continue
        ux, uy, vx, vy = (y2 - y0) / area, (x0 - x2) / area, (y0 - y1) / area, (x1 - x0) / area
        wx, wy = -ux - vx, -uy - vy
        z0, to_b, to_c = inverse[a], inverse[b] - inverse[a], inverse[c] - inverse[a]
        zx, zy = to_b * ux + to_c * vx, to_b * uy + to_c * vy
        for k in range(_N):
            du[k], dv[k], dz[k] = _X[k] * ux + _Y[k] * uy, _X[k] * vx + _Y[k] * vy, _X[k] * zx + _Y[k] * zy
            dw[k] = -du[k] - dv[k]
        u_reach, v_reach, w_reach = (
            _REACH * (abs(ux) + abs(uy)),
            _REACH * (abs(vx) + abs(vy)),
            _REACH * (abs(wx) + abs(wy)),
        )
        z_reach = _REACH * (abs(zx) + abs(zy))
        dx = f4(left) + _HALF - x0
        for row in range(top, bottom + 1):
            dy = f4(row) + _HALF - y0
            u, v, z = dx * ux + dy * uy, dx * vx + dy * vy, z0 + dx * zx + dy * zy
            w = _ONE - u - v
            low, high = _ZERO, f4(right - left)
            if right - left >= _NARROW_FROM:
                low, high = _narrowed(ux, u, u_reach, low, high)
                low, high = _narrowed(vx, v, v_reach, low, high)
                low, high = _narrowed(wx, w, w_reach, low, high)
                if low > high:
                    continue
            u_left, v_left, w_left, z_left = u, v, w, z
            for along in range(int(low), int(high) + 1):
                # Not summed up on the way: what is rounded would differ between neighbours, and leave holes between them.
                column, step = left + along, f4(along)
                u, v, w, z = u_left + step * ux, v_left + step * vx, w_left + step * wx, z_left + step * zx
                # Nearer than something that is there, and within reach of all three edges.
                if min(z + z_reach, ceiling) > farthest[row, column] and u > -u_reach and v > -v_reach and w > -w_reach:
                    whole = u >= u_reach and v >= v_reach and w >= w_reach
                    least = _FAR_OFF
                    for k in range(_N):
                        now = z + dz[k]
                        if (whole or (u + du[k] >= 0 and v + dv[k] >= 0 and w + dw[k] >= 0)) and now > nearest[
                            row, column, k
                        ]:
                            nearest[row, column, k], face[row, column, k] = now, f
                        least = min(least, nearest[row, column, k])
                    farthest[row, column] = least


@compiled
def _texel(looks: Looks, texture: int, level: f4, s: f4, t: f4) -> tuple[f4, f4, f4]:
    """A texture's colour at uv (s, t), repeating, v upwards: bilinear, of the nearest level."""
    k = min(looks.table.shape[1] - 1, max(0, math.floor(level + _HALF)))
    offset, height, width = looks.table[texture, k, 0], looks.table[texture, k, 1], looks.table[texture, k, 2]
    x = (s - f4(math.floor(s))) * f4(width) - _HALF
    y = (_ONE - (t - f4(math.floor(t)))) * f4(height) - _HALF
    column, row = f4(math.floor(x)), f4(math.floor(y))
    across, down = x - column, y - row
    left, top = int(column) % width, int(row) % height
    right, bottom = (left + 1) % width, (top + 1) % height
    texels = looks.texels
    upper, lower = offset + top * width, offset + bottom * width
    a, b, c, d = upper + left, upper + right, lower + left, lower + right
    red = _mixed(f4(texels[a, 0]), f4(texels[b, 0]), f4(texels[c, 0]), f4(texels[d, 0]), across, down)
    green = _mixed(f4(texels[a, 1]), f4(texels[b, 1]), f4(texels[c, 1]), f4(texels[d, 1]), across, down)
    blue = _mixed(f4(texels[a, 2]), f4(texels[b, 2]), f4(texels[c, 2]), f4(texels[d, 2]), across, down)
    return red, green, blue


@compiled
def _mixed(upper_left: f4, upper_right: f4, lower_left: f4, lower_right: f4, across: f4, down: f4) -> f4:
    """Between four numbers, `across` and `down` of the way."""
    upper = upper_left * (_ONE - across) + upper_right * across
    lower = lower_left * (_ONE - across) + lower_right * across
    return upper * (_ONE - down) + lower * down


@compiled
def _level(mesh: Triangles, looks: Looks, f: int, pixel: f4) -> f4:
    """log2 of the texels of a face that a pixel covers, `pixel` wide where the face is."""
    a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
    uv, p = looks.uv, mesh.vertices
    s1, t1, s2, t2 = uv[b, 0] - uv[a, 0], uv[b, 1] - uv[a, 1], uv[c, 0] - uv[a, 0], uv[c, 1] - uv[a, 1]
    height, width = looks.table[looks.texture[f], 0, 1], looks.table[looks.texture[f], 0, 2]
    texels = abs(s1 * t2 - t1 * s2) * f4(height) * f4(width)
    x1, y1, z1 = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
    x2, y2, z2 = p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
    x, y, z = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
    area = f4(math.sqrt(x * x + y * y + z * z))
    return f4(_HALF * f4(math.log2(max(texels / max(area, f4(1e-12)), f4(1e-12)))) + f4(math.log2(pixel)))


@compiled
def _own_color(
    mesh: Triangles, looks: Looks, screen: Screen, f: int, column: f4, row: f4, depth: f4, pixel: f4
) -> tuple[f4, f4, f4]:
    """Colour of a face where a picture has (column, row) and `depth`."""
    a, b, c = mesh.faces[f, 0], mesh.faces[f, 1], mesh.faces[f, 2]
    x, y = screen.x, screen.y
    x1, y1, x2, y2, dx, dy = x[b] - x[a], y[b] - y[a], x[c] - x[a], y[c] - y[a], column - x[a], row - y[a]
    area = x1 * y2 - x2 * y1
    # What is linear on the screen, divided by depth, is linear on the face.
    of_b = (dx * y2 - x2 * dy) / area * screen.inverse[b] * depth
    of_c = (x1 * dy - dx * y1) / area * screen.inverse[c] * depth
    of_a = _ONE - of_b - of_c
    red, green, blue = _WHITE, _WHITE, _WHITE
    colors = looks.colors
    if len(colors):
        red = of_a * f4(colors[a, 0]) + of_b * f4(colors[b, 0]) + of_c * f4(colors[c, 0])
        green = of_a * f4(colors[a, 1]) + of_b * f4(colors[b, 1]) + of_c * f4(colors[c, 1])
        blue = of_a * f4(colors[a, 2]) + of_b * f4(colors[b, 2]) + of_c * f4(colors[c, 2])
    if len(looks.texture) and looks.texture[f] >= 0:
        s = of_a * looks.uv[a, 0] + of_b * looks.uv[b, 0] + of_c * looks.uv[c, 0]
        t = of_a * looks.uv[a, 1] + of_b * looks.uv[b, 1] + of_c * looks.uv[c, 1]
        over_red, over_green, over_blue = _texel(looks, looks.texture[f], _level(mesh, looks, f, pixel * depth), s, t)
        red, green, blue = red * (over_red / _WHITE), green * (over_green / _WHITE), blue * (over_blue / _WHITE)
    return red, green, blue


@compiled
def _seen_normal(normals: Floats, f: int, pose: Floats, right: f4, up: f4) -> tuple[f4, f4, f4]:
    """A face's normal in the camera's frame, turned to the side that is seen along the ray (right, up, -1)."""
    x = normals[f, 0] * pose[0, 0] + normals[f, 1] * pose[1, 0] + normals[f, 2] * pose[2, 0]
    y = normals[f, 0] * pose[0, 1] + normals[f, 1] * pose[1, 1] + normals[f, 2] * pose[2, 1]
    z = normals[f, 0] * pose[0, 2] + normals[f, 1] * pose[1, 2] + normals[f, 2] * pose[2, 2]
    if x * right + y * up - z > _ZERO:
        return -x, -y, -z
    return x, y, z


@compiled
def _light_on(light: Light, x: f4, y: f4, z: f4) -> f4:
    """How much light falls on a surface with this normal."""
    falls = light.ambient
    for n in range(len(light.strengths)):
        towards = x * light.towards[n, 0] + y * light.towards[n, 1] + z * light.towards[n, 2]
        falls += max(towards, _ZERO) * light.strengths[n]
    return falls


@compiled
def _is_empty(face: Ints, row: int, column: int) -> bool:
    """Whether no sample of a pixel sees anything."""
    most = -1
    for k in range(_N):
        most = max(most, face[row, column, k])
    return most < 0


@compiled
def _is_first(face: Ints, row: int, column: int, k: int) -> bool:
    """Whether a pixel's sample k sees a face that no sample before it sees."""
    f = face[row, column, k]
    if f < 0:
        return False
    for j in range(k):
        if face[row, column, j] == f:
            return False
    return True


@compiled
def _together(samples: Samples, row: int, column: int, k: int) -> tuple[f4, f4, f4, f4]:
    """Of the samples that see what sample k, the first, sees: how many, and the means of their inverse depths, x and y."""
    f = samples.face[row, column, k]
    count, inverse, x, y = _ZERO, _ZERO, _ZERO, _ZERO
    for j in range(k, _N):
        if samples.face[row, column, j] == f:
            count += _ONE
            inverse += samples.nearest[row, column, j]
            x += _X[j]
            y += _Y[j]
    return count, inverse / count, x / count, y / count


@compiled
def _paint(
    mesh: Triangles,
    looks: Looks,
    light: Light,
    screen: Screen,
    samples: Samples,
    camera: Camera,
    styles: Ints,
    images: Bytes,
) -> bool:
    """Fill pictures (S, size, size, 3), which hold the background; tells whether anything is seen.

    A face is looked at once in a pixel, in the middle of the samples that see it.
    """
    size, seen = len(samples.farthest), False
    # Out of their tuples once: within the loop each access would count references.
    face, farthest, normals, pose = samples.face, samples.farthest, mesh.normals, camera.pose
    clay, nearest, depths, knee, slope = light.clay, light.nearest, light.depths, light.knee, light.slope
    total = np.empty((len(styles), 3), f4)
    middle, last = f4(size) * _HALF, -1
    nx, ny, nz, falls = _ZERO, _ZERO, _ZERO, _ZERO
    for row in range(size):
        for column in range(size):
            if farthest[row, column] == _ZERO and _is_empty(face, row, column):
                continue
            seen = True
            total[:] = _ZERO
            empty = f4(_N)
            for k in range(_N):
                if not _is_first(face, row, column, k):
                    continue
                f = face[row, column, k]
                share, inverse, x, y = _together(samples, row, column, k)
                empty -= share
                at_column, at_row, depth = f4(column) + _HALF + x, f4(row) + _HALF + y, _ONE / inverse
                if f != last:  # neighbours mostly see the same face
                    right, up = (at_column - middle) * camera.pixel, (middle - at_row) * camera.pixel
                    nx, ny, nz = _seen_normal(normals, f, pose, right, up)
                    falls = _light_on(light, nx, ny, nz)
                    last = f
                for s in range(len(styles)):
                    style = styles[s]
                    if style == NORMAL:
                        total[s, 0] += share * (nx * _HALF + _HALF) * _WHITE
                        total[s, 1] += share * (ny * _HALF + _HALF) * _WHITE
                        total[s, 2] += share * (nz * _HALF + _HALF) * _WHITE
                    elif style == SILHOUETTE:
                        for c in range(3):
                            total[s, c] += share * light.outline
                    elif style == DEPTH:
                        place = min(_ONE, max(_ZERO, (depth - camera.near) / (camera.far - camera.near)))
                        for c in range(3):
                            total[s, c] += share * _WHITE * (nearest + depths * place)
                    else:
                        red, green, blue = clay[0], clay[1], clay[2]
                        if style == TEXTURE and looks.colored:
                            red, green, blue = _own_color(
                                mesh, looks, screen, f, at_column, at_row, depth, camera.pixel
                            )
                        red, green, blue = red * falls, green * falls, blue * falls
                        total[s, 0] += share * min(red, knee + slope * (red - knee))
                        total[s, 1] += share * min(green, knee + slope * (green - knee))
                        total[s, 2] += share * min(blue, knee + slope * (blue - knee))
                if share == f4(_N):
                    break
            for s in range(len(styles)):
                for c in range(3):
                    mean = (total[s, c] + empty * light.background) * f4(1 / _N)
                    images[s, row, column, c] = np.uint8(min(_WHITE, max(_ZERO, mean)) + _HALF)
    return seen


@compiled
def draw(
    mesh: Triangles,
    looks: Looks,
    light: Light,
    cameras: Floats,
    tan_half_fov: f4,
    distance: f4,
    styles: Ints,
    images: Bytes,
) -> NDArray[np.bool_]:
    """Draw every view into images (V, S, size, size, 3), which hold the background; (V,) whether anything is seen."""
    n, size = len(mesh.vertices), images.shape[2]
    screen = Screen(np.empty(n, f4), np.empty(n, f4), np.empty(n, f4))
    order = np.empty(len(mesh.faces), np.int32)
    samples = Samples(np.empty((size, size, _N), f4), np.empty((size, size, _N), np.int32), np.empty((size, size), f4))
    mask = np.zeros(len(cameras), np.bool_)
    pixel = f4(2) * tan_half_fov / f4(size)
    for v in range(len(cameras)):
        samples.nearest[:] = f4(0)
        samples.face[:] = -1
        samples.farthest[:] = f4(0)
        _project(mesh.vertices, cameras[v], size, tan_half_fov, screen)
        _near_first(screen.inverse, mesh.faces, order)
        _cover(screen, mesh.faces, order, samples)
        camera = Camera(cameras[v], pixel, distance - f4(1), distance + f4(1))
        mask[v] = _paint(mesh, looks, light, screen, samples, camera, styles, images[v])
    return mask
