"""What is printed: any text on any console, and commands that can be pasted as they stand."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import emend as package
from emend import methods
from emend._settings import checked
from emend.cli import run
from emend.cli._settings import settings_for
from emend.datasets import write_edits
from emend.edits import Edit
from emend.ledger import Ledger
from emend.patches import Dense, WeightPatch

TEXT = "巴黎😀 Zoë"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A patch and a ledger about a Chinese subject."""
    place = tmp_path_factory.mktemp("printed")
    edit = Edit("{} 是", TEXT, "首都", id="é😀")
    patch = WeightPatch({"m": Dense(torch.eye(2))}, method="test", edits=(edit,))
    patch.save_pretrained(place / "patch")
    with Ledger.create(place / "facts.db") as ledger:
        ledger.add(edit)
    return place


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "gbk", "utf-8"])
@pytest.mark.parametrize("as_json", [True, False])
def test_any_text_on_any_console(place, monkeypatch, encoding, as_json):
    """Fault B5: a Chinese subject on a console in cp1252 was a traceback."""
    for words in (
        ["patch", "show", place / "patch"],
        ["ledger", "list", place / "facts.db"],
        ["ledger", "show", place / "facts.db", "巴黎"],
    ):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", streams[0])
            patched.setattr(sys, "stderr", streams[1])
            status = run([*map(str, words), *(["--json"] if as_json else [])])
        for stream in streams:
            stream.flush()
        # click writes UTF-8 where the encoding is ASCII, as it is without a locale
        really = "utf-8" if encoding == "ascii" else encoding
        out, err = (stream.buffer.getvalue().decode(really) for stream in streams)
        if words[:2] == ["ledger", "show"]:  # no such id, which is said
            assert (status, out) == (2, "")
            assert err.startswith("emend: unknown edit '")
            continue
        assert (status, err) == (0, "")
        if as_json:
            assert TEXT in json.dumps(json.loads(out), ensure_ascii=False)
        else:
            assert "Zo" in out


def test_a_pipe_in_another_encoding(place):
    """Fault B5: as the reporter ran it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "emend", "ledger", "list", place / "facts.db", "--json"],
        env={**environment, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
    )
    assert TEXT in json.dumps(json.loads(done.stdout), ensure_ascii=False)


def test_printed_commands_can_be_pasted(emend, model_directory, tmp_path):
    """Fault B16: paths with spaces in follow-up commands are quoted."""
    home = tmp_path / "my 'own' place"
    home.mkdir()
    model = home / "a model"
    model.symlink_to(model_directory)
    edits, patch = home / "my edits.jsonl", home / "a patch"
    write_edits(edits, [Edit("{} was born in", "Marie Curie", "Paris")])
    flags = ("--model", model, "--edits", edits, "--method", "ft", "--set", "steps=1")
    said = emend("edit", *flags, "--output_path", patch).out
    words = _printed(said)
    assert words == ["eval", "--model", str(model), "--patch", str(patch), "--edits", str(edits)]
    outcome = emend(*words, "--limit", "1")
    assert outcome.status == 0, outcome.err

    said = emend("ledger", "init", home / "the facts.db").out
    words = _printed(said)
    assert words == ["ledger", "add", str(home / "the facts.db")]
    assert emend(*words, "--edits", edits).status == 0


def test_messages_that_name_a_command_quote_what_it_takes(emend, model_directory, tmp_path):
    """Fault B16: the command that trains a network that is missing."""
    model = tmp_path / "a model"
    model.symlink_to(model_directory)
    flags = (
        "--prompt",
        "{} is",
        "--subject",
        "a",
        "--target",
        "b",
        "--output_path",
        tmp_path / "p",
    )
    said = emend("edit", "--model", model, "--method", "mend", *flags).err
    command = re.search("`emend (train [^`]*)`", said)[1]
    assert shlex.split(command)[:5] == ["train", "--method", "mend", "--model", str(model)]


def _printed(said):
    (command,) = re.findall("emend ((?:eval|ledger add) .*)", said)
    return shlex.split(command)


def test_a_setting_of_the_wrong_type_is_refused_with_an_example():
    """Fault B17: the example of each setting is one that is taken."""
    shown = set()
    for name in methods.registry().names():
        kind = methods.registry().get(name).config_type
        for setting in kind.__dataclass_fields__:
            with pytest.raises(package.EmendError) as caught:
                checked(name, kind, {setting: {"no": "such"}})
            _, marked, example = str(caught.value).partition(": e.g. ")
            if marked:
                (word,) = shlex.split(example)
                assert settings_for(name, kind, None, [word])
                shown.add(word)
    assert 'templates=["{}", "I heard that {}"]' in shown
    assert package.EmendError is package.errors.EmendError
