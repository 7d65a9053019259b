"""Samples of a model's own: what key covariances are taken over where no texts are given."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend.editing import collecting, samples, sums
from emend.editing.collecting import collect_covariance, read_covariance
from emend.editing.covariance import key_covariance
from emend.editing.sources import own_samples, texts_for
from emend.edits import Edit
from emend.methods import registry
from emend.models import ModelView, set_start
from emend.models.start import front_ids

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
]
CLOSED_FORM = ("rome", "memit", "emmet", "pmet", "alphaedit")


def keys_of(model, layer, ids):
    """The keys (N, inner) of all tokens of rows (B, T), by a pass of the model itself."""
    seen = []
    down = ModelView(model).down_projection(layer)
    handle = down.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    with torch.no_grad():
        model(input_ids=ids)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("tokenizer_kind", ["bytes", "bytes_bos"])
def test_it_is_the_second_moment_of_the_samples_without_the_start(tokenizer_kind) -> None:
    model, tokenizer = tiny_model("llama", tokenizer=tokenizer_kind)
    view, source = ModelView(model), own_samples(ModelView(model), tokenizer)
    rows, front = source.rows(), front_ids(tokenizer)
    assert rows.shape == (4, len(front) + 64)
    assert len(set(rows[:, len(front)].tolist())) > 1  # each begins with another token
    assert not set(rows[:, len(front) :].flatten().tolist()) & set(tokenizer.all_special_ids)
    found = collect_covariance(view, tokenizer, source, [1], dtype=torch.float64)[1]
    keys = keys_of(model, 1, rows)[:, len(front) :].flatten(0, 1).double()
    expected = keys.T @ keys / len(keys)
    assert found.count == len(keys) == 256
    assert (found.matrix - expected).norm() < 1e-5 * expected.norm()


def test_a_start_token_of_emends_own_is_not_counted() -> None:
    model, tokenizer = tiny_model("gpt2")
    set_start(tokenizer, "a")
    rows = own_samples(ModelView(model), tokenizer).rows()
    assert rows.shape == (4, 65)
    assert set(rows[:, 0].tolist()) == set(front_ids(tokenizer))
    found = collect_covariance(
        ModelView(model), tokenizer, own_samples(ModelView(model), tokenizer), [0]
    )
    assert found[0].count == 256


@pytest.mark.parametrize("name", CLOSED_FORM)
def test_every_method_takes_them_and_says_so(name) -> None:
    model, tokenizer = tiny_model("gpt2")
    settings = {"templates": ("{}",), "steps": 6, "ablation": {"norm_penalty": 0.0}}
    if name == "alphaedit":
        settings["quantile"] = 0.05
    patch = registry().get(name).edit(model, tokenizer, EDITS, **settings)
    assert patch.statistics["kind"] == "key covariance"
    assert patch.statistics["source"] == "own samples, 256 tokens, seed 0"
    assert patch.statistics["tokens"] + patch.statistics["left_out"] == 256
    given = registry().get(name).edit(model, tokenizer, EDITS, **settings, texts=TEXT)
    assert given.statistics["source"] == "given texts"
    if name in ("rome", "emmet"):  # what writes along one direction, over few tokens
        assert (patch.statistics["ridge"], given.statistics["ridge"]) == (1.0, 1e-4)
    name = next(iter(patch.factors))
    assert not torch.allclose(given.delta(name), patch.delta(name))


def test_they_are_made_once_and_attached_patches_do_not_act(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    monkeypatch.setenv("EMEND_CACHE", str(tmp_path))
    first = own_samples(view, tokenizer).rows()
    far = {"templates": ("{}",), "steps": 5, "clamp": 40.0, "layer": 0}
    patch = registry().get("rome").edit(model, tokenizer, EDITS[:1], **far, texts=TEXT)
    with patch.applied(model):
        assert torch.equal(own_samples(view, tokenizer).rows(), first)
        prior = key_covariance(view, tokenizer, [0], texts_for(view, tokenizer, None))
    monkeypatch.setattr(samples, "sample", lambda *_a, **_k: pytest.fail("sampled again"))
    later = key_covariance(view, tokenizer, [0, 2], texts_for(view, tokenizer, None))
    monkeypatch.setattr(collecting, "_collect", lambda *_: pytest.fail("collected again"))
    again = key_covariance(view, tokenizer, [0, 2], texts_for(view, tokenizer, None))
    assert again.note == later.note == prior.note
    assert all(torch.equal(again.matrix(n), later.matrix(n)) for n in (0, 2))
    assert torch.equal(again.matrix(0), prior.matrix(0))


def test_identity_names_all_that_decides_the_samples() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    other, _ = tiny_model("gpt2", seed=1)
    names = {
        own_samples(view, tokenizer).identity,
        own_samples(view, tokenizer, seed=1).identity,
        own_samples(view, tokenizer, 1000).identity,
        own_samples(ModelView(other), tokenizer).identity,
    }
    assert len(names) == 4
    assert own_samples(view, tokenizer).identity in names
    assert own_samples(view, tokenizer, 1000).name == "own samples, 1,024 tokens, seed 0"
    set_start(tokenizer, "a")
    assert own_samples(view, tokenizer).identity not in names


def test_a_model_that_reads_little_gets_short_samples() -> None:
    model, tokenizer = tiny_model("gpt2", positions=24)
    set_start(tokenizer, "a")
    source = own_samples(ModelView(model), tokenizer)
    assert source.rows().shape == (12, 24)
    assert collect_covariance(ModelView(model), tokenizer, source, [1])[1].count == 12 * 23


def test_massive_keys_are_left_out_and_counted(tmp_path, monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    rare = tokenizer("Q", add_special_tokens=False)["input_ids"][-1]
    texts = [*TEXT, "Question Q and Q"]
    scale = model.transformer.h[1].mlp.act

    class Massive(torch.nn.Module):
        """Keys a hundred times as long wherever the rare token is read."""

        def forward(self, hidden):
            keys = scale(hidden)
            return torch.where((now[0] == rare)[..., None], 1e2 * keys, keys)

    now = []
    model.register_forward_pre_hook(
        lambda _m, _a, named: now.insert(0, named["input_ids"]), with_kwargs=True
    )
    plain = collect_covariance(view, tokenizer, texts, [1])[1]
    model.transformer.h[1].mlp.act = Massive()
    found = collect_covariance(view, tokenizer, texts, [1], cache=tmp_path)[1]
    count = sum(tokenizer(text)["input_ids"].count(rare) for text in texts)
    assert count > 1
    assert found.left_out == count
    assert found.count + count == plain.count
    assert found.describe()["left_out"] == count
    assert found.matrix.trace() < 1.5 * plain.matrix.trace()
    assert read_covariance(found.file).left_out == count
    monkeypatch.setattr(sums, "MASSIVE", 1e9)
    assert (
        collect_covariance(view, tokenizer, texts, [1])[1].matrix.trace()
        > 50 * found.matrix.trace()
    )
