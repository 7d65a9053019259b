"""Task arithmetic on SmolLM2: a patch merged by the streamed formula acts as it does attached."""

from __future__ import annotations

import torch

from emend.arithmetic import combine
from emend.models import generate, load, score
from emend.patches import LowRank, WeightPatch, describe_base, load_patch

PROMPTS = ["The capital of France is", "My favorite"]


def test_a_merged_checkpoint_answers_as_the_scaled_patch_does(smollm2, tmp_path):
    model, tokenizer = smollm2
    generator = torch.Generator().manual_seed(0)
    factors = {}
    for layer in (3, 17):
        name = f"model.layers.{layer}.mlp.down_proj"
        out, inner = model.get_submodule(name).weight.shape
        a, b = (torch.randn(2, size, generator=generator) for size in (inner, out))
        factors[name] = LowRank(0.5 * a, b.T)
    patch = WeightPatch(factors=factors, edits=(), method="test", base=describe_base(model))
    patch.save_pretrained(tmp_path / "p")
    given = ("0.7*p - 0.2*p", "smollm2-135m", {"p": tmp_path / "p"})
    combine(*given, tmp_path / "small", output="patch")
    combine(*given, tmp_path / "whole")
    small = load_patch(tmp_path / "small")
    with small.applied(model):  # the hash that was read from the file is that of the model
        expected = generate(model, tokenizer, PROMPTS, max_new_tokens=6)
        chances = score(model, tokenizer, PROMPTS, ["Paris", "color"])
    assert expected != generate(model, tokenizer, PROMPTS, max_new_tokens=6)
    merged, words = load(str(tmp_path / "whole"))
    assert generate(merged, words, PROMPTS, max_new_tokens=6) == expected
    for one, other in zip(score(merged, words, PROMPTS, ["Paris", "color"]), chances, strict=True):
        assert abs(one.total - other.total) < 1e-2
