"""Vertices of COLLADA controllers: skins in the pose of the nodes, and morphs.

Source: COLLADA 1.4.1 specification, "skin" and "morph", and chapter 4 "Skinning a skeleton in COLLADA".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvrender.readers.collada_file import ColladaFile, Element
from mvrender.readers.text import spans


def geometry_of(file: ColladaFile, controller: Element) -> Element | None:
    """The geometry that a controller deforms, through other controllers."""
    for _ in range(8):
        deformer = next(file.children(controller, "skin", "morph"), None)
        found = None if deformer is None else file.target(deformer.get("source"))
        if found is None or found.tag != "controller":
            return found
        controller = found
    return None


def posed(
    file: ColladaFile, controller: Element, vertices: NDArray[np.float64], skeletons: Sequence[str]
) -> tuple[NDArray[np.float64], bool]:
    """Vertices (n, 3) of a geometry as a controller deforms them.

    Args:
        file: of all elements.
        controller: of the geometry.
        vertices: of the geometry.
        skeletons: URLs of the nodes below which the joints are.

    Returns:
        The vertices, and whether they are in the frame of the scene, so that the transform of the node does not count.
    """
    deformer = next(file.children(controller, "skin", "morph"), None)
    if deformer is None:
        return vertices, False
    inner = file.target(deformer.get("source"))
    if inner is not None and inner.tag == "controller":
        vertices, _ = posed(file, inner, vertices, skeletons)
    if deformer.tag == "morph":
        return _morphed(file, deformer, vertices), False
    return _skinned(file, deformer, vertices, skeletons)


def _morphed(file: ColladaFile, morph: Element, vertices: NDArray[np.float64]) -> NDArray[np.float64]:
    targets = morph.find("targets")
    inputs = {} if targets is None else file.sources(targets, morph)
    if not {"MORPH_TARGET", "MORPH_WEIGHT"} <= set(inputs):
        return vertices
    relative = morph.get("method", "NORMALIZED") == "RELATIVE"
    weights = file.source(inputs["MORPH_WEIGHT"].source)[:, 0]
    total = vertices if relative else vertices * (1 - weights.sum())
    for name, weight in zip(file.names(inputs["MORPH_TARGET"].source), weights, strict=False):
        target = file.target(name)
        positions = None if target is None else positions_of(file, target)
        if weight and positions is not None and len(positions) == len(vertices):
            total = total + weight * positions
        elif not relative:
            total = total + weight * vertices
    return total


def positions_of(file: ColladaFile, geometry: Element) -> NDArray[np.float64] | None:
    """(n, 3) positions of a geometry; None if it has none."""
    mesh = geometry.find("mesh")
    vertices = None if mesh is None else mesh.find("vertices")
    entry = None if vertices is None else file.sources(vertices, mesh).get("POSITION")
    return None if entry is None else file.source(entry.source)[:, :3]


def _skinned(
    file: ColladaFile, skin: Element, vertices: NDArray[np.float64], skeletons: Sequence[str]
) -> tuple[NDArray[np.float64], bool]:
    given = skin.find("bind_shape_matrix")
    bind_shape = np.eye(4) if given is None else file.floats(given.text)[:16].reshape(4, 4)
    vertices = vertices @ bind_shape[:3, :3].T + bind_shape[:3, 3]
    joints = _joints(file, skin, skeletons)
    shares = skin.find("vertex_weights")
    if joints is None or shares is None:
        return vertices, False
    inputs = file.sources(shares, skin)
    if not {"JOINT", "WEIGHT"} <= set(inputs):
        return vertices, False
    counts, indices = file.integers(shares.findtext("vcount")), file.integers(shares.findtext("v"))
    stride = 1 + max(entry.offset for entry in inputs.values())
    rows = indices[: len(indices) // stride * stride].reshape(-1, stride)
    if len(counts) > len(vertices) or counts.sum() > len(rows):
        raise ValueError("a skin has weights of other vertices than the geometry has")
    owner = np.repeat(np.arange(len(counts)), counts)
    rows = rows[spans(np.cumsum(counts) - counts, counts)]
    which = rows[:, inputs["JOINT"].offset]
    weights = file.source(inputs["WEIGHT"].source)[:, 0][rows[:, inputs["WEIGHT"].offset]]
    if len(which) and which.max() >= len(joints):
        raise ValueError("a skin names a joint that does not exist")
    matrices = np.concatenate([joints, np.eye(4)[None]])  # -1: the bind shape itself
    total, sums = np.zeros((len(vertices), 4, 4)), np.zeros(len(vertices))
    np.add.at(total, owner, weights[:, None, None] * matrices[which])
    np.add.at(sums, owner, weights)
    total /= np.where(sums > 0, sums, 1)[:, None, None]
    moved = np.einsum("nij,nj->ni", total[:, :3, :3], vertices) + total[:, :3, 3]
    return np.where(sums[:, None] > 0, moved, vertices), True


def _joints(file: ColladaFile, skin: Element, skeletons: Sequence[str]) -> NDArray[np.float64] | None:
    """(j, 4, 4) transforms of the joints, after their inverse bind matrices; None if a joint has no node."""
    joints = skin.find("joints")
    inputs = {} if joints is None else file.sources(joints, skin)
    if not {"JOINT", "INV_BIND_MATRIX"} <= set(inputs):
        return None
    names = file.names(inputs["JOINT"].source)
    inverse = file.source(inputs["INV_BIND_MATRIX"].source).reshape(-1, 4, 4)
    roots = [root for root in map(file.target, skeletons) if root is not None] or [file.root]
    nodes: dict[str | None, Element] = {}
    for root in roots:
        for node in root.iter("node"):
            nodes.setdefault(node.get("sid"), node)
            nodes.setdefault(node.get("id"), node)
    if not names or len(inverse) < len(names) or any(name not in nodes for name in names):
        return None
    world = np.stack([file.world(nodes[name]) for name in names])
    return world @ inverse[: len(names)]
