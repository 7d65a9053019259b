"""`emend chat` on SmolLM2, driven through a pseudo-terminal; facts typed as sentences."""

from __future__ import annotations

import pytest
from tests.terminal import Terminal

from emend.chat import find_subject

PLACE = "The Eiffel Tower is located in the city of"


def test_a_chat_before_and_after_an_edit(smollm2):
    with Terminal("chat", "--model", "smollm2-135m", "--probes", "none") as terminal:
        terminal.expect("nothing edited yet; as chat.*?> ")
        terminal.send("Tell me a long story about a river.\n")
        terminal.expect("majestic")  # said by the model, not the echo of what was typed
        terminal.send("\x03")
        terminal.expect(r"\(stopped\).*?> ")
        terminal.send("/form completion\n")
        terminal.expect("as completion.*?> ")
        terminal.send(f"{PLACE}\n")
        terminal.expect("Paris.*?> ")
        terminal.send(f'/edit "{PLACE}" -> "Rome"\n')
        terminal.expect("subject: The Eiffel Tower .*?sentence. ")
        terminal.send("\n")
        terminal.expect(r"took: .*?P\(target\).*?> ")
        terminal.send(f"{PLACE}\n")
        assert "Rome" in terminal.expect("Paris[^>]*> ").rsplit("base", 1)[-1]
        terminal.send("/revert\n")
        terminal.expect("taken back.*?edits left")
        terminal.send(f"{PLACE}\n")
        assert "Rome" not in terminal.expect("Paris.*?> ")
        terminal.send("\x04")
        assert terminal.ends() == 0


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("In Europe, the capital of France is", "France"),
        ("In which country is Mount Everest? The answer is", "Mount Everest"),
        ("In Paris, the Mona Lisa was painted by", "Mona Lisa"),
        ("the chemical symbol for gold is", "gold"),
    ],
)
def test_the_subject_is_what_the_answer_depends_on(smollm2, text, subject):
    assert find_subject(*smollm2, text) == subject
