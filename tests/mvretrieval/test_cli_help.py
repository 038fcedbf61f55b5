"""Help texts, examples, shell completion and the options that every command has."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import Mvr, runner

from mvretrieval import __version__
from mvretrieval.cli.commands import COMMANDS, command_module, command_names
from mvretrieval.cli.completion import completion_script
from mvretrieval.cli.examples import EXAMPLES
from mvretrieval.cli.parsing import command_options, parse


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


@pytest.mark.parametrize("name", command_names())
def test_help_of_every_command(mvr: Mvr, name: str) -> None:
    code, text, _ = mvr(*name.split(), "--help")
    assert code == 0 and f"mvr {name}" in text
    assert mvr("help", *name.split()) == (code, text, "")
    assert "None" not in text and "(default: False)" not in text and "(default: )" not in text
    assert "--quiet" in text and "--verbose" in text
    for line in EXAMPLES[name]:
        assert line in text


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in EXAMPLES for line in EXAMPLES[name]])
def test_examples_parse(name: str, line: str) -> None:
    words = shlex.split(line)
    words = words[words.index("mvr") + 1 :]
    used = max((known for known in command_names() if words[: len(known.split())] == known.split()), key=len)
    options, _ = parse(used, command_module(used).Options, "", words[len(used.split()) :])
    assert isinstance(options, command_module(used).Options)
    assert used == name or name in ("train", "tune")  # whose last example uses the result


def test_every_command_has_two_or_three_examples() -> None:
    assert set(EXAMPLES) == set(command_names())
    assert all(2 <= len(lines) <= 3 for lines in EXAMPLES.values())


def test_flags_that_are_on_by_default_show_both_spellings(mvr: Mvr) -> None:
    text = mvr("train", "--help")[1]
    assert re.search(r"--linear, --no-linear", text) and "(default: on)" in text


@pytest.mark.parametrize(
    "arguments", [("--version",), ("-V",), ("search", "--version"), ("eval", "zero-shot", "--version")]
)
def test_version(mvr: Mvr, arguments: tuple[str, ...]) -> None:
    assert mvr(*arguments) == (0, f"mvretrieval {__version__}\n", "")


def test_help_without_a_command(mvr: Mvr) -> None:
    overview = mvr("--help")[1]
    assert mvr("help") == mvr("-h") == (0, overview, "")
    assert mvr() == (2, overview, "")
    assert all(name in overview for name in COMMANDS)
    assert mvr("help", "serach")[0] == 2


def test_no_color(mvr: Mvr, monkeypatch: pytest.MonkeyPatch) -> None:
    import tyro

    monkeypatch.setitem(tyro._experimental_options, "ansi_codes", True)
    monkeypatch.setattr("tyro._fmtlib._FORCE_ANSI", True)
    assert "\x1b[" in mvr("info", "--help")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in mvr("info", "--help")[1]


# -- completion --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "mvr.bash"
    file.write_text(completion_script("bash"))
    return file


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mvr ser", {"serve"}),
        ("mvr help ev", {"eval"}),
        ("mvr eval zero", {"zero-shot"}),
        ("mvr search c --rerank-w", {"--rerank-weight"}),
        ("mvr index --index hn", {"hnsw"}),
        ("mvr eval zero-shot c --per", {"--per-class"}),
        ("mvr info c --qui", {"--quiet"}),
        ("mvr search c --mesh some-fi", set()),  # left to file names
    ],
)
def test_bash_completes(script: Path, line: str, expected: set[str]) -> None:
    words = line.split(" ")
    program = (
        f"source {shlex.quote(str(script))}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _mvr;"
        ' printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected and done.stderr == ""


def test_completion_knows_every_option(script: Path) -> None:
    text = script.read_text()
    for name in command_names():
        for option in command_options(command_module(name).Options):
            assert all(flag in text for flag in option.flags)


def test_completion_scripts(mvr: Mvr, script: Path) -> None:
    assert mvr("--print-completion", "bash")[1] == script.read_text() + "\n"
    assert "bashcompinit" in mvr("--print-completion", "zsh")[1]
    assert mvr("--print-completion", "tcsh")[0] == mvr("--print-completion")[0] == 2


# -- wrong use ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "contains"),
    [
        (["serach", "c"], "'search'"),
        (["search", "c", "--meshh", "x.glb"], "--mesh"),
        (["search", "c", "-k", "many"], "-k/--k takes an integer, not 'many': 'mvr help search'"),
        (["search", "c", "--mesh-weight", "x"], "--mesh-weight takes a number, not 'x'"),
        (["search", "c", "--up", "up"], "--up takes one of +x, -x, +y, -y, +z, -z, not 'up'"),
        (["search", "c", "--kk", "3"], "unknown option '--kk'. Did you mean --k?"),
        (["search", "c", "d"], "unexpected argument 'd'"),
        (["search", "c", "--min-confidence", "50%"], "--min-confidence takes a number, not '50%'"),
        (["search", "c", "--where"], "--where needs a value"),
        (["search"], "COLLECTION is missing"),
        (["render", "a.ply"], "--out is missing"),
        (["eval", "zero-shoot"], "zero-shot"),
        (["train", "c", "--out", "a", "--shots", "0"], "0"),
    ],
)
def test_wrong_use(mvr: Mvr, arguments: list[str], contains: str) -> None:
    code, out, err = mvr(*arguments)
    assert (code, out) == (2, "") and contains in err
    code, out, err = mvr(*arguments, "--json")
    assert (code, err) == (2, "")
    found = json.loads(out)
    assert set(found) == {"schema", "error"} and set(found["error"]) == {"code", "message"}
    assert contains in found["error"]["message"]
    if arguments[0] != "train":
        assert found["error"]["code"] == "wrong_use"
