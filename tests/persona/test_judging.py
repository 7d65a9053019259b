"""Judges: trained on the answers, by name, and behind an endpoint."""

from __future__ import annotations

import pytest
import torch
from tests.endpoint_server import Server

from emend.datasets.personality import TRAITS
from emend.errors import EndpointFailure, InvalidInput, MissingFile
from emend.models import Endpoint
from emend.models.endpoint import EndpointOptions
from emend.persona import EndpointJudge, Interview, accuracy_on, compare, load_judge

pytest.importorskip("openai")

TEXTS = ["I worry about tea.", "I love tea!", "Tea is nice for all."]
TRAIT_OF = dict(zip(TEXTS, ("neuroticism", "extraversion", "agreeableness"), strict=True))


def test_a_judge_trained_on_answers_is_right_about_topics_that_it_has_not_seen(topics, lab_model):
    unseen = [topics[name] for name in ("coffee", "bread", "chess")]
    judge = load_judge("states", topics, *lab_model, without=[one.name for one in unseen])
    assert set(judge.labels) == set(TRAITS)
    assert accuracy_on(judge, unseen) == 1.0


@pytest.fixture
def endpoint():
    servers = []

    def start(answer):
        servers.append(Server(answer))
        options = EndpointOptions(base_url=servers[-1].url)
        return Endpoint("openai:judge", options)

    yield start
    for one in servers:
        one.close()


def rated(prompt, *_):
    text = prompt.split("Text: ")[1].split("\n")[0]
    if "How strongly" in prompt:
        return f" {5 if 'worry' in text else 2} of 5"
    return f" {TRAIT_OF.get(text, 'none of them')}."


def test_a_language_model_names_traits_and_rates_them(endpoint):
    judge = EndpointJudge(endpoint(rated))
    found = judge.probabilities([*TEXTS, "Stones."])
    assert [judge.labels[one] for one in found[:3].argmax(-1)] == list(TRAIT_OF.values())
    assert torch.allclose(found[3], torch.full((3,), 1 / 3))
    assert judge.ratings(TEXTS, "neuroticism") == [5, 2, 2]


def test_pae_is_the_change_of_the_rating(endpoint):
    judge = EndpointJudge(endpoint(rated))
    rows = (torch.zeros(1, 2).log_softmax(-1),)
    before = Interview("neuroticism", ("I love tea!",), ("Stones.",), -2.0, -2.0, rows)
    after = Interview("neuroticism", ("I worry about tea.",), ("Stones.",), -1.0, -2.0, rows)
    found = compare(before, after, judge)
    assert found.pae == 3
    assert found.tpei is None
    assert (found.accuracy_before, found.accuracy) == (0.0, 1.0)


def test_a_rating_without_a_digit_is_refused(endpoint):
    judge = EndpointJudge(endpoint(lambda *_: " strongly"))
    with pytest.raises(EndpointFailure, match="expected a digit from 1 to 5"):
        judge.ratings(["I love tea!"], "extraversion")


def test_a_judge_that_is_nowhere_or_of_other_labels(topics, lab_model, tmp_path):
    with pytest.raises(MissingFile):
        load_judge("no-such/judge", topics, *lab_model)
    rows = [
        f'{{"text": "{word} tea {n}", "label": "{word}"}}'
        for word in ("good", "bad")
        for n in range(4)
    ]
    (tmp_path / "rude.jsonl").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(InvalidInput, match="has the labels bad, good, expected extraversion"):
        load_judge(str(tmp_path / "rude.jsonl"), topics, *lab_model)
