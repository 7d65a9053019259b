from __future__ import annotations

import json
import warnings

import pytest
import torch
from tests.reference.tracing import Plain
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput, SubjectNotFound, UnknownName, UnsupportedModel
from emend.locate import KINDS, subject_effect, trace, trace_many
from emend.models import ModelView, subject_token

PROMPT, SUBJECT = "We know that {} was born in", "Marie Curie"
TEXT = PROMPT.format(SUBJECT)


def sharp(architecture, by=20.0, **fields):
    """A random model that is sure of what it says, so that effects are large."""
    model, tokenizer = tiny_model(architecture, **fields)
    with torch.no_grad():
        ModelView(model).final_norm.weight.add_(by)
    return model, tokenizer


def traced(model, tokenizer, **settings):
    """A trace, and the plain way of the same."""
    found = trace(model, tokenizer, PROMPT, SUBJECT, draws=3, **settings)
    return found, Plain(model, tokenizer(TEXT)["input_ids"], found.first, found.last, 3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neox", "gemma3"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=["32", "64"]
)
def test_every_effect_is_that_of_whole_passes(architecture, dtype, tolerance) -> None:
    model, tokenizer = sharp(architecture, dtype=dtype)
    found, plain = traced(model, tokenizer, kinds=KINDS, window=3)
    assert found.clean == pytest.approx(plain.clean, abs=tolerance)
    assert found.disturbed == pytest.approx(float(plain.disturbed.mean()), abs=tolerance)
    for kind in KINDS:
        expected = plain.effects(kind, window=3)
        assert expected.abs().max() > 3e-3  # or the tolerance would say nothing
        assert (found.effects[kind].double() - expected).abs().max() < tolerance


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_architecture(architecture) -> None:
    model, tokenizer = sharp(architecture, by=2.0 if architecture == "bloom" else 6.0, layers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none falls back to running all tokens
        # A random model knows no fact that noise could take from it.
        warnings.filterwarnings("ignore", message="noise at the subject does not lower")
        found, plain = traced(model, tokenizer, kinds=KINDS, window=1)
    for kind in KINDS:
        expected = plain.effects(kind, window=1)
        assert expected.abs().max() > 1e-5
        tolerance = 1e-6 + 1e-3 * expected.abs().max()
        assert (found.effects[kind].double() - expected).abs().max() < tolerance


def test_a_model_that_takes_no_cache_is_run_whole(monkeypatch) -> None:
    from emend.models.replay import RecordingCache, Refused

    def refuse(*_args):
        raise Refused

    model, tokenizer = sharp("llama")
    expected = trace(model, tokenizer, PROMPT, SUBJECT, draws=2, kinds=KINDS, window=2)
    slopes = trace(model, tokenizer, PROMPT, SUBJECT, draws=2, approximate=True)
    monkeypatch.setattr(RecordingCache, "checked", refuse)
    with pytest.warns(UserWarning, match="exact, but slower"):
        found = trace(model, tokenizer, PROMPT, SUBJECT, draws=2, kinds=KINDS, window=2)
    with pytest.warns(UserWarning, match="exact, but slower"):
        again = trace(model, tokenizer, PROMPT, SUBJECT, draws=2, approximate=True)
    for kind in KINDS:
        assert (found.effects[kind] - expected.effects[kind]).abs().max() < 1e-5
    assert (again.effects["state"] - slopes.effects["state"]).abs().max() < 1e-5


def test_only_what_a_restoration_can_reach_is_run(monkeypatch) -> None:
    from emend.models.replay import BlockCall

    model, tokenizer = tiny_model("gpt2")
    run: list[int] = []
    plain = BlockCall.run

    def counting(self, block, hidden, cache):
        run.append(hidden.shape[0] * hidden.shape[1])
        return plain(self, block, hidden, cache)

    monkeypatch.setattr(BlockCall, "run", counting)
    found = trace(model, tokenizer, PROMPT, SUBJECT, draws=3)
    after = len(found.tokens) - found.first
    # The disturbed pass from the subject on; then for each token those from it on, in the blocks
    # above each restored one: 1 + 2 + 3 of 4.
    assert sum(run) == 3 * (4 * after + 6 * sum(range(1, after + 1)))
    assert len(run) == 4 + 3 * after  # all of one token's restorations go through a block at once


def test_batches_and_seeds() -> None:
    model, tokenizer = sharp("llama")

    def effects(**settings):
        settings = {"draws": 5, "kinds": ("state", "mlp"), **settings}
        return torch.stack(
            list(trace(model, tokenizer, PROMPT, SUBJECT, **settings).effects.values())
        )

    first = effects()
    assert torch.equal(first, effects())
    assert (first - effects(batch_size=8)).abs().max() < 1e-5
    assert (first - effects(seed=2)).abs().max() > 1e-4
    assert (first - effects(noise=1.0)).abs().max() > 1e-4


def test_the_model_is_left_as_it_was() -> None:
    model, tokenizer = tiny_model("gpt2")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, tokenizer, PROMPT, SUBJECT, kinds=KINDS, draws=2)
    trace(model, tokenizer, PROMPT, SUBJECT, kinds=("state",), draws=2, approximate=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_a_trace_says() -> None:
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes_bos")
    found = trace(model, tokenizer, TEXT, SUBJECT, draws=2, kinds=("state", "attention"))
    ids = tokenizer(TEXT)["input_ids"]
    assert "".join(found.tokens[1:]) == TEXT
    name = "".join(found.tokens[found.first : found.last + 1])
    assert name.strip() == SUBJECT
    start = TEXT.index(SUBJECT)
    assert found.last == subject_token(tokenizer, TEXT, (start, start + len(SUBJECT)))
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert found.answer == found.said == tokenizer.decode([int(chances.argmax())])
    assert found.clean == pytest.approx(float(chances.max()), abs=1e-6)
    assert found.total == found.clean - found.disturbed
    for effects in found.effects.values():
        assert effects.shape == (len(ids), 4)
        assert (effects[: found.first] == 0).all()  # noise does not reach them
    states = found.effects["state"]
    assert states[-1, -1] == pytest.approx(found.total, abs=1e-6)  # all is as without noise
    assert (states[:-1, -1] == 0).all()  # nothing reads them any more
    token, layer = found.peak("state")
    assert states[token, layer] == states.max()
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["effects"]["state"] == states.tolist()
    assert data["tokens"][0] == "<s>"


def test_bytes_of_one_character_belong_to_the_subject() -> None:
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes_bos")
    found = trace(model, tokenizer, "See {} now", "🦉", draws=1)
    ids = tokenizer("See 🦉 now")["input_ids"]
    assert tokenizer.decode(ids[found.first : found.last + 1]).strip() == "🦉"
    assert found.last - found.first >= 2


def test_the_total_effect_alone_is_that_of_a_trace() -> None:
    model, tokenizer = sharp("llama")
    found = trace(model, tokenizer, PROMPT, SUBJECT, draws=3, noise=5.0)
    alone = subject_effect(model, tokenizer, PROMPT, SUBJECT, draws=3, noise=5.0)
    assert alone == pytest.approx((found.clean, found.disturbed), abs=1e-7)
    assert abs(found.total) > 1e-3


def test_an_attached_patch_counts() -> None:
    from tests.patches.helpers import random_patch

    model, tokenizer = sharp("gpt2")
    plain = trace(model, tokenizer, PROMPT, SUBJECT, draws=3).effects["state"]
    with random_patch(model, "gpt2", scale=1.0).applied(model):
        found, whole = traced(model, tokenizer)
        expected = whole.effects("state")
    assert (found.effects["state"].double() - expected).abs().max() < 1e-5
    assert (found.effects["state"] - plain).abs().max() > 1e-3


def test_approximate_effects_are_those_of_small_noise() -> None:
    # The estimate is the first term of a series, so it is all there is when noise is small.
    model, tokenizer = tiny_model("gpt2", dtype=torch.float64)  # llama's norms are in float32
    kinds = ("state", "mlp", "attention")
    settings = {"kinds": kinds, "window": 1, "draws": 4, "noise": 1e-5}
    exact = trace(model, tokenizer, PROMPT, SUBJECT, **settings)
    found = trace(model, tokenizer, PROMPT, SUBJECT, approximate=True, **settings)
    for kind in kinds:
        expected = exact.effects[kind]
        assert expected.abs().max() > 0
        assert (found.effects[kind] - expected).abs().max() < 1e-3 * expected.abs().max()
    wide = trace(model, tokenizer, PROMPT, SUBJECT, approximate=True, **{**settings, "window": 3})
    summed = found.effects["mlp"][:, 1:4].sum(1)  # layers 1 to 3 around layer 2
    assert torch.allclose(wide.effects["mlp"][:, 2], summed)


def test_noise_that_takes_nothing_away_is_stated() -> None:
    """Fault B15: where noise raises the probability, the map means nothing."""
    model, tokenizer = sharp("gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traces = {
            word: trace(model, tokenizer, PROMPT, SUBJECT, word, draws=3)
            for word in (" Warsaw", " Paris", " Tom", " the", " Lyon")
        }
    known = trace(model, tokenizer, PROMPT, SUBJECT, draws=3)
    assert known.total > 0
    assert known.caveat is None
    assert known.to_dict()["caveat"] is None
    word, raised = next((word, one) for word, one in traces.items() if one.total < 0)
    assert "does not lower P(" in raised.caveat
    assert raised.to_dict()["caveat"] == raised.caveat
    with pytest.warns(UserWarning, match="the map means nothing"):
        trace(model, tokenizer, PROMPT, SUBJECT, word, draws=3)
    questions = [(PROMPT, SUBJECT, None), (PROMPT, SUBJECT, word)]
    with pytest.warns(UserWarning, match="in 1 of 2 facts, so that the averages mean nothing"):
        found = trace_many(model, tokenizer, questions, known_only=False, draws=3)
    assert found.to_dict()["caveat"] == found.caveat


def test_an_answer_that_the_model_does_not_give_is_traced_with_a_warning() -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.warns(UserWarning, match=r"the model says .* and not ' "):
        found = trace(model, tokenizer, PROMPT, SUBJECT, " Warsaw", draws=1)
    ids = [*tokenizer(TEXT)["input_ids"]]
    token = tokenizer(" Warsaw")["input_ids"][0]
    assert found.answer == tokenizer.decode([token]) != found.said
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert found.clean == pytest.approx(float(chances[token]), abs=1e-6)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"subject": "Tom Berg", "prompt": TEXT}, SubjectNotFound, "'Tom Berg' is not in"),
        ({"subject": " "}, InvalidInput, "subject is empty"),
        ({"prompt": "{} and {}"}, InvalidInput, "has 2 {}"),
        ({"prompt": "a " * 200 + "{} is"}, InvalidInput, "for a model that reads 128"),
        ({"kinds": ("states",)}, UnknownName, "did you mean 'state'"),
        ({"kinds": "mlp"}, InvalidInput, "expected a tuple"),
        ({"kinds": ()}, InvalidInput, "no kinds"),
        ({"draw": 3}, UnknownName, "did you mean 'draws'"),
        ({"draws": 0}, InvalidInput, "draws is 0"),
        ({"window": 0}, InvalidInput, "window is 0"),
        ({"noise": 0.0}, InvalidInput, "disturbs nothing"),
        (
            {"kinds": ("severed_mlp",), "approximate": True},
            InvalidInput,
            "no approximation of severed_mlp",
        ),
    ],
)
def test_misuse_is_refused(given, kind, said) -> None:
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(kind, match=said) as caught:
        trace(model, tokenizer, **{"prompt": PROMPT, "subject": SUBJECT, **given})
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_without_a_dense_mlp_is_refused() -> None:
    model, tokenizer = tiny_model("mixtral")
    with pytest.raises(UnsupportedModel, match="mixture of experts") as caught:
        trace(model, tokenizer, PROMPT, SUBJECT)
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_without_mlps_is_refused() -> None:
    from transformers import MambaConfig, MambaForCausalLM

    _, tokenizer = tiny_model("gpt2")
    sizes = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    with pytest.raises(UnsupportedModel, match="has no MLP") as caught:
        trace(MambaForCausalLM(MambaConfig(**sizes)), tokenizer, PROMPT, SUBJECT)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_that_are_not_finite_are_refused() -> None:
    from emend.errors import NumericalFailure

    model, tokenizer = tiny_model("gpt2")
    ModelView(model)
    with torch.no_grad():
        model.transformer.h[2].mlp.c_proj.weight[0, 0] = float("nan")
    with pytest.raises(NumericalFailure):
        trace(model, tokenizer, PROMPT, SUBJECT)
