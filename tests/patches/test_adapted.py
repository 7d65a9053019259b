"""Models that PEFT has wrapped: patches name the plain model, and fit it with and without."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

import emend
from emend.errors import InvalidInput, UnsupportedModel
from emend.models import generate, score
from emend.models.fingerprints import model_fingerprint
from emend.models.wrapping import adapters_of, plain_modules, plain_weights
from emend.patches import describe_base, load_patch

peft = pytest.importorskip("peft")
EDIT = emend.Edit("{} was born in", "Marie Curie", "Lyon")
SHORT = {"templates": ("{}", "Yes. {}"), "texts": None}
METHODS = {
    "rome": {"layer": 1, "steps": 40, "original": True, **SHORT},
    "memit": {"layers": (1, 2), "steps": 40, "original": True, **SHORT},
    "ft": {"layers": (2,)},
    "grace": {},
}


def adapted(architecture, **settings):
    """The plain model again, with an adapter that changes what it says."""
    model, tokenizer = tiny_model(architecture)
    targets = {"gpt2": ["c_proj", "c_attn"], "llama": ["down_proj", "q_proj", "embed_tokens"]}
    config = peft.LoraConfig(target_modules=targets[architecture], r=2, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(model, config).eval()
    generator = torch.Generator().manual_seed(2)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1, generator=generator)
    return wrapped, tokenizer


def probability(model, tokenizer):
    (found,) = score(model, tokenizer, [EDIT.text], [EDIT.target])
    return found.total


@pytest.mark.filterwarnings("ignore:.*tie_word_embeddings")
@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_names_and_hash_are_those_of_the_plain_model(architecture):
    """Fault B10: names held PEFT's prefixes, and the hash its matrices."""
    plain, _ = tiny_model(architecture)
    expected = describe_base(plain)
    wrapped, _ = adapted(architecture, modules_to_save=["lm_head"])
    assert describe_base(wrapped) == {**expected, "adapters": ["default (LORA)"]}
    assert [n for n, _ in plain_modules(wrapped)] == [n for n, _ in plain.named_modules()]
    weights = dict(plain_weights(plain))
    assert [name for name, _ in plain_weights(wrapped)] == list(weights)
    for name, weight in plain_weights(wrapped):
        assert torch.equal(weight, weights[name])
    with wrapped.disable_adapter():
        assert adapters_of(wrapped) == []
    wrapped.merge_adapter()  # now the weights are others
    assert describe_base(wrapped)["hash"] != expected["hash"]


def test_caches_know_which_adapters_act():
    """Fault B10: a covariance taken with an adapter is not that without."""
    plain, _ = tiny_model("llama")
    wrapped, _ = adapted("llama")
    keys = [model_fingerprint(plain), model_fingerprint(wrapped)]
    with wrapped.disable_adapter():
        keys.append(model_fingerprint(wrapped))
    for module in wrapped.modules():
        if hasattr(module, "scale_layer"):
            module.scale_layer(0.5)
    keys.append(model_fingerprint(wrapped))
    assert len(set(keys)) == 4


@pytest.mark.filterwarnings("ignore:.*fan_in_fan_out")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_patches_load_with_and_without_the_adapter(method, architecture, tmp_path):
    """Fault B10: a patch of a wrapped model fitted nothing."""
    wrapped, tokenizer = adapted(architecture)
    plain, _ = tiny_model(architecture)
    before = probability(wrapped, tokenizer)
    patch = emend.edit(wrapped, tokenizer, [EDIT], method=method, **METHODS[method])
    with patch.applied(wrapped):  # it was sought with the adapter acting
        after = probability(wrapped, tokenizer)
        assert after > before or (architecture == "gpt2" and after != before)
        written = generate(wrapped, tokenizer, [EDIT.text], max_new_tokens=3)
    assert probability(wrapped, tokenizer) == before
    assert patch.card()["base"]["adapters"] == ["default (LORA)"]
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    with loaded.applied(wrapped):
        assert generate(wrapped, tokenizer, [EDIT.text], max_new_tokens=3) == written
        with wrapped.disable_adapter():
            found = probability(wrapped, tokenizer)
    with loaded.applied(plain):
        assert probability(plain, tokenizer) == pytest.approx(found, abs=1e-3)
    if method in ("rome", "memit", "ft"):
        served = peft.PeftModel.from_pretrained(plain, tmp_path / "patch").eval()
        assert probability(served, tokenizer) == pytest.approx(found, abs=1e-3)


def test_a_patch_of_the_plain_model_acts_through_the_wrapper():
    """Fault B10: attached to the model inside or to the wrapper is the same."""
    wrapped, tokenizer = adapted("llama")
    plain, _ = tiny_model("llama")
    patch = emend.edit(plain, tokenizer, [EDIT], method="grace")
    assert "adapters" not in patch.base
    with wrapped.disable_adapter(), patch.applied(wrapped):
        outside = generate(wrapped, tokenizer, [EDIT.text], max_new_tokens=3)
        given = tokenizer(EDIT.text, return_tensors="pt")
        whole = wrapped.generate(**given, max_new_tokens=3, do_sample=False, pad_token_id=0)
        called = wrapped(**given).logits[0, -1].argmax()
        with pytest.raises(InvalidInput, match="already"), patch.applied(wrapped.get_base_model()):
            pass
    with patch.applied(plain):
        assert generate(plain, tokenizer, [EDIT.text], max_new_tokens=3) == outside
    assert whole[0, given.input_ids.shape[1]] == called
    assert tokenizer.decode(whole[0, given.input_ids.shape[1] :]) == outside[0]


def test_what_cannot_be_done_with_an_adapter_is_said(tmp_path):
    """Fault B10: one line for methods and ways of saving that need the plain model."""
    wrapped, tokenizer = adapted("llama")
    with pytest.raises(UnsupportedModel, match="merge_and_unload"):
        emend.edit(wrapped, tokenizer, [EDIT], method="lora", steps=1)
    patch = emend.edit(wrapped, tokenizer, [EDIT], method="ft", layers=(2,))
    with pytest.raises(InvalidInput, match="merge_and_unload"):
        patch.save_merged(wrapped, tokenizer, tmp_path / "merged")
    model, _ = tiny_model("llama")
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(UnsupportedModel, match="tokens before every text"):
        emend.edit(peft.get_peft_model(model, config), tokenizer, [EDIT], method="ft")


def test_attaching_to_a_wrapped_model_is_all_or_nothing(monkeypatch):
    """Fault 9, for a model that PEFT has wrapped."""
    wrapped, tokenizer = adapted("llama")
    patch = emend.edit(wrapped, tokenizer, [EDIT], method="ft", layers=(1, 2, 3))
    hooks = [dict(module._forward_hooks) for module in wrapped.modules()]
    module = wrapped.get_submodule("base_model.model.model.layers.2.mlp.down_proj.base_layer")

    def fail(*_args, **_kwargs):
        raise RuntimeError("no hook here")

    monkeypatch.setattr(module, "register_forward_hook", fail)
    with pytest.raises(RuntimeError, match="no hook here"):
        patch.attach(wrapped)
    assert emend.models.attachments(wrapped) == ()
    assert [dict(module._forward_hooks) for module in wrapped.modules()] == hooks
    assert not any(module._forward_pre_hooks for module in wrapped.modules())
