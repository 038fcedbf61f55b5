"""Every `mvr` command line of the pages parses with the real parsers, and the reference lists every option."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_pages import PAGES, ROOT, blocks, name_of, prose

sys.path.insert(0, str(ROOT / "docs"))
from command_reference import command_reference

from mvrender import plugins
from mvretrieval.cli.commands import command_module, command_names
from mvretrieval.cli.main import main
from mvretrieval.cli.parsing import SHARED_FLAGS, command_options


def _command_lines() -> list[tuple[str, str]]:
    """(page, command) of the lines in shell blocks that start with `mvr`, after variables and launchers."""
    found = []
    for page in PAGES:
        for block in blocks(page):
            if block.language in ("", "sh", "bash", "console", "shell"):
                text = block.text.replace("\\\n", " ")
                found += [
                    (name_of(page), line) for line in text.splitlines() if re.match(r"(\$ )?([A-Z_]+=\S+ )*mvr ", line)
                ]
    return found


def _arguments(line: str) -> list[str]:
    """Words of a command line, up to a redirection or a pipe."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    words = words[words.index("mvr") + 1 :]
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&")]
    return words[: min(ends, default=len(words))]


def test_there_are_command_lines() -> None:
    assert len(_command_lines()) > 20


@pytest.fixture
def plugins_of_the_pages() -> Iterator[None]:
    """Names that docs/plugins.md uses, as if its package were installed."""
    before = dict(plugins._registered)
    plugins.register("weightings", "central", lambda dim, n_views: None)
    plugins.register("losses", "triplet", lambda n_classes, dim: None)
    yield
    plugins._registered.clear()
    plugins._registered.update(before)


@pytest.mark.usefixtures("plugins_of_the_pages")
@pytest.mark.parametrize(("page", "line"), _command_lines(), ids=lambda text: text.replace("/", "-"))
def test_command_line_parses(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = _arguments(line)
    for name in command_names():
        monkeypatch.setattr(command_module(name), "run", lambda options: 0)
    monkeypatch.setattr(sys, "argv", ["mvr", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None), f"{page}: {line}"


@pytest.fixture(scope="module")
def reference() -> str:
    return command_reference()


@pytest.mark.parametrize("name", command_names())
def test_the_reference_lists_every_option(
    name: str, reference: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mvr", *name.split(), "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = set(re.findall(r"--[a-z][a-z-]+", _first_column(capsys.readouterr().out)))
    section = re.split(rf"^##+ mvr {name}$", reference, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ mvr ", section, flags=re.MULTILINE)[0]
    listed = {_plain(option) for option in re.findall(r"--[a-z][a-z-]+", section)}
    assert {_plain(option) for option in shown - set(SHARED_FLAGS)} <= listed


def _first_column(text: str) -> str:
    """What stands before a description in a help text."""
    return "\n".join(re.findall(r"^[│|\s]*(-.*?)(?:\s{2}|$)", text, re.MULTILINE))


def _plain(option: str) -> str:
    return option.replace("--no-", "--")


def test_every_command_has_a_description() -> None:
    for name in command_names():
        module: Any = command_module(name)
        assert module.__doc__ and module.__doc__.strip(), name


def test_pages_name_no_unknown_command() -> None:
    known = {name.split()[0] for name in command_names()}
    for page in PAGES:
        if name_of(page) == "CHANGELOG.md":  # lists old names
            continue
        for word in re.findall(r"`mvr ([a-z][a-z-]*)", Path(page).read_text(encoding="utf-8")):
            assert word in known | {"help"}, f"{name_of(page)}: mvr {word}"


def test_pages_name_no_unknown_option() -> None:
    known = {
        flag
        for name in command_names()
        for option in command_options(command_module(name).Options)
        for flag in option.flags
    }
    known |= {"--no-" + flag[2:] for flag in known} | set(SHARED_FLAGS)
    # Options of other programs: ruff, pip, torchrun, MkDocs, benchmarks, data_scripts, `mvr` itself.
    known |= {
        "--check",
        "--print-completion",
        "--nproc-per-node",
        "--no-python",
        "--full",
        "--list",
        "--download",
        "--set",
    }
    for page in PAGES:
        if name_of(page) == "CHANGELOG.md":  # lists old names
            continue
        for code in re.findall(r"`[^`\n]+`", prose(page)):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code):
                assert flag in known, f"{name_of(page)}: {flag} in {code}"
