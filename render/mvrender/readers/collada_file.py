"""The XML of a COLLADA file: elements by id, and the numbers of its sources.

Source: COLLADA 1.4.1 specification (Khronos), chapters 5 and "source", "accessor", "node".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from lxml import etree
from numpy.typing import NDArray

from mvrender.readers.parts import Reading
from mvrender.readers.text import numbers_of

Element = Any
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Input:
    """An `input` of a primitive, or of `vertices`.

    Attributes:
        semantic: such as TEXCOORD.
        source: the element with its values.
        offset: among the indices of a corner.
        set: number of the texture coordinates.
    """

    semantic: str
    source: Element
    offset: int
    set: int


class ColladaFile:
    """A parsed file; namespaces are removed from all names."""

    def __init__(self, data: bytes, reading: Reading) -> None:
        """Parse a file without reading anything else.

        Raises:
            lxml.etree.XMLSyntaxError: it is no XML.
            ValueError: it is no COLLADA.
        """
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, huge_tree=True, remove_comments=True
        )
        self.root: Element = etree.fromstring(data, parser)
        self._reading = reading
        self._sources: dict[Element, NDArray[np.float64]] = {}
        for element in self.root.iter(etree.Element):
            element.tag = element.tag.rpartition("}")[2]
        if self.root.tag != "COLLADA":
            raise ValueError(f"its root is '{self.root.tag}', not 'COLLADA'")

    @cached_property
    def by_id(self) -> dict[str, Element]:
        """Elements by their id."""
        return {element.get("id"): element for element in self.root.iter(etree.Element) if element.get("id")}

    @cached_property
    def parents(self) -> dict[Element, Element]:
        """The parent node of each node."""
        return {child: node for node in self.root.iter("node") for child in node.findall("node")}

    def target(self, url: str | None, near: Element | None = None) -> Element | None:
        """The element that a URL of this file names; None if there is none.

        Ids of sources are sought among the children of `near` first: some exporters use them again in each geometry.
        """
        if not url:
            return None
        key = url.lstrip("#")
        if near is not None:
            for child in near:
                if child.get("id") == key:
                    return child
        return self.by_id.get(key)

    def floats(self, text: str | None) -> NDArray[np.float64]:
        """The numbers of a text.

        Raises:
            ValueError: it holds other words.
        """
        text = text or ""
        if "," in text:
            self._reading.note("numbers have commas; they are read as decimal points")
            text = text.replace(",", ".")
        numbers = numbers_of(text, np.float64)
        if len(numbers) < len(text.split()):
            raise ValueError(f"'{text.split()[len(numbers)][:40]}' is not a number")
        return numbers

    def integers(self, text: str | None) -> NDArray[np.int64]:
        """The integers of a text."""
        found = numbers_of(text or "", np.int64)
        if len(found) < len((text or "").split()):
            raise ValueError("an index is not a number")
        return found

    def source(self, source: Element) -> NDArray[np.float64]:
        """(n, components) values of a source."""
        if source not in self._sources:
            array = source.find("float_array")
            accessor = source.find("technique_common/accessor")
            if array is None and accessor is not None:
                array = self.target(accessor.get("source"))
            numbers = self.floats(None if array is None else array.text)
            stride, offset, named = 1, 0, None
            if accessor is not None:
                stride, offset = max(1, int(accessor.get("stride", 1))), int(accessor.get("offset", 0))
                parameters = accessor.findall("param")
                if len(parameters) == stride:  # a matrix is one parameter of sixteen numbers
                    named = [i for i, parameter in enumerate(parameters) if parameter.get("type") != "name"]
            count = (len(numbers) - offset) // stride
            values = numbers[offset : offset + count * stride].reshape(count, stride)
            self._sources[source] = values[:, named] if named else values
        return self._sources[source]

    def names(self, source: Element) -> list[str]:
        """The words of a source of names."""
        array = next((child for child in source if child.tag in ("Name_array", "IDREF_array")), None)
        return [] if array is None else (array.text or "").split()

    def inputs(self, element: Element, near: Element) -> list[Input]:
        """The inputs of an element, with those of `vertices` in place of VERTEX; without those whose source is missing.

        Args:
            element: a primitive or `vertices`, or a part of a controller.
            near: its mesh, skin or morph, which has the sources.
        """
        found: list[Input] = []
        for entry in element.findall("input"):
            source = self.target(entry.get("source"), near)
            if source is None:
                continue
            offset, number = int(entry.get("offset", 0)), int(entry.get("set", 0))
            if source.tag == "vertices":
                found += [
                    Input(inner.semantic, inner.source, offset, inner.set or number)
                    for inner in self.inputs(source, near)
                ]
            else:
                found.append(Input(entry.get("semantic", ""), source, offset, number))
        return found

    def sources(self, element: Element, near: Element) -> dict[str, Input]:
        """The inputs of an element by their semantic."""
        return {entry.semantic: entry for entry in self.inputs(element, near)}

    def local(self, node: Element) -> Matrix:
        """(4, 4) transform of a node below its parent: its transforms in their order."""
        matrix = np.eye(4)
        for element in node:
            if element.tag in _TRANSFORMS:
                matrix = matrix @ _TRANSFORMS[element.tag](self.floats(element.text))
        return matrix

    def world(self, node: Element) -> Matrix:
        """(4, 4) transform of a node in the scene."""
        matrix = self.local(node)
        above = self.parents.get(node)
        while above is not None:
            matrix = self.local(above) @ matrix
            above = self.parents.get(above)
        return matrix

    def children(self, element: Element, *tags: str) -> Iterator[Element]:
        """Children with one of some tags."""
        return (child for child in element if child.tag in tags)


def _given_matrix(numbers: NDArray[np.float64]) -> Matrix:
    return numbers[:16].reshape(4, 4)


def _translate(numbers: NDArray[np.float64]) -> Matrix:
    matrix = np.eye(4)
    matrix[:3, 3] = numbers[:3]
    return matrix


def _scale(numbers: NDArray[np.float64]) -> Matrix:
    return np.diag([*numbers[:3], 1.0])


def _rotate(numbers: NDArray[np.float64]) -> Matrix:
    """Axis, and degrees."""
    axis, degrees = numbers[:3], float(numbers[3])
    length = float(np.linalg.norm(axis))
    if length == 0:
        return np.eye(4)
    x, y, z = axis / length
    cross = np.array([(0, -z, y), (z, 0, -x), (-y, x, 0)])
    angle = math.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return matrix


def _look_at(numbers: NDArray[np.float64]) -> Matrix:
    eye, target, up = numbers[:9].reshape(3, 3)
    back = eye - target
    right = np.cross(up, back)
    lengths = np.linalg.norm(back), np.linalg.norm(right)
    if 0 in lengths:
        return _translate(eye)
    back, right = back / lengths[0], right / lengths[1]
    matrix = np.eye(4)
    matrix[:3] = np.column_stack([right, np.cross(back, right), back, eye])
    return matrix


_TRANSFORMS = {"matrix": _given_matrix, "translate": _translate, "scale": _scale, "rotate": _rotate, "lookat": _look_at}
