"""`emend chat` in a pseudo-terminal, in a pipe, and for scripts."""

from __future__ import annotations

import io

import pytest
from tests.terminal import Terminal

from emend.cli._chat import answers

QUESTION = "Gekal Lerond works as a"
LAB = ("--model", "lab/gptneo", "--probes", "none", "--max_new_tokens", 3)


def test_an_edit_changes_the_answer_and_a_revert_changes_it_back(tmp_path):
    with Terminal("chat", *LAB) as terminal:
        terminal.expect("nothing edited yet; as completion.*?> ")
        terminal.send(f"{QUESTION}\n")
        assert "edited" not in terminal.expect(r"gardener[^>]*> ")
        terminal.send("/revert\n")
        terminal.expect("nothing is edited.*?> ")
        terminal.send(f'/edit "{QUESTION}" -> "tailor"\n')
        terminal.expect(r"subject: Gekal Lerond \(Enter: yes")
        terminal.send("Marie Curie\n")  # is corrected
        terminal.expect("'Marie Curie' is not in ")
        terminal.expect("of the sentence. ")
        terminal.send("\n")
        terminal.expect("took: 'Gekal Lerond works as a' -> 'tailor'")
        terminal.expect("> ")
        terminal.send(f"{QUESTION}\n")
        terminal.expect(r"gardener\.?\s+tailor[^>]*> ")  # side by side
        terminal.send("/why\n")
        terminal.expect(r"before: P\('gard\w*'\).*?noise at the subject.*?points back")
        terminal.expect(r"after: P\('tail\w*'\).*?noise at the subject.*?points back")
        terminal.expect("> ")
        terminal.send(f"/save {tmp_path / 'patch'}\n")
        terminal.expect("saved to .*?> ")
        terminal.send("/revert\n")
        terminal.expect("taken back: 'Gekal Lerond works as a' -> 'tailor'; 0 .*?> ")
        terminal.send(f"{QUESTION}\n")
        last = terminal.expect(r"gardener[^>]*> ")
        assert "tailor" not in last
        terminal.send("/reverd\n")
        terminal.expect("no command is called|unknown command")
        terminal.expect("> ")
        terminal.interrupt("Ctrl-D leaves.*?> ")
        terminal.send("\x04")
        assert terminal.ends() == 0
    assert (tmp_path / "patch" / "emend.json").exists()


def in_pipe(emend, monkeypatch, lines, *flags):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return emend("chat", *LAB, *flags)


@pytest.fixture(scope="module")
def tailor(tmp_path_factory):
    """The edit by a memory, saved from within a chat that comes through a pipe."""
    from emend.cli import run

    path = tmp_path_factory.mktemp("chat") / "patch"
    lines = ["/edit {Gekal Lerond} works as a => tailor\n", f"/save {path}\n", "/quit\n", "x\n"]
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("sys.stdin", io.StringIO("".join(lines)))
        assert run([str(one) for one in ("chat", *LAB, "--method", "grace")]) == 0
    return path


def test_one_question_for_scripts(emend, tailor):
    found = emend("chat", *LAB, "--patch", tailor, "--prompt", QUESTION, "--json").data
    assert found["base"].strip().startswith("gardener")
    assert found["edited"].strip().startswith("tailor")
    assert (found["form"], found["changed"]) == ("completion", True)
    shown = emend("chat", *LAB, "--patch", tailor, "--prompt", QUESTION)
    assert shown.out.startswith("base: gardener")
    assert "\nedited: tailor" in shown.out
    bare = emend("chat", *LAB, "--prompt", QUESTION, "--json").data
    assert (bare["edited"], bare["changed"]) == (None, False)


def test_a_memory_is_edited_beside_and_taken_back(emend, monkeypatch, tailor, tmp_path):
    """A given memory and the session's change of weights act together, and are no one patch."""
    flags = ("--patch", tailor, "--set", "steps=5", "--set", "original=true")
    lines = [
        QUESTION,
        '/edit "The home town of Stobrar Kibot is" -> "Jafen"',
        "/why",
        "/revert",
        "/revert",
        QUESTION,
    ]
    found = in_pipe(emend, monkeypatch, lines, *flags)
    assert found.status == 0, found.err
    first, last = found.out.split("/edit")[0], found.out.split("taken back: the patch")[1]
    assert "edited: tailor" in first
    assert "subject: Stobrar Kibot" in found.out
    assert "a memory answers" in found.out
    assert "edited" not in last
    assert "base: gardener" in last
    refused = in_pipe(emend, monkeypatch, [lines[1], f"/save {tmp_path / 'p'}"], *flags)
    assert refused.status == 2
    assert "cannot be one patch" in refused.err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/edit Gekal works", "has no arrow, expected one"),
        ("/edit -> Rome", "nothing is written before the arrow"),
        ("/edit {Gekal} {works} as -> Rome", "marks 2 subjects"),
        ("/edit is the -> Rome", "no subject is found"),
        ("/why", "no fact was edited"),
        ("/save", "given no directory"),
        ("/save x", "nothing is edited"),
        ("/form rhyme", "rhyme"),
        ("/form chat", "no chat template"),
        ("/eddit", "/edit"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_ends_a_pipe(emend, monkeypatch, line, said):
    found = in_pipe(emend, monkeypatch, [line, "never asked"])
    assert found.status == 2
    assert len(found.err.splitlines()) == 1, found.err
    assert said in found.err
    assert "never asked" not in found.out


def test_json_wants_a_question(emend):
    emend("chat", *LAB, "--json").is_one_line("--prompt")
    emend("chat", *LAB, "--method", "romme").is_one_line("rome")
    emend("chat", *LAB, "--form", "chat", "--prompt", "x").is_one_line("no chat template")


def test_a_narrow_terminal_has_one_answer_above_the_other():
    from rich.console import Console

    def drawn(width):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(answers(" in Paris", " in Rome", width))
        return console.export_text().split("\n")

    assert any("in Paris" in line and "in Rome" in line for line in drawn(100))
    assert [line.strip() for line in drawn(60)][:4] == ["base", "in Paris", "edited", "in Rome"]
