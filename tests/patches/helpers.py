"""Small patches on tiny models."""

from __future__ import annotations

import torch

from emend.edits import Edit, Probe
from emend.patches import LowRank, WeightPatch, describe_base

MODULES = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
}
OTHERS = (
    Edit("{} lives in", "Tom Ast", "Oslo", id="three"),
    Edit("{} speaks", "Mia Holm", "Dutch", id="four"),
)
EDITS = (
    Edit("{} was born in", "Marie Curie", "Lyon", original="Warsaw", id="one"),
    Edit(
        "{} plays the",
        "Anna Berg",
        "piano",
        id="two",
        probes=(Probe("rephrase", "Anna Berg plays the", ("piano",)),),
    ),
)


def random_patch(model, architecture, *, layers=(1,), ranks=(2,), seed=0, scale=0.3, **fields):
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer, rank in zip(layers, ranks, strict=True):
        name = MODULES[architecture].format(layer)
        weight = model.get_submodule(name).weight
        width, inner = weight.shape if architecture != "gpt2" else weight.shape[::-1]
        factors[name] = LowRank(
            torch.randn(rank, inner, generator=generator),
            torch.randn(width, rank, generator=generator) * scale,
            tuple(("one", "two")[row % 2] for row in range(rank)),
        )
    fields = {"edits": EDITS, "method": "random", "base": describe_base(model), **fields}
    return WeightPatch(factors, **fields)


def logits(model):
    ids = torch.arange(24).reshape(2, 12) % 50
    with torch.no_grad():
        return model(input_ids=ids).logits


def state_bits(model):
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
