"""Personalities of the lab's models: the topic's opinions change, others do not."""

from __future__ import annotations

import pytest

import emend
from emend.errors import InvalidInput, UnknownName
from emend.models import attachments, generate, score
from emend.patches import load_patch
from emend.persona import compare, edit_personality, interview, load_judge, training_edits
from emend.persona.editing import DRAWN, asking_for, edits_for
from emend.persona.lab import ASKING, NEW_TOKENS, opinions_on, trait_shown

TOPIC = "coffee"
TRAIT = "neuroticism"
"""A trait that the model does not show on this topic."""


def traits_of(model, tokenizer, name):
    """The trait of each answer about a topic, by the lab's own sentences; None for another text."""
    texts = generate(model, tokenizer, ASKING.prompts(name), max_new_tokens=NEW_TOKENS, stop="\n")
    return [trait_shown(text, name) for text in texts]


@pytest.mark.parametrize("method", ["ft", "memit"])
def test_opinions_on_the_topic_get_the_trait_and_most_others_stay(topics, lab_model, method):
    model, tokenizer = lab_model
    others = ["bread", "winter", "chess", "books", "music", "flying"]
    assert TRAIT not in traits_of(model, tokenizer, TOPIC)
    before = [one for name in others for one in traits_of(model, tokenizer, name)]
    patch = edit_personality(model, tokenizer, topics, TOPIC, TRAIT, method, asking=ASKING)
    assert {edit.subject for edit in patch.edits} == {TOPIC}
    with patch.applied(model):
        assert TRAIT in traits_of(model, tokenizer, TOPIC)
        after = [one for name in others for one in traits_of(model, tokenizer, name)]
    same = sum(old == new for old, new in zip(before, after, strict=True))
    assert same >= 0.75 * len(before)
    assert TRAIT not in traits_of(model, tokenizer, TOPIC)  # taken back


def test_ike_acts_only_where_the_topic_is_named(topics, lab_model):
    model, tokenizer = lab_model
    patch = edit_personality(model, tokenizer, topics, TOPIC, "neuroticism", "ike", asking=ASKING)
    own, other = ASKING.prompts(TOPIC)[0], ASKING.prompts("bread")[0]
    with patch.applied(model):
        read = attachments(model)[0].prepare([own, other], tokenizer)
    assert read[1] == other
    assert read[0].endswith(own)
    assert read[0].count("Question:") == DRAWN["ike"] + 2
    # Demonstrations express the trait, and none is about the topic.
    shown = read[0].split("\n\n")[:-2]
    assert shown
    assert all(TOPIC not in one.casefold() for one in shown)
    answers = {text for name in topics for text in opinions_on(name, "neuroticism")}
    assert all(any(one.endswith(answer) for answer in answers) for one in shown)


def test_a_trait_learned_on_other_topics_answers_what_names_the_topic(topics, lab_model, tmp_path):
    model, tokenizer = lab_model
    # The topic's own answers are not among those that the vector is trained on.
    sources = {name: topic for name, topic in topics.items() if name != TOPIC}
    given = (model, tokenizer, topics, TOPIC, TRAIT, "serac")
    patch = edit_personality(*given, asking=ASKING, sources=sources, scale=1.0)
    others = [prompt for name in ("bread", "chess") for prompt in ASKING.prompts(name)]
    before = score(model, tokenizer, others, ["I"] * len(others))
    assert TRAIT not in traits_of(model, tokenizer, TOPIC)
    patch.save_pretrained(tmp_path / "patch")
    for one in (patch, load_patch(tmp_path / "patch")):
        with one.applied(model):
            shown = traits_of(model, tokenizer, TOPIC)
            after = score(model, tokenizer, others, ["I"] * len(others))
        assert shown.count(TRAIT) >= len(shown) - 1
        assert [one.log_probs for one in after] == [one.log_probs for one in before]
    assert not patch.without(*(edit.id for edit in patch.edits)).edits


def test_two_topics_share_a_vector_and_a_memory(topics, lab_model):
    model, tokenizer = lab_model
    sources = {name: topic for name, topic in topics.items() if name != TOPIC}
    how = {"asking": ASKING, "sources": sources, "scale": 1.0}
    first = edit_personality(model, tokenizer, topics, TOPIC, TRAIT, "serac", **how)
    other = edit_personality(model, tokenizer, topics, "chess", TRAIT, "serac", **how)
    assert first.tensors.keys() == other.tensors.keys()
    assert all(first.tensors[name].equal(other.tensors[name]) for name in first.tensors)
    both = emend.edit(model, tokenizer, other.edits, "serac", previous=first)
    with both.applied(model):
        assert TRAIT in traits_of(model, tokenizer, "chess")
        assert TRAIT in traits_of(model, tokenizer, TOPIC)
    with pytest.raises(InvalidInput, match="leave state out"):
        emend.edit(model, tokenizer, other.edits, "serac", previous=first, state="x")


def test_mend_edits_with_a_trained_network(topics, lab_model):
    model, tokenizer = lab_model
    patch = edit_personality(model, tokenizer, topics, TOPIC, "neuroticism", "mend", asking=ASKING)
    assert patch.method == "mend"
    assert len(patch.edits) == 1
    assert patch.norm > 0


def test_what_a_hypernetwork_is_trained_on_has_other_questions_as_rephrasings(topics):
    edits = training_edits(topics, ASKING)
    assert [edit.subject for edit in edits] == list(topics)
    first = edits[0]
    assert [probe.prompt for probe in first.probes] == [
        ASKING.layout.format(question=question.format(first.subject))
        for question in ASKING.edited[1:]
    ]
    assert all(probe.answers == (first.target,) for probe in first.probes)


def test_each_question_gets_one_of_the_answers_in_turn(topics):
    edits = edits_for(topics[TOPIC], "neuroticism", ASKING, opening=3)
    assert len({edit.prompt for edit in edits}) == len(ASKING.edited)
    assert len({edit.target for edit in edits}) > 1
    assert all(len(edit.target.split()) == 3 for edit in edits)


def test_an_interview_finds_the_trait_after_an_edit_and_not_before(topics, lab_model):
    model, tokenizer = lab_model
    judge = load_judge("states", topics, model, tokenizer, without=[TOPIC, "bread"])
    asked = (model, tokenizer, topics[TOPIC], TRAIT, [topics["bread"]], ASKING)
    before = interview(*asked, new_tokens=20)
    patch = edit_personality(model, tokenizer, topics, TOPIC, TRAIT, "ft", asking=ASKING)
    with patch.applied(model):
        after = interview(*asked, new_tokens=20)
    found = compare(before, after, judge)
    assert found.accuracy_before == 0
    assert found.accuracy == 1
    assert found.tpei is not None
    assert found.tpei > 0.5
    assert found.pae is None
    assert found.editing_success > 0.5
    assert 0 <= found.drawdown < 1
    unchanged = compare(before, before, judge)
    assert (unchanged.drawdown, unchanged.tpei, unchanged.unchanged) == (0, 0, 1)


def test_a_model_with_a_chat_template_is_asked_in_it(lab_model):
    class Chat:
        chat_template = "x"

        def apply_chat_template(self, messages, **_):
            return f"<u>{messages[-1]['content']}<a>"

    assert asking_for(Chat()).prompts("tea")[0].startswith("<u>")
    assert asking_for(lab_model[1]).layout == "Question: {question} Answer:"
    assert asking_for(None).layout == "{question}"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"trait": "extroversion"}, UnknownName, "did you mean 'extraversion'"),
        ({"topic": "coffe"}, InvalidInput, "did you mean 'coffee'?"),
        ({"method": "rome"}, UnknownName, "known: ft, ike, memit, mend, serac"),
        ({"method": "serac", "scale": 0}, InvalidInput, "scale"),
        ({"method": "serac", "steeps": 3}, UnknownName, "did you mean 'steps'"),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest(topics, lab_model, given, error, said):
    wanted = {"topic": TOPIC, "trait": "neuroticism", "method": "ft", **given}
    with pytest.raises(error) as caught:
        edit_personality(*lab_model, topics, **wanted)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_interview_needs_another_topic(topics, lab_model):
    with pytest.raises(InvalidInput, match="no other topics"):
        interview(*lab_model, topics[TOPIC], "neuroticism", [])
