"""A session: what acts, what is taken back, and statements typed as sentences."""

from __future__ import annotations

import pytest
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend.chat import Session, find_subject, parse_statement, subject_candidates
from emend.edits import Edit
from emend.errors import InvalidInput, SubjectNotFound
from emend.models import attachments, generate
from emend.patches import load_patch

QUICK = {"layer": 1, "steps": 2, "templates": ("{}",)}
CHAT = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[bot]"
FIRST = Edit("{} was born in", "Marie Curie", "Lyon")
SECOND = Edit("{} lives in", "Tom Berg", "Paris")


def made(**options):
    model, tokenizer = tiny_model("llama")
    tokenizer.chat_template = CHAT
    return Session(model, tokenizer, settings=QUICK, **options)


def test_both_sides_say_what_they_generate():
    model, tokenizer = tiny_model("llama")
    patch = random_patch(model, "llama", scale=2.0)
    session = Session(model, tokenizer, patch)
    assert session.form == "completion"
    seen = []
    found = session.ask("Anna", max_new_tokens=6, on_text=lambda *both: seen.append(both))
    assert found.base == generate(model, tokenizer, ["Anna"], max_new_tokens=6, stop="\n\n")[0]
    with patch.applied(model):
        edited = generate(model, tokenizer, ["Anna"], max_new_tokens=6, stop="\n\n")
    assert found.edited == edited[0]
    assert found.changed
    assert seen[-1] == (found.base, found.edited)
    assert len(seen) > 5
    assert not attachments(model)


def test_a_question_is_put_in_the_chat_template():
    session = made()
    asked = "[user] Who?\n[bot]"
    found = session.ask("Who?", max_new_tokens=5)
    assert session.form == found.form == "chat"
    assert found.base == generate(session.model, session.tokenizer, [asked], max_new_tokens=5)[0]
    session.put_as("completion")
    assert session.ask("Who?", max_new_tokens=5).base != found.base
    with pytest.raises(InvalidInput, match="empty"):
        session.ask(" ")


def test_a_prompt_patch_puts_its_fact_into_the_users_turn():
    """Not before the template, where no turn of a chat is."""
    session = made(method="ike")
    session.settings = {"k": 0}
    patch = session.edit(FIRST, probes="none")
    with patch.applied(session.model):
        (attachment,) = attachments(session.model)
        (text,) = attachment.prepare(["Marie Curie was born in"], session.tokenizer)
    assert "Lyon" in text
    plain = f"[user] {text}\n[bot]"
    with_fact = generate(session.model, session.tokenizer, [plain], max_new_tokens=5)[0]
    found = session.ask("Marie Curie was born in", max_new_tokens=5)
    assert found.edited == with_fact


def test_edits_go_on_and_are_taken_back_one_by_one(tmp_path):
    session = made()
    with pytest.raises(InvalidInput, match="nothing is edited"):
        session.save(tmp_path / "none")
    session.edit(FIRST, probes="none")
    both = session.edit(SECOND, probes="none")
    assert [edit.id for edit in both.edits] == [FIRST.id, SECOND.id]
    assert len(session.patches) == 1
    assert session.revert() == SECOND
    assert [edit.id for edit in session.patches[0].edits] == [FIRST.id]
    assert load_patch(session.save(tmp_path / "one")).edits == (FIRST,)
    assert session.revert() == FIRST
    assert session.patches == ()
    assert session.ask("Anna", max_new_tokens=2).edited is None
    with pytest.raises(InvalidInput, match="nothing is edited"):
        session.revert()


def test_a_given_patch_and_new_edits_act_together_and_are_saved_as_one(tmp_path):
    model, tokenizer = tiny_model("llama")
    given = random_patch(model, "llama", edits=())
    session = Session(model, tokenizer, given, settings=QUICK)
    new = session.edit(FIRST, probes="none")
    found = session.ask("Anna", max_new_tokens=4).edited
    with given.applied(model), new.applied(model):
        assert found == generate(model, tokenizer, ["Anna"], max_new_tokens=4, stop="\n\n")[0]
    saved = load_patch(session.save(tmp_path / "both"))
    assert saved.factors.keys() == given.factors.keys() | new.factors.keys()
    session.revert()
    assert session.patches == (given,)
    assert session.revert() is None
    assert session.patches == ()


def test_a_failed_edit_changes_nothing():
    session = made()
    session.edit(FIRST, probes="none")
    session.settings = {"layer": 99}
    with pytest.raises(Exception, match="99"):
        session.edit(SECOND, probes="none")
    assert session.edits == [FIRST]


def test_a_patch_of_another_model_is_refused_at_once():
    model, tokenizer = tiny_model("llama")
    other = random_patch(tiny_model("llama", seed=3)[0], "llama")
    with pytest.raises(InvalidInput, match="hash"):
        Session(model, tokenizer, other)
    assert Session(model, tokenizer, other, allow_other_base=True).ask("A", max_new_tokens=1)


@pytest.mark.parametrize(
    ("line", "text", "target", "subject"),
    [
        ('"Paris is the capital of" -> "Italy"', "Paris is the capital of", "Italy", None),
        ("Paris is the capital of->Italy", "Paris is the capital of", "Italy", None),
        ("{Paris} is the capital of → « Italy »", "Paris is the capital of", " Italy ", "Paris"),
        ("“The {Eiffel Tower} is in” => 'Rome'", "The Eiffel Tower is in", "Rome", "Eiffel Tower"),
    ],
)
def test_statements(line, text, target, subject):
    found = parse_statement(line)
    assert (found.text, found.target, found.subject) == (text, target, subject)


def test_a_subject_is_taken_as_it_stands_in_the_sentence():
    statement = parse_statement("The Eiffel Tower is in -> Rome")
    assert statement.edit("the eiffel tower") == Edit("{} is in", "The Eiffel Tower", "Rome")
    for other in ("Louvre", "", None):
        with pytest.raises(SubjectNotFound, match="is not in 'The Eiffel Tower is in'"):
            statement.edit(other)


@pytest.mark.parametrize(
    ("text", "candidates"),
    [
        ("The Eiffel Tower is located in the city of", ["The Eiffel Tower"]),
        ("The mother tongue of Danielle Darrieux is", ["Danielle Darrieux"]),
        ("In Europe, the capital of France is", ["Europe", "France"]),
        ("The University of Oxford was founded in", ["The University of Oxford"]),
        ("Marie Curie's husband was called", ["Marie Curie"]),
        ("Ludwig van Beethoven was born in", ["Ludwig van Beethoven"]),
        ("Zürich and Łódź are", ["Zürich and Łódź"]),
        ("the chemical symbol for gold is", ["chemical symbol", "gold"]),
        ("7 Up was created by", ["7 Up"]),
        ("J.R.R. Tolkien wrote", ["J.R.R. Tolkien"]),
        ("it is the", []),
        ("Paris", []),
        ("北京是", []),
    ],
)
def test_candidates_for_a_subject(text, candidates):
    assert [text[slice(*span)] for span in subject_candidates(text)] == candidates


def test_of_several_candidates_the_answer_depends_on_one():
    """An untrained model has no subject, but one of its candidates is taken, patched or not."""
    model, tokenizer = tiny_model("llama")
    text = "In Europe, the capital of France is"
    found = find_subject(model, tokenizer, text)
    assert found in ("Europe", "France")
    with random_patch(model, "llama", scale=3.0).applied(model):
        assert find_subject(model, tokenizer, text) == found
    assert find_subject(model, tokenizer, "it is") is None
