from __future__ import annotations

import copy
import dataclasses
import math
import sys
from contextlib import ExitStack, nullcontext

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.editing.preservation import preserved_batches
from emend.edits import Edit
from emend.errors import InvalidInput, MissingExtra, UnknownName
from emend.methods import lora as module
from emend.methods.lora import adapted_modules, lora
from emend.models import ModelView, join_targets, score
from emend.models.hooks import changing, frozen
from emend.patches import LowRank

peft = pytest.importorskip("peft", reason="needs the extra `peft`")

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="first"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="second"),
]


def plain_lora(model, tokenizer, names, steps, rate, seed):
    """PEFT as its manual has it, on a copy: whole model, one edit after the other, merged."""
    model = copy.deepcopy(model)
    view = ModelView(model)
    transposed = view.is_transposed(0)
    settings = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=names, fan_in_fan_out=transposed
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = peft.get_peft_model(model, settings)
    weights = [weight for weight in wrapped.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=rate)
    pairs = join_targets(tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
    for _ in range(steps):
        loss = torch.zeros(())
        for prompt, target in pairs:
            ids = torch.tensor([[*prompt, *target[:-1]]])
            logits = wrapped(input_ids=ids).logits[0, -len(target) :]
            loss = loss + torch.nn.functional.cross_entropy(logits, torch.tensor(target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return wrapped.merge_and_unload()


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gpt_neo", "phi3", "falcon"])
@pytest.mark.parametrize("layers", [None, (1, 3)])
def test_logits_are_those_of_an_adapter_that_peft_trained_and_merged(
    architecture, layers, monkeypatch
) -> None:
    monkeypatch.setattr(module, "ORIGINAL", dataclasses.replace(module.ORIGINAL, dropout=0.0))
    model, tokenizer = tiny_model(architecture, dtype=torch.float64)
    monkeypatch.setattr(module, "ALPHA", 8.0)
    settings = {"rank": 4, "steps": 3, "layers": layers, "seed": 5}
    settings["original"] = True
    patch = lora.edit(model, tokenizer, EDITS, **settings)
    expected = plain_lora(model, tokenizer, sorted(patch.factors), 3, 5e-3, seed=5)
    for edit in EDITS:
        ids = tokenizer(edit.text, return_tensors="pt").input_ids
        with torch.no_grad():
            clean = model(input_ids=ids).logits
            with patch.applied(model):
                found = model(input_ids=ids).logits
            wanted = expected(input_ids=ids).logits
        assert (wanted - clean).abs().max() > 1e-3
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_queries_and_values_are_found_in_every_architecture(architecture) -> None:
    model, _ = tiny_model(architecture)
    view = ModelView(model)
    names = adapted_modules(view, (1, 2))
    leaves = {name.rpartition(".")[2] for name in names}
    assert leaves in ({"q_proj", "v_proj"}, {"c_attn"}, {"query_key_value"}, {"qkv_proj"})
    inside = {view.name_of(m) for layer in (1, 2) for m in view.attention(layer).modules()}
    assert set(names) <= inside
    assert len(names) == 2 * len(leaves)


def test_modules_and_layers_are_chosen_by_name() -> None:
    model, tokenizer = tiny_model("llama")
    patch = lora.edit(
        model, tokenizer, EDITS, modules=("mlp.down_proj", "o_proj"), layers=(-1,), steps=2
    )
    assert sorted(patch.factors) == [
        "model.layers.3.mlp.down_proj",
        "model.layers.3.self_attn.o_proj",
    ]
    assert {factor.rank for factor in patch.factors.values()} == {8}
    with pytest.raises(UnknownName, match="did you mean 'q_proj'"):
        lora.edit(model, tokenizer, EDITS, modules=("qproj",))
    with pytest.raises(UnknownName):
        lora.edit(model, tokenizer, EDITS, modules=("proj",))


def test_targets_become_likelier() -> None:
    model, tokenizer = tiny_model("gpt2")
    prompts, targets = [e.text for e in EDITS], [e.target for e in EDITS]
    before = score(model, tokenizer, prompts, targets)
    patch = lora.edit(model, tokenizer, EDITS, original=True)
    with patch.applied(model):
        after = score(model, tokenizer, prompts, targets)
    assert all(new.mean > old.mean + 1 for new, old in zip(after, before, strict=True))


def test_the_published_form_is_not_the_default() -> None:
    model, tokenizer = tiny_model("llama", layers=12)
    default, original = (
        lora.edit(model, tokenizer, EDITS, original=one, steps=1) for one in (False, True)
    )
    assert default.config["layers"] == (0, 1, 2, 3, 4)
    assert original.config["layers"] == tuple(range(12))
    assert (default.config["learning_rate"], original.config["learning_rate"]) == (2e-3, 5e-3)
    assert all(name.endswith("mlp.down_proj") for name in default.factors)
    assert not any("mlp" in name for name in original.factors)
    assert (module.DEFAULT.preserved, module.ORIGINAL.preserved) == (4, 0)


def test_what_is_held_changes_less_and_passes_end_when_targets_are_probable_enough() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.float64)
    with torch.no_grad():
        model.model.norm.weight.mul_(20)  # or else no hidden state gives certainty
    view = ModelView(model)
    (held,) = preserved_batches(view, tokenizer, EDITS, 0, statements=4, others=0)

    def tuned(**settings):
        chosen = {"steps": 100, "learning_rate": 0.02, **settings}
        patch = lora.edit(model, tokenizer, EDITS, **chosen)
        with ExitStack() as stack, torch.no_grad():
            for name, factor in patch.factors.items():
                site = model.get_submodule(name)
                stack.enter_context(changing(site, factor.dense()))
            found = score(model, tokenizer, [e.text for e in EDITS], [e.target for e in EDITS])
            return float(held.divergence(view)), min(math.exp(one.mean) for one in found)

    kept, chance = tuned()
    lost, without = tuned(hold=0.0)
    _, endless = tuned(original=True)
    assert min(chance, without) > 0.7
    assert endless > without
    assert kept < 0.5 * lost


def test_the_seed_decides() -> None:
    model, tokenizer = tiny_model("qwen3")

    def change(seed: int) -> torch.Tensor:
        patch = lora.edit(model, tokenizer, EDITS, steps=3, seed=seed)
        return torch.cat([factor.dense().flatten() for factor in patch.factors.values()])

    first = change(0)
    torch.rand(3)
    assert torch.equal(first, change(0))
    assert not torch.allclose(first, change(1))


def test_one_edit_can_be_told_and_several_cannot() -> None:
    model, tokenizer = tiny_model("gpt2")
    alone = lora.edit(model, tokenizer, EDITS[:1], steps=2)
    assert all(name.endswith("mlp.c_proj") for name in alone.factors)
    assert all(set(f.columns) == {"first"} for f in alone.factors.values())
    both = lora.edit(model, tokenizer, EDITS, steps=2)
    assert all(isinstance(f, LowRank) and f.columns is None for f in both.factors.values())
    with pytest.raises(InvalidInput):
        both.without("first")


def test_half_precision_is_trained_in_float32() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.bfloat16)
    view = ModelView(model)
    config = {"r": 8, "lora_alpha": 32.0, "lora_dropout": 0.0}
    with frozen(model), module.injected(model, adapted_modules(view, (0,)), config) as adapters:
        for adapter in adapters.values():
            assert {weight.dtype for weight in module._matrices(adapter)} == {torch.float32}
    patch = lora.edit(model, tokenizer, EDITS, steps=3)
    with patch.applied(model):
        assert score(model, tokenizer, ["Marie"], ["Paris"])


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_every_module_is_the_same_object_with_the_same_things_on_it(error) -> None:
    model, _ = tiny_model("gpt2")
    view = ModelView(model)

    def everything():
        return [(name, id(m), sorted(vars(m)), m.training) for name, m in model.named_modules()]

    before, flags = everything(), [p.requires_grad for p in model.parameters()]
    config = {"r": 8, "lora_alpha": 32.0, "lora_dropout": 0.0}
    names = adapted_modules(view, (0, 2))
    raised = pytest.raises(error) if error else nullcontext()
    with raised, frozen(model), module.injected(model, names, config):
        assert everything() != before
        if error:
            raise error
    assert everything() == before
    assert [p.requires_grad for p in model.parameters()] == flags


def test_bad_settings_are_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    for settings in (
        *({"layers": (9,)}, {"layers": ()}, {"steps": 0}, {"rank": 0}),
        *({"hold": -0.1}, {"learning_rate": 0.0}),
    ):
        with pytest.raises(InvalidInput):
            lora.edit(model, tokenizer, EDITS, **settings)


def test_without_peft_the_message_says_what_to_install(monkeypatch) -> None:
    model, tokenizer = tiny_model("gpt2")
    monkeypatch.delitem(sys.modules, "peft")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'emend\[peft\]'"):
        lora.edit(model, tokenizer, EDITS)
