"""Attacks: candidates against plain implementations, and what they find of an edited lab model."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend import datasets
from emend.erasure import Secret, attack, secrets_from
from emend.erasure.attack_report import Rate
from emend.erasure.attacks import Case, Given, registry
from emend.erasure.attacks.rephrasing import paraphrases, stripped
from emend.errors import InvalidInput, UnknownName
from emend.locate import lens

SECRETS = (
    Secret("{} was born in", "Marie Curie", "Warsaw"),
    Secret("The mother tongue of {} is", "Tom Berg", "Danish"),
    Secret("{} works for", "Anna Berg", "Nordlicht"),
)
ALL = ("greedy", "head_projection", "probability_delta", "relearning", "rephrasing", "sampling")


def given(architecture="llama", **settings):
    model, tokenizer = tiny_model(architecture)
    return Given(model, tokenizer, [Case(secret) for secret in SECRETS], **settings)


def answer_ids(tokenizer, secret):
    return tokenizer(" " + secret.answer, add_special_tokens=False)["input_ids"]


def lens_chances(model, tokenizer, secret):
    """Distributions of all layers where each token of the answer is predicted, the plain way."""
    start = tokenizer(secret.text)["input_ids"]
    answer = answer_ids(tokenizer, secret)
    row = torch.tensor([[*start, *answer[:-1]]])
    with torch.no_grad():
        states = model(input_ids=row, output_hidden_states=True).hidden_states
        found = [model.lm_head(model.model.norm(state)) for state in states[1:-1]]
        found.append(model(input_ids=row).logits)  # the last state is normed already
    columns = slice(len(start) - 1, None)
    return [one[0, columns].float().softmax(-1) for one in found], answer


@pytest.mark.parametrize("batch_size", [1, 32])
def test_head_projection_names_the_top_tokens_of_each_layer(batch_size):
    it = given(budget=60, batch_size=batch_size)
    found = registry().get("head_projection").run(it)
    for secret, attempt in zip(SECRETS, found.attempts, strict=True):
        chances, answer = lens_chances(it.model, it.tokenizer, secret)
        layers = chances[2:]  # of four layers the upper half
        named = [{*one.topk(30).indices[0].tolist()} for one in layers]
        hits = [
            any(token in one[step].topk(30).indices for one in layers)
            for step, token in enumerate(answer)
        ]
        assert {*attempt.candidates} == {it.tokenizer.decode([n]) for n in set().union(*named)}
        assert (attempt.tokens, attempt.tokens_found) == (len(answer), sum(hits))
        assert attempt.found == all(hits)
    assert "layers 2, 3" in found.how and "top 30" in found.how


def test_its_layers_agree_with_the_lens_and_are_as_given():
    it = given(budget=4, layers=(1, -1))
    found = registry().get("head_projection").run(it)
    shown = lens(it.model, it.tokenizer, SECRETS[0].text, top=2)
    assert {*found.attempts[0].candidates} == {*shown.best[1][-1], *shown.best[3][-1]}


def test_probability_delta_names_what_rises_and_falls():
    it = given(budget=40, layers=(1, 2, 3))
    found = registry().get("probability_delta").run(it)
    for secret, attempt in zip(SECRETS, found.attempts, strict=True):
        chances, answer = lens_chances(it.model, it.tokenizer, secret)
        changes = [chances[2] - chances[1], chances[3] - chances[2]]
        named = {
            token
            for change in changes
            for largest in (True, False)
            for token in change[0].topk(10, largest=largest).indices.tolist()
        }
        assert {*attempt.candidates} == {it.tokenizer.decode([n]) for n in named}
        hits = [
            any(
                token in change[step].topk(10, largest=largest).indices
                for change in changes
                for largest in (True, False)
            )
            for step, token in enumerate(answer)
        ]
        assert attempt.tokens_found == sum(hits)


def test_sampling_draws_the_whole_answer_with_its_probability():
    it = given(budget=20)
    found = registry().get("sampling").run(it)
    for secret, attempt in zip(SECRETS, found.attempts, strict=True):
        chances, answer = lens_chances(it.model, it.tokenizer, secret)
        expected = math.prod(chances[-1][step, token].item() for step, token in enumerate(answer))
        assert attempt.probability == pytest.approx(expected, rel=1e-3)
    # Over many seeds a budget of B finds it as often as B draws do: 1 - (1 - P)^B.
    chance, budget = found.attempts[0].probability, round(1 / found.attempts[0].probability)
    run = registry().get("sampling").run
    one = [Case(SECRETS[0])]
    hits = [
        run(Given(it.model, it.tokenizer, one, budget, seed)).attempts[0].found
        for seed in range(150)
    ]
    assert sum(hits) / 150 == pytest.approx(1 - (1 - chance) ** budget, abs=0.12)


def test_paraphrases_are_the_own_ones_without_the_answer_or_made():
    own = Secret("{} was born in", "Ana", "Oslo", paraphrases=("Oslo: Ana, born in Oslo, is from",))
    assert stripped(own.paraphrases[0], own) == ": Ana, born in , is from"
    assert stripped("Osloer Ana is from", own) == "Osloer Ana is from"
    it = given()
    assert paraphrases(Case(own), it) == [": Ana, born in , is from"]
    made = paraphrases(Case(SECRETS[0]), it)
    assert made and all("Marie Curie" in text for text in made)
    assert SECRETS[0].text not in made


def test_rephrasing_divides_the_budget():
    texts = tuple(f"Number {number}: Marie Curie is from" for number in range(4))
    secret = Secret("{} was born in", "Marie Curie", "Warsaw", paraphrases=texts)
    it = given(budget=20)
    found = registry().get("rephrasing").run(Given(it.model, it.tokenizer, [Case(secret)], 20))
    assert "5 draws of each of 4 paraphrases" in found.how
    few = registry().get("rephrasing").run(Given(it.model, it.tokenizer, [Case(secret)], 2))
    assert "1 draws of each of 2 paraphrases" in few.how


def test_wilson_intervals():
    assert Rate(5, 10).interval == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert Rate(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert Rate(0, 0).share is None and Rate(0, 0).interval is None and Rate(0, 0).text() == "-"


@pytest.fixture(scope="module")
def lab():
    model, tokenizer = emend.load("lab/gptneo")
    edits = datasets.load("lab", limit=6, seed=11)
    with_unknown = [*secrets_from(edits), Secret("{} was born in", "Zobo Zab", "Datat", id="none")]
    patch = emend.edit(model, tokenizer, edits)
    return model, tokenizer, with_unknown, patch


def test_an_edit_hides_what_states_and_relearning_bring_back(lab):
    model, tokenizer, secrets, patch = lab
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    before = attack(model, tokenizer, secrets)
    with patch.applied(model):
        after = attack(model, tokenizer, secrets)
    assert tuple(before.rates) == ALL
    assert all(rate.found == rate.of == 6 for rate in before.rates.values())
    assert after.rates["greedy"].found <= 1  # the edit took
    assert after.rates["head_projection"].found >= 3  # and the answer is still in the states
    assert after.rates["relearning"].found >= 3
    assert after.controls["greedy"].found <= 3
    assert all(torch.equal(one, weights[name]) for name, one in model.state_dict().items())


def test_a_secret_that_was_not_known_is_no_success(lab):
    model, tokenizer, secrets, patch = lab
    with patch.applied(model):
        found = attack(model, tokenizer, secrets, ["greedy", "sampling"])
    assert found.nothing_to_erase == ("none",)
    assert found.rates["greedy"].of == 6
    assert "over 6 secrets that the model knew" in found.note()
    assert "1 secret that it did not know: nothing to erase" in found.to_markdown()
    alone = attack(model, tokenizer, secrets[-1:], "greedy")
    assert alone.rates["greedy"].share is None and alone.any_attack.share is None


def test_results_are_the_same_again_and_in_any_batch_size(lab):
    model, tokenizer, secrets, patch = lab
    names = ["head_projection", "probability_delta", "rephrasing", "sampling"]
    with patch.applied(model):
        one = attack(model, tokenizer, secrets[:4], names, seed=5)
        other = attack(model, tokenizer, secrets[:4], names, seed=5, batch_size=3)
    assert one.rates == other.rates and one.controls == other.controls


def test_a_report_is_saved_as_plain_data(lab, tmp_path):
    model, tokenizer, secrets, _ = lab
    found = attack(model, tokenizer, secrets[:2], ["greedy", "relearning"], budget=5)
    data = json.loads(found.to_json())
    assert json.loads((found.save(tmp_path) / "attacks.json").read_text()) == data
    assert data["settings"]["budget"] == 5
    assert data["attacks"]["greedy"]["rate"]["found"] == 2
    assert (tmp_path / "attacks.md").read_text().startswith("| attack | found |")


def test_what_has_no_one_stream_of_states_is_stated(lab):
    model, tokenizer, secrets, _ = lab
    edits = [secret.edit("Datat") for secret in secrets[:2]]
    patch = emend.edit(model, tokenizer, edits, method="ike", contrast=0.5, k=0)
    with patch.applied(model):
        found = attack(model, tokenizer, secrets[:2])
    refused = {one.attack for one in found.outcomes if one.refusal is not None}
    assert refused == {"head_projection", "probability_delta", "relearning"}
    assert "expected one stream of states" in found.to_markdown()
    patch = emend.edit(model, tokenizer, edits, method="ike", contrast=0.0, k=0)
    with patch.applied(model):  # one prompt, whatever it holds, has states
        found = attack(model, tokenizer, secrets[:2], "head_projection")
    assert found.rates["head_projection"].of == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"budget": 0}, InvalidInput, "budget is 0, expected at least 1"),
        ({"attacks": "gredy"}, UnknownName, "did you mean 'greedy'"),
        ({"attacks": ()}, InvalidInput, "no attacks, expected some of greedy"),
        ({"secrets": ()}, InvalidInput, "no secrets, expected at least one"),
        ({"known": [True]}, InvalidInput, "known has 1 values for 3 secrets"),
        ({"layers": (9,)}, InvalidInput, "layers are"),
    ],
)
def test_misuse_is_refused(settings, error, message):
    model, tokenizer = tiny_model("llama")
    usual = {"secrets": SECRETS, "attacks": "head_projection"}
    settings = {**usual, **settings}
    with pytest.raises(error, match=message):
        attack(model, tokenizer, settings.pop("secrets"), settings.pop("attacks"), **settings)


def test_an_attack_without_budget_or_secrets_enough_is_not_run():
    model, tokenizer = tiny_model("llama")
    found = attack(model, tokenizer, SECRETS[:1], ["probability_delta", "relearning"], budget=1)
    reasons = [one.refusal for one in found.outcomes]
    assert reasons == ["needs a budget of 2", "needs 2 secrets"]
    assert found.rates == {}


def test_the_room_loads_no_torch_until_it_is_used():
    code = (
        "import sys, emend; emend.erasure.Secret; assert 'torch' not in sys.modules; "
        "assert 'greedy' in emend.erasure.attacks.registry().names(); emend.erasure.metrics"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
