"""Results that the pages state are those of benchmarks/results.yaml."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from doc_pages import ROOT

from mvretrieval.cli.index_kinds import HELP
from mvretrieval.evaluation.reproduce.published import Setting, published_table
from mvretrieval.evaluation.reproduce.table import read_table

_RESULTS: dict[str, Any] = yaml.safe_load((ROOT / "benchmarks" / "results.yaml").read_text(encoding="utf-8"))
_NUMBER = re.compile(r"(?<![@\w.-])[+-]?\d[\d,]*(?:\.\d+)?")


def _rows(page: str) -> list[tuple[str, list[str], str]]:
    """(page, names of results, cell of measured values) of the tables whose first column names a result."""
    rows = []
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([\w-]+)`", cells[0]) if line.startswith("| `") else []
        if names and all(name in _RESULTS for name in names) and len(cells) >= 3:
            # The table of view weights has a column for each weighting; in others, targets follow.
            rows.append((page, names, " ".join(cells[1:]) if names[0].startswith("weights-matter") else cells[2]))
    return rows


_ROWS = [row for page in ("README.md", "docs/benchmarks.md") for row in _rows(page)]


@pytest.mark.parametrize(
    ("page", "names", "cell"), _ROWS, ids=lambda value: "-".join(value) if isinstance(value, list) else None
)
def test_measured_values(page: str, names: list[str], cell: str) -> None:
    values = [value for name in names for value in _RESULTS[name]["value"].values()]
    for text in _NUMBER.findall(cell):
        decimals = len(text.partition(".")[2])
        plain = float(text.replace(",", ""))
        assert any(abs(value - plain) <= 0.5 * 10**-decimals + 1e-9 for value in values), (
            f"{page}, {names}: {text} is in none of {values}"
        )


def test_every_result_is_on_the_page() -> None:
    stated = {name for page, names, _ in _ROWS if page == "docs/benchmarks.md" for name in names}
    others = {name for name, result in _RESULTS.items() if result["group"] != "speed"}
    assert others - stated <= {"lora-equal", "resume-equal"}  # equalities, tested in the suite too


@pytest.mark.parametrize(
    ("name", "setting"), [("open-set", "inductive"), ("open-set", "transductive"), ("zero-shot", "inductive")]
)
def test_published_results_are_those_of_the_tables(name: str, setting: Setting) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    head, rows = published_table(read_table(name).published, setting)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    wanted = "\n".join(lines).replace("| --- ", "|---").replace("--- |", "---|")
    assert f"\n{wanted}\n\n" in page, wanted


def test_the_help_on_kinds_of_index_states_what_is_measured() -> None:
    peers = _RESULTS["search-peers"]["value"]
    for kind in ("hnsw", "ivf"):
        row = re.search(rf"^  {kind} +0\.99 +([\d,]+) +(\d+) s ", HELP, re.MULTILINE)
        assert row is not None
        rate, seconds = peers[f"ours, {kind}, one at 0.99, queries/s"], peers[f"ours, {kind}, build s"]
        assert row[1] == f"{round(rate, -2):,.0f}" and row[2] == f"{seconds:.0f}"
    row = re.search(r"^  exact +1 +(\d+) \*", HELP, re.MULTILINE)
    assert row is not None and row[1] == f"{1000 / _RESULTS['search-one']['value']['ours ms']:.0f}"
