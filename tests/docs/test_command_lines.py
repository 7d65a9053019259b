"""Every command line that the documentation shows can be typed: its command and options exist."""

from __future__ import annotations

import ast
import re

import pytest
import typer.main
from tests.docs.blocks import BLOCKS, PAGES, ROOT, command_lines, inline_commands

from emend.cli import whole_app

APP = typer.main.get_command(whole_app())
SHOWN = [(block.place, words) for block in BLOCKS for words in command_lines(block)]
INLINE = [(str(page.relative_to(ROOT)), words) for page in PAGES for words in inline_commands(page)]
OURS = [(place, words[1:]) for place, words in SHOWN if words[0] == "emend"]
INLINE_OURS = [(place, words[1:]) for place, words in INLINE if words[0] == "emend"]
SCRIPTS = [
    (place, words[1:])
    for place, words in [*SHOWN, *INLINE]
    if words[0] == "python" and words[1].startswith(("benchmarks/", "examples/", "tools/"))
]
TARGETS = [(place, words[1:]) for place, words in [*SHOWN, *INLINE] if words[0] == "make"]


def leaf(words):
    """The command that the first words lead to, its name, and the words after them."""
    command, name = APP, "emend"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"there is no command `{name} {words[0]}`"
        command, name, words = command.commands[words[0]], f"{name} {words[0]}", words[1:]
    return command, name, words


def ids(cases):
    return [f"{place}-{number}" for number, (place, _) in enumerate(cases)]


@pytest.mark.parametrize(("place", "words"), OURS, ids=ids(OURS))
def test_a_command_line_is_read(place, words):
    command, name, rest = leaf(words)
    if hasattr(command, "commands"):  # `emend`, `emend models`: help or a list
        assert not [word for word in rest if word not in ("--help", "--version", "--json")]
        return
    with command.make_context(name, list(rest)) as context:
        assert context.params


@pytest.mark.parametrize(("place", "words"), INLINE_OURS, ids=ids(INLINE_OURS))
def test_a_command_in_the_text_exists_with_its_options(place, words):
    command, name, rest = leaf(words)
    known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    flags = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert flags <= known | {"--help", "--version"}, name


@pytest.mark.parametrize(("place", "words"), SCRIPTS, ids=ids(SCRIPTS))
def test_a_script_exists_with_its_options(place, words):
    script = ROOT / words[0]
    assert script.is_file()
    source = script.read_text(encoding="utf-8")
    for module in re.findall(r"from ([\w.]+) import", source):  # options that scripts share
        for folder in (ROOT, script.parent):
            shared = folder / (module.replace(".", "/") + ".py")
            source += shared.read_text(encoding="utf-8") if shared.is_file() else ""
    flags = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
    known = set(re.findall(r"[\"'](--\w+)[\"']", source))
    assert flags <= known


@pytest.mark.parametrize(("place", "words"), TARGETS, ids=ids(TARGETS))
def test_a_target_of_make_exists(place, words):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in words:
        if "=" not in target and not target.startswith("-"):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_lines_are_found():
    assert len(OURS) > 80 and len(INLINE_OURS) > 80 and len(SCRIPTS) > 40 and len(TARGETS) > 5


def test_python_blocks_can_be_read():
    for block in BLOCKS:
        if block.language == "python":
            ast.parse(block.text, filename=block.place)
