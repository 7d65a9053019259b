"""Exported patches in llama.cpp itself: it must compute what transformers computes."""

from __future__ import annotations

import pytest
import torch
from tests.engine import Engine
from tests.gguf_files import GGUF_ARCHITECTURES, write_gguf

from emend.patches import LowRank, WeightPatch, describe_base

PROMPT = [11, 45, 200, 7, 133, 90, 12]
ATTENTION = ("q_proj", "k_proj", "o_proj", "qkv_proj", "c_attn")


def expected(model, patch):
    with torch.no_grad(), patch.applied(model):
        return model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)


def furthest(engine, wanted):
    found = engine.logprobs(PROMPT, most=len(wanted))
    assert len(found) == len(wanted)
    return max(abs(logprob - float(wanted[token])) for token, logprob in found.items())


def patch_of(model, *parts):
    """Ranks 1, 2, 3, ... in every module whose name ends with one of the parts."""
    generator = torch.Generator().manual_seed(1)
    factors = {}
    for name, module in model.named_modules():
        if name.rpartition(".")[2] not in parts or "lm_head" in name:
            continue
        shape = module.weight.shape
        out, inner = shape[::-1] if type(module).__name__ == "Conv1D" else shape
        rank = len(factors) + 1
        a, b = (torch.randn(*size, generator=generator) for size in ((rank, inner), (out, rank)))
        factors[name] = LowRank(a, b * 0.2)
    return WeightPatch(factors, base=describe_base(model))


@pytest.mark.parametrize("name", GGUF_ARCHITECTURES)
def test_adapters_and_merged_models_give_the_logits_of_transformers(name, tmp_path):
    base = tmp_path / "base.gguf"
    model, _ = write_gguf(base, architecture=name)
    patch = patch_of(model, "down_proj", "c_proj", *ATTENTION)
    assert len(patch.factors) >= 6
    assert len({factor.rank for factor in patch.factors.values()}) == len(patch.factors)
    wanted, plain = expected(model, patch), expected(model, patch * 0.0)
    assert (wanted - plain).abs().max() > 0.5
    made = patch.export(tmp_path / "patch.gguf", base_gguf=base)
    engine = Engine(base, made.path)
    assert furthest(engine, wanted) < 1e-3
    merged = patch.export(
        tmp_path / "merged.gguf", "merged-gguf", base_gguf=base, quantization="f32"
    )
    assert furthest(Engine(merged.path), wanted) < 1e-3
