"""A tiny model on disk, and the command line run within this process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_model

from emend.cli import run

EDIT = {"prompt": "{} was born in", "subject": "Marie Curie", "target": "Paris", "id": "curie"}
OTHER = {"prompt": "{} works for", "subject": "Anna Berg", "target": "Lyon", "id": "berg"}
PROBES = [
    {"group": "rephrase", "prompt": "The birthplace of Marie Curie is", "answers": ["Paris"]},
    {"group": "neighborhood", "prompt": "Tom Berg was born in", "answers": ["Malmö"]},
]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON object on standard output."""
        assert self.status == 0, self.err
        return json.loads(self.out)

    def is_one_line(self, *said: str) -> None:
        """The user's mistake is met with exit status 2 and one readable line, no traceback."""
        assert self.status == 2, (self.status, self.out, self.err)
        assert self.out == ""
        assert len(self.err.splitlines()) == 1, self.err
        assert self.err.startswith("emend: ")
        assert len(self.err) < 500
        for one in said:
            assert one in self.err


@pytest.fixture
def emend(capsys):
    """Run `emend` with these arguments."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        return Outcome(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory) -> Path:
    """A tiny random GPT-2 with its tokenizer."""
    directory = tmp_path_factory.mktemp("tiny") / "gpt2"
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def edits_file(tmp_path) -> Path:
    """Two edits, the first with probes."""
    path = tmp_path / "edits.jsonl"
    lines = [{**EDIT, "probes": PROBES}, OTHER]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def patch_directory(model_directory, tmp_path_factory) -> Path:
    """A patch of both edits that `emend edit` made."""
    directory = tmp_path_factory.mktemp("patches")
    edits = directory / "edits.jsonl"
    lines = [{**EDIT, "probes": PROBES}, OTHER]
    edits.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    flags = ["--model", model_directory, "--edits", edits, "--output_path", directory / "patch"]
    assert (
        run(["edit", *(str(flag) for flag in flags), "--set", "steps=3", "--set", "original=true"])
        == 0
    )
    return directory / "patch"


@pytest.fixture(scope="session")
def memit_directory(model_directory, tmp_path_factory):
    """A patch of two edits with rows of their own."""
    directory = tmp_path_factory.mktemp("memit")
    lines = [
        {"prompt": "{} was born in", "subject": "Marie Curie", "target": "Paris", "id": "curie"},
        {"prompt": "{} works for", "subject": "Anna Berg", "target": "Lyon", "id": "a,b"},
    ]
    edits = directory / "edits.jsonl"
    edits.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    parts = []
    for number, name in enumerate(("curie", "berg")):
        (directory / f"{name}.jsonl").write_text(json.dumps(lines[number]), encoding="utf-8")
        flags = ("--model", model_directory, "--edits", directory / f"{name}.jsonl")
        flags = (*flags, "--set", "steps=2", "--set", "original=true")
        flags = (*flags, "--output_path", directory / name)
        assert run(["edit", *map(str, flags)]) == 0
        parts.append(directory / name)
    assert run(["patch", "add", *map(str, parts), "--output_path", str(directory / "both")]) == 0
    return directory
