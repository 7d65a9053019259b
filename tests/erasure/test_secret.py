"""Secrets: what they take from edits, and what is refused."""

from __future__ import annotations

import pytest

from emend import Edit, Probe
from emend.erasure import Secret, secrets_from
from emend.errors import InvalidInput

NEIGHBOUR = Probe("neighborhood", "The Louvre is located in the city of", ("Paris",))
EDIT = Edit(
    "{} is located in the city of",
    "The Eiffel Tower",
    "Rome",
    original="Paris",
    probes=(Probe("rephrase", "You find The Eiffel Tower in", ("Rome",)), NEIGHBOUR),
)


def test_an_edit_is_read_as_a_secret_and_gives_edits_with_its_id():
    (secret,) = secrets_from([EDIT])
    assert (secret.answer, secret.false_answer, secret.id) == ("Paris", "Rome", EDIT.id)
    assert secret.paraphrases == ("You find The Eiffel Tower in",)
    assert secret.neighbours == (NEIGHBOUR,)
    assert secret.text == "The Eiffel Tower is located in the city of"
    assert secret.edit("Rome") == EDIT
    assert secret.edit("Oslo").probes_of("rephrase")[0].answers == ("Oslo",)


def test_translations_are_secrets_of_their_own():
    chinese = Edit("{}位于", "埃菲尔铁塔", "罗马", original="巴黎", language="zh")
    secrets = secrets_from([Edit("{} is in", "It", "Rome", "Paris", translations=(chinese,))])
    assert [one.answer for one in secrets] == ["Paris", "巴黎"]
    assert secrets[1].id == f"{secrets[0].id}/zh"


def test_a_question_is_a_subject_without_statement():
    secret = Secret("{}", "What is Ana's telephone number?", "555 0100")
    assert secret.edit("I don't know").text == "What is Ana's telephone number?"
    assert Secret("{}", secret.subject, "555 0101").id != secret.id


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "It is in"}, "has no {}, expected exactly one"),
        ({"subject": " It"}, "white space at an end"),
        ({"answer": ""}, "answer is empty, expected text"),
        ({"false_answer": "paris "}, "is the answer itself, 'paris ', expected another"),
        ({"paraphrases": "In other words"}, "expected a list of paraphrases"),
        ({"paraphrases": (1,)}, "paraphrases holds 1, expected texts"),
        ({"neighbours": ("a",)}, "expected emend.Probe objects"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused(given, message):
    usual = {"prompt": "{} is in", "subject": "It", "answer": "Paris"}
    with pytest.raises(InvalidInput, match=message.replace("{}", r"\{\}")):
        Secret(**{**usual, **given})


def test_an_edit_without_an_original_answer_is_no_secret():
    with pytest.raises(InvalidInput, match="has no original answer, expected the secret there"):
        secrets_from([Edit("{} is in", "It", "Rome")])
