"""Hints are followed as printed: every flag is there, every command is one."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from tests.tiny import tiny_model

import emend as package
from emend.cli import whole_app
from emend.cli._main import as_flags, command_of

SOURCE = Path(package.__file__).parent
APP = typer.main.get_command(whole_app())
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_]*\b(?!-)")
COMMAND = re.compile(r"(?<![\w/.])emend [a-z]+[^`]*")
FOREIGN = {
    "patches/_serving.py",
    "patches/_engines.py",
    "report/_heat.py",
    "cli/_main.py",
}
"""What names flags of other programs, variables of style sheets, or flags of every command."""
OF_COMMANDS = {
    "bench/_ray.py": "bench",
    "methods/_advice.py": "edit",
    "server/": "serve",
}
"""Places below the command line whose texts one command shows, or names."""
OF_OTHERS = re.compile(
    r"\.py --|ray start|llama-server|llama-gguf-split --|^--(dest|no-deps|only-binary|no-input)"
)


def leaves(command=APP, path=("emend",)):
    """Every command by the words that lead to it."""
    if not hasattr(command, "commands"):
        yield " ".join(path[1:]), command
        return
    for name, inner in command.commands.items():
        yield from leaves(inner, (*path, name))


COMMANDS = dict(leaves())


def flags_of(command):
    named = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
    return named | {"--help"}


def texts_of(path):
    """The texts of a module that people may see, each with its line and function."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    notes = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}

    def walk(node, function):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = node.name
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "1" for one in node.values]
            yield node.lineno, function, "".join(map(str, parts))
            return
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
            yield node.lineno, function, node.value
        for inner in ast.iter_child_nodes(node):
            yield from walk(inner, function)

    yield from walk(tree, "")


TEXTS = [
    (path.relative_to(SOURCE).as_posix(), *found)
    for path in sorted(SOURCE.rglob("*.py"))
    for found in texts_of(path)
]


def printed_by(place, function):
    """The commands that can print a text: those of its module, or that use a shared function."""
    module = Path(place).stem
    own = [
        command
        for command in COMMANDS.values()
        if getattr(command.callback, "__module__", "") == f"emend.cli.{module}"
    ]
    if own:
        named = [one for one in own if one.callback.__name__ == function]
        return named or own

    def using(name):
        places = {
            f"emend.cli.{path.stem}"
            for path in (SOURCE / "cli").glob("*.py")
            if re.search(rf"\b{re.escape(name)}\b", path.read_text(encoding="utf-8"))
        }
        return [one for one in COMMANDS.values() if one.callback.__module__ in places]

    return using(function) or using(module)


def named_commands(text):
    """The commands that a text names: (command, the words after it)."""
    for found in COMMAND.findall(text.replace("\\\n", " ")):
        words = found.split()[1:]
        command = command_of(APP, words)
        if command is not APP:
            yield command, found


@pytest.mark.parametrize(
    ("place", "line", "function", "text"),
    [
        pytest.param(*one, id=f"{one[0]}:{one[1]}")
        for one in TEXTS
        if FLAG.search(one[3]) and one[0] not in FOREIGN and not OF_OTHERS.search(one[3])
    ],
)
def test_every_flag_that_is_named_exists(place, line, function, text):
    """Fault B7: `emend eval` named an option that it lacks."""
    for flag in set(FLAG.findall(text)):
        inside = [command for command, found in named_commands(text) if flag in found]
        inside = inside or (list(COMMANDS.values()) if text.startswith("  ") else [])
        if flag == text:  # one word of a command that is put together
            inside = list(COMMANDS.values())
        if inside:
            assert any(flag in flags_of(one) for one in inside), flag
            continue
        owners = [name for own, name in OF_COMMANDS.items() if place.startswith(own)]
        if owners:
            assert flag in flags_of(COMMANDS[owners[0]]), flag
            continue
        assert place.startswith("cli/"), f"{place}:{line} names {flag}: not all commands have it"
        printers = printed_by(place, function)
        assert printers, f"{place}:{line}"
        assert any(flag in flags_of(one) for one in printers), flag


@pytest.mark.parametrize(
    ("place", "line", "text"),
    [
        pytest.param(place, line, text, id=f"{place}:{line}")
        for place, line, _, text in TEXTS
        if re.search(r"`emend [a-z]", text)
    ],
)
def test_every_command_in_backticks_exists(place, line, text):
    for found in re.findall(r"`emend ([a-z][^`]*)", text):
        command = command_of(APP, found.split())
        assert command is not APP, found
        for flag in FLAG.findall(found):
            assert flag in flags_of(command), found
        rest = [word for word in found.split() if not word.startswith("-")]
        assert not hasattr(command, "commands") or len(rest) == 1, found


def examples():
    for name, command in COMMANDS.items():
        text = (command.epilog or "").replace("\b", "").replace("\\\n", " ")
        for line in text.splitlines():
            line = line.strip()
            if line.startswith("emend "):
                yield pytest.param(line, id=f"{name}: {line[:60]}")


@pytest.mark.parametrize("line", list(examples()))
def test_every_example_is_understood(line):
    command, words = APP, shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("emend", words)  # refuses what it does not know


def test_remedies_become_flags_of_the_command():
    evaluate, show = COMMANDS["eval"], COMMANDS["patch show"]
    said = "other weights: load that model, or pass allow_other_base=True"
    license = "read them, then set X=y, or pass accept_license=True"
    assert as_flags(f"a: {license}", show) == "a: read them, then set X=y"
    assert as_flags(said, evaluate) == "other weights: load that model, or pass --allow_other_base"
    assert as_flags(said, show) == "other weights: load that model"
    edit = COMMANDS["edit"]
    assert as_flags("a: pass texts, or steps=0 and quantile=0", edit) == (
        "a: pass texts, or --set steps=0 and --set quantile=0"
    )
    assert as_flags("a: take method='mend' or another", edit) == "a: take --method mend or another"
    assert as_flags("found with eps=1: load it", edit) == "found with eps=1: load it"
    assert as_flags("one line", edit) == "one line"


def test_the_hint_of_another_models_patch_is_followed(emend, tmp_path, patch_directory, edits_file):
    """Fault B7, by hand: the hint as printed makes the command work."""
    other = tmp_path / "other"
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes", seed=5)
    model.save_pretrained(other)
    tokenizer.save_pretrained(other)
    asked = ("eval", "--model", other, "--patch", patch_directory)
    emend(*asked).is_one_line("load that model, or pass --allow_other_base")
    assert emend(*asked, "--allow_other_base", "--json").data["edits"] == 2
    further = ("edit", "--model", other, "--previous", patch_directory, "--edits", edits_file)
    outcome = emend(*further, "--output_path", tmp_path / "patch", "--set", "steps=1")
    outcome.is_one_line("load that model")
    assert "allow_other_base" not in outcome.err
