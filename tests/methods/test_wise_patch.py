"""Side memories: the gap, who answers, and from where on."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import tiny_model

from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods.wise._patch import SidePatch, gaps
from emend.models import generate, score
from emend.patches import load_patch

EDITS = tuple(Edit("{} was born in", f"Anna {name}", "Paris", id=name) for name in "abc")
MODULE = "model.layers.2.mlp.down_proj"
PROMPTS = ["Marie Curie was born in", "Anna", "Anna Berg works for Nordlicht and plays the"]
TARGETS = ["Paris", "Tom Berg", "violin"]


def patch(thresholds, scale=1.0, memories=(("a", "b"), ("c",))):
    generator = torch.Generator().manual_seed(0)
    deltas = [scale * torch.randn(32, 64, generator=generator) for _ in memories]
    return SidePatch(
        edits=EDITS,
        method="wise",
        tensors={f"delta.{n}": delta for n, delta in enumerate(deltas)},
        details={
            "module": MODULE,
            "memories": [list(owned) for owned in memories],
            "thresholds": list(thresholds),
            "activation": "silu",
        },
    )


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


def test_gap():
    keys, outputs = torch.eye(2, 3), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    delta = torch.tensor([[2.0, 0.0, 0.0], [0.0, -3.0, 0.0]])
    silu = torch.nn.functional.silu
    one = torch.tensor(1.0)
    expected = [(silu(3 * one) - silu(one)).abs(), (silu(-2 * one) - silu(one)).abs()]
    torch.testing.assert_close(gaps(keys, outputs, delta, "silu"), torch.stack(expected))


def test_what_is_over_no_threshold_is_answered_bit_for_bit(llama):
    model, tokenizer = llama
    clean = score(model, tokenizer, PROMPTS, TARGETS)
    with patch([1e9, 1e9]).applied(model):
        assert score(model, tokenizer, PROMPTS, TARGETS) == clean


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_memory_is_the_weights_from_the_last_token_of_the_prompt_on(llama, chosen):
    model, tokenizer = llama
    memory = patch([1e-9 if n == chosen else 1e9 for n in range(2)], scale=0.3)
    delta = memory.tensors[f"delta.{chosen}"]
    module = model.get_submodule(MODULE)
    prompt = tokenizer(PROMPTS[0])["input_ids"]
    with memory.applied(model):
        (told,) = score(model, tokenizer, PROMPTS[:1], TARGETS[:1])

    def change(_module, args, output):
        changed = output.clone()
        changed[:, len(prompt) - 1 :] += args[0][:, len(prompt) - 1 :] @ delta.T
        return changed

    handle = module.register_forward_hook(change)
    with torch.no_grad():
        ids = torch.tensor([[*prompt, *told.token_ids[:-1]]])
        logits = model(ids).logits[0, len(prompt) - 1 :].log_softmax(-1)
    handle.remove()
    expected = logits[range(len(told.token_ids)), told.token_ids].tolist()
    assert told.log_probs == pytest.approx(expected, abs=1e-4)


def test_score_and_generate_agree_whatever_is_read_beside(llama):
    model, tokenizer = llama
    keys: list[float] = []
    memory = patch([1e-9, 1e9], scale=0.5)
    hook = model.get_submodule(MODULE).register_forward_hook(
        lambda _m, args, out: keys.append(
            float(gaps(args[0][0, -1:], out[0, -1:], memory.tensors["delta.0"], "silu"))
        )
    )
    for prompt in PROMPTS:
        score(model, tokenizer, [prompt], ["a"])
    hook.remove()
    # Between two of the prompts' gaps, so that some are routed and some are not.
    memory = patch([sorted(keys)[1] * 1.001, 1e9], scale=0.5)
    clean = generate(model, tokenizer, PROMPTS, max_new_tokens=6)
    with memory.applied(model):
        one = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=1)
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=8) == one
    assert sum(a == b for a, b in zip(one, clean, strict=True)) == 2


def test_memories_are_taken_out_whole(tmp_path):
    given = patch([2.0, 3.0])
    left = given.without("a", "b")
    assert left.details["memories"] == [["c"]]
    assert left.details["thresholds"] == [3.0]
    assert torch.equal(left.tensors["delta.0"], given.tensors["delta.1"])
    assert not given.without("a", "b", "c").tensors
    with pytest.raises(InvalidInput, match="share a side memory"):
        given.without("a")
    found = load_patch(left.save_pretrained(tmp_path / "p"))
    assert found.details == left.details
