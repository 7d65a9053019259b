from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, TEXT, tiny_model

from emend.errors import InvalidInput
from emend.locate import Memories
from emend.models import ModelView

TEXTS = [*TEXT, " ", "x"]


def plainly(model, tokenizer, layer):
    """Every prefix alone: (coefficients (inner,), prefix, next token)."""
    view = ModelView(model)
    found = []
    for text in TEXT:
        ids = tokenizer(text)["input_ids"]
        for end in range(1, len(ids)):
            seen = []
            handle = view.down_projection(layer).register_forward_pre_hook(
                lambda _m, args, seen=seen: seen.append(args[0])
            )
            with torch.no_grad():
                model(input_ids=torch.tensor([ids[:end]]))
            handle.remove()
            units = seen[0].reshape(-1, seen[0].shape[-1])[-1]
            found.append((units, ids[:end], ids[end]))
    return found


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "opt"])
def test_triggers_are_those_of_every_prefix_alone(architecture) -> None:
    model, tokenizer = tiny_model(architecture, layers=2)
    view = ModelView(model)
    memories = Memories(view, tokenizer, TEXTS, layers=(1,), top=3)
    prefixes = plainly(model, tokenizer, 1)
    assert memories.tokens == len(prefixes)
    table = torch.stack([units for units, _, _ in prefixes])  # (N, inner)
    for unit in (0, 7, view.intermediate_size(1) - 1):
        found = memories.unit(1, unit)
        best = table[:, unit].topk(3)
        for trigger, value, index in zip(
            found.triggers, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            _, ids, following = prefixes[index]
            assert trigger.coefficient == pytest.approx(value, abs=1e-4)
            assert trigger.text == tokenizer.decode(ids[-24:])
            assert trigger.following == tokenizer.decode([following])


def test_a_value_is_read_without_a_norm() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    memories = Memories(view, tokenizer, TEXT, layers=(2, 3))
    found = memories.unit(-1, 5, words=4)
    assert (found.layer, found.unit) == (3, 5)
    weight = model.lm_head.weight @ model.model.layers[3].mlp.down_proj.weight[:, 5]
    chances = weight.softmax(-1)
    assert [said.token for said in found.value] == [
        tokenizer.decode([int(token)]) for token in chances.topk(4).indices
    ]
    assert found.value[0].chance == pytest.approx(float(chances.max()), abs=1e-6)
    assert found.agrees == (found.value[0].token == found.triggers[0].following)


def test_agreement() -> None:
    model, tokenizer = tiny_model("gpt2", layers=2)
    view = ModelView(model)
    memories = Memories(view, tokenizer, TEXT)
    units = [memories.unit(0, unit) for unit in range(view.intermediate_size(0))]
    plain = memories.agreement()[0]
    assert plain.layer == 0
    assert plain.units == len(units)
    assert plain.rate == sum(one.agrees for one in units) / len(units)
    prefixes = plainly(model, tokenizer, 0)
    firsts = torch.stack([row for row, _, _ in prefixes]).argmax(0).tolist()
    following = [prefixes[first][2] for first in firsts]
    said = (model.transformer.h[0].mlp.c_proj.weight @ model.lm_head.weight.T).argmax(-1).tolist()
    assert plain.rate == sum(a == b for a, b in zip(following, said, strict=True)) / len(units)
    pairs = sum(a == b for a in following for b in said) / len(units) ** 2
    assert plain.chance == pytest.approx(pairs)
    # Values that say what follows their triggers do agree.
    with torch.no_grad():
        for unit, one in enumerate(units):
            token = tokenizer(one.triggers[0].following)["input_ids"][0]
            model.transformer.h[0].mlp.c_proj.weight[unit] = 9 * model.lm_head.weight[token]
    changed = Memories(ModelView(model), tokenizer, TEXT, layers=(0,)).agreement()[0]
    assert changed.rate > 0.7
    assert changed.rate > plain.rate


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_any_architecture(architecture) -> None:
    model, tokenizer = tiny_model(architecture, layers=2)
    memories = Memories(ModelView(model), tokenizer, TEXT[:2], top=2)
    assert memories.layers == (0, 1)
    strong = memories.strongest(1, 3)
    assert len(set(strong)) == 3
    found = memories.unit(1, strong[0])
    assert found.triggers[0].coefficient >= found.triggers[1].coefficient
    assert 0 < found.value[0].chance <= 1


def test_the_strongest_units_add_most() -> None:
    model, tokenizer = tiny_model("gpt2", layers=2)
    view = ModelView(model)
    with torch.no_grad():
        view.matrix(1)[:, 9].mul_(1000)
    assert Memories(view, tokenizer, TEXT, layers=(1,)).strongest(1, 1) == [9]


def test_misuse_is_refused() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    with pytest.raises(InvalidInput, match="no two tokens"):
        Memories(view, tokenizer, ["", "x"])
    with pytest.raises(InvalidInput, match="top is 0"):
        Memories(view, tokenizer, TEXT, top=0)
    with pytest.raises(InvalidInput, match="4 blocks"):
        Memories(view, tokenizer, TEXT, layers=(4,))
    memories = Memories(view, tokenizer, TEXT, layers=(1,))
    with pytest.raises(InvalidInput, match="expected a number from 0 to 63"):
        memories.unit(1, 64)
    with pytest.raises(InvalidInput, match="layer 2 was not looked at"):
        memories.unit(2, 0)
