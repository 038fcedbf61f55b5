"""The import graph of the packages: no circle of any kind, and imports point down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "mvrender": ROOT / "render" / "mvrender",
    "mvretrieval": ROOT / "mvretrieval",
    "mvtrain": ROOT / "training" / "mvtrain",
}

# From low to high; a module may import modules of its own layer and of lower ones.
LAYERS = (
    ("mvrender",),
    (
        "mvretrieval.errors",
        "mvretrieval.normalize",
        "mvretrieval.npz_file",
        "mvretrieval.images",
        "mvretrieval.csv_file",
        "mvretrieval.procedural_shapes",
    ),
    ("mvretrieval.augmentation",),
    ("mvretrieval.encoders", "mvretrieval.weighting"),
    ("mvretrieval.describe", "mvretrieval.store"),
    ("mvretrieval.embed",),
    ("mvretrieval.index",),
    ("mvretrieval.session",),
    ("mvretrieval.ingest", "mvretrieval.confidence"),
    ("mvretrieval.search",),
    ("mvretrieval.evaluation",),
    ("mvretrieval.api",),
    ("mvretrieval.client", "mvretrieval.console"),
    ("mvtrain",),
    ("mvretrieval.service",),
    ("mvretrieval.cli",),
    ("mvretrieval.__main__",),
)
# `mvretrieval` itself names its public objects for type checkers and imports them when they are first used.
FACADE = {"mvretrieval", "mvtrain", "mvrender"}


def _modules() -> dict[str, Path]:
    found = {}
    for package, folder in PACKAGES.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path
    return found


def _imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """Modules that a file imports: at the top, in functions, and under `TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in modules:
                    yield full
                elif node.module in modules:
                    yield node.module


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    modules = _modules()
    return {name: set(_imports(path, modules)) - {name} for name, path in modules.items()}


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of imports, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if circle := visit(other, [*path, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


def test_there_is_no_circle(graph: dict[str, set[str]]) -> None:
    without_facades = {name: others - FACADE for name, others in graph.items() if name not in FACADE}
    assert _circle(without_facades) == []


def test_a_circle_would_be_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_packages_are_free_of_circles(graph: dict[str, set[str]]) -> None:
    """The same for folders: `search` may import `store`, and `store` then not `search`."""

    def folder(name: str) -> str:
        return ".".join(name.split(".")[:2]) if name.startswith("mvretrieval.") else name.split(".")[0]

    folders: dict[str, set[str]] = {}
    for name, others in graph.items():
        if name not in FACADE:
            own = folder(name)
            folders.setdefault(own, set()).update({folder(other) for other in others if other not in FACADE} - {own})
    assert _circle(folders) == []


def _layer(name: str) -> int:
    for level, prefixes in enumerate(LAYERS):
        if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
            return level
    raise AssertionError(f"{name} has no layer: add it to LAYERS")


def test_imports_point_down(graph: dict[str, set[str]]) -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph.items()
        if name not in FACADE
        for other in others - FACADE
        # The command line of mvretrieval starts that of mvtrain by name.
        if _layer(other) > _layer(name)
    ]
    assert wrong == []


def test_nothing_below_imports_the_facade(graph: dict[str, set[str]]) -> None:
    above = ("mvretrieval.cli", "mvretrieval.service", "mvretrieval.client", "mvretrieval.__main__", "mvtrain")
    importers = {name for name, others in graph.items() if "mvretrieval.api" in others} - FACADE
    assert {name for name in importers if not name.startswith(above)} == set()
