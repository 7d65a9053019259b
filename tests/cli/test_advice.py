"""`emend methods --advise`: by flags, as JSON, and asked on a terminal."""

from __future__ import annotations

import re

import pytest
from tests.terminal import Terminal

from emend import methods

ALL = {"edits": 60, "weights": "yes", "multi_hop": "no", "revertible": "yes", "hardware": "cpu"}


def flags(**given):
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def test_flags_give_what_python_gives(emend):
    data = emend("methods", "--advise", *flags(**ALL), "--json").data
    assert data.pop("situation") == ALL
    assert data["method"] == "memit"
    told = methods.advise(60).to_dict()
    assert data["measured"][0]["rows"][0] == list(told["measured"][0]["rows"][0])
    assert data["reasons"] == list(told["reasons"])


def test_the_answer_names_reasons_numbers_and_the_next_command(emend):
    shown = emend("methods", "--advise", *flags(**{**ALL, "edits": 1})).out
    assert shown.startswith("Take rome:\n  - ")
    assert "Measured: SmolLM2-135M, CounterFact records 5000 to 5066" in shown
    assert "python benchmarks/real/counterfact.py --model smollm2-135m" in shown
    assert "Next: emend edit --method rome --model MODEL" in shown
    away = emend("methods", "--advise", *flags(**{**ALL, "weights": "no"})).out
    assert "--model openai:NAME --base_url URL" in away


def test_misuse_is_one_line(emend):
    missing = {name: value for name, value in ALL.items() if name != "hardware"}
    emend("methods", "--advise", *flags(**missing)).is_one_line("--hardware", "no terminal")
    emend("methods", "rome", "--advise", *flags(**ALL)).is_one_line("--advise", "rome")
    emend("methods", "--edits", "3").is_one_line("--edits", "--advise")
    emend("methods", "--advise", *flags(**{**ALL, "edits": 0})).is_one_line("--edits")


@pytest.mark.parametrize("hardware", ["gpu", "g"])
def test_five_questions_on_a_terminal(hardware):
    with Terminal("methods", "--advise", "--weights", "yes", columns=160) as terminal:
        terminal.expect("How many edits")
        terminal.send("some\n")
        terminal.expect("How many edits")  # what cannot be read is asked again
        terminal.send("500\n")
        terminal.expect(re.escape("several facts be answered? [yes/no]"))
        terminal.send("n\n")
        terminal.expect("take one edit out")
        terminal.send("YES\n")
        terminal.expect(re.escape("[cpu/gpu]"))
        terminal.send(f"{hardware}\n")
        terminal.expect("Take memit:")
        terminal.expect("no patch of more than 100 edits")
        terminal.expect("Next: emend edit --method memit")
        assert terminal.process.wait(60) == 0


def test_leaving_a_terminal_is_no_answer():
    with Terminal("methods", "--advise") as terminal:
        terminal.expect("How many edits")
        terminal.send("\x04")
        assert terminal.process.wait(60) == 130
