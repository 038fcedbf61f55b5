"""Python blocks of the pages compile and import names that exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re

import pytest
from doc_pages import PAGES, ROOT, Block, blocks

_BLOCKS = [block for page in PAGES for block in blocks(page) if block.language == "python"]


@pytest.mark.parametrize(
    "block", _BLOCKS, ids=lambda block: f"{block.page}-{block.text.splitlines()[0][:40]}".replace("/", "-")
)
def test_python_block_is_valid(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize(
    "block", _BLOCKS, ids=lambda block: f"{block.page}-{block.text.splitlines()[0][:40]}".replace("/", "-")
)
def test_methods_of_a_collection_exist(block: Block) -> None:
    from mvretrieval import Client, Collection

    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in ("things", "collection", "Collection"):
                known = node.attr == "session" or hasattr(Collection, node.attr) or hasattr(Client, node.attr)
                assert known, f"{block.page}: {node.attr}"


def test_there_are_python_blocks() -> None:
    assert len(_BLOCKS) >= 2


def test_the_api_page_names_what_exists() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    entries = re.findall(r"^::: (\S+)\n((?:    .*\n)*)", text, re.MULTILINE)
    assert len(entries) > 30
    for name, options in entries:
        entry = pkgutil.resolve_name(name)
        listed = re.search(r"members: \[(.*)\]", options)
        for member in listed[1].split(", ") if listed else ():
            assert hasattr(entry, member), f"{name}.{member}"
