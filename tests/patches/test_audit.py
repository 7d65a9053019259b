from __future__ import annotations

import copy

import pytest
import torch
from tests.patches.helpers import MODULES, random_patch, same_bits, state_bits
from tests.tiny import tiny_model

import emend
from emend import datasets
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.patches import LowRank, WeightPatch


@pytest.mark.parametrize("architecture", tuple(MODULES))
def test_rank_and_norm_of_each_changed_matrix(architecture):
    model, words = tiny_model(architecture)
    patch = random_patch(model, architecture, layers=(0, 2), ranks=(1, 3))
    changed = copy.deepcopy(model)
    patch.merge_into(changed)
    bits = state_bits(model)
    found = emend.audit(model, changed, words, tokens=3)
    assert same_bits(bits, state_bits(model))
    assert found.verdict == "low rank"
    assert {change.name: change.rank for change in found.changes} == {
        MODULES[architecture].format(0): 1,
        MODULES[architecture].format(2): 3,
    }
    for change in found.changes:
        delta = patch.delta(change.name)
        weight = model.get_submodule(change.name).weight
        assert change.shape == tuple(delta.shape)
        assert change.norm == pytest.approx(float(delta.norm()), rel=1e-4)
        assert change.relative_norm == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-4)
        assert change.values == pytest.approx(
            torch.linalg.svdvals(delta)[: change.rank].tolist(), rel=1e-3
        )
        assert (len(change.lens), len(change.candidates)) == (3, 3)
    assert found.matrices == sum(p.ndim == 2 for p in model.parameters())


def test_directions_are_read_in_a_model_that_folds_rows():
    """Fault 19: OPT's projections are given (rows * tokens, width)."""
    model, words = tiny_model("opt")
    view = ModelView(model)
    module = view.down_projection(1)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(0))
    rows, columns = direction[:, None], torch.randn(1, 64).abs()
    patch = WeightPatch({view.name_of(module): LowRank(columns, rows)})
    (change,) = emend.audit(model, patch, words, tokens=3).changes
    ordinary = [i for i in range(len(words)) if i not in set(words.all_special_ids)]
    drawn = torch.randint(len(ordinary), (256, 6), generator=torch.Generator().manual_seed(0))
    texts = torch.tensor(ordinary)[drawn]
    unit, outputs = direction / direction.norm(), []

    def asked(hook):  # each text alone, whose output is (6, width) whoever folds
        handle = module.register_forward_hook(hook)
        with torch.no_grad():
            found = [model(text[None]).logits[0, 3:].log_softmax(-1) for text in texts]
        handle.remove()
        return torch.cat(found)

    plain = asked(lambda _m, _a, output: outputs.append(output.reshape(6, -1)[2].norm()))
    size = torch.stack(outputs).mean()
    at = torch.zeros(6, 1)
    at[2] = 1
    gains = asked(lambda _m, _a, output: output + (at * size * unit).reshape(output.shape)) - plain
    best = gains.topk(int(0.025 * len(gains)), dim=0).values.mean(0)[ordinary].topk(3).values
    found = [one.score for one in change.candidates]
    assert found == pytest.approx(best.tolist(), rel=0.05)


def test_a_patch_of_ours_tells_its_edits():
    model, words = tiny_model("llama")
    patch = random_patch(model, "llama", ranks=(2,))
    (change,) = emend.audit(model, patch).changes
    assert change.edits == ("one", "two")
    assert (change.rank, change.candidates) == (2, ())
    (change,) = emend.audit(model, patch.only("two"), words).changes
    assert change.edits == ("two",)
    merged = copy.deepcopy(model)
    patch.only("two").merge_into(merged)
    (same,) = emend.audit(model, merged, words).changes
    assert [one.token for one in same.candidates] == [one.token for one in change.candidates]
    assert emend.audit(model, 0 * patch).verdict == "same"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_no_rank(dtype):
    model, _ = tiny_model("llama", dtype=dtype, width=64)
    patch = random_patch(model, "llama", ranks=(2,), scale=0.3)
    changed = copy.deepcopy(model)
    patch.merge_into(changed)
    (change,) = emend.audit(model, changed).changes
    assert change.rank == 2
    assert emend.audit(model, copy.deepcopy(model)).verdict == "same"


def test_training_has_full_rank_and_is_not_read():
    model, words = tiny_model("gpt2")
    tuned = copy.deepcopy(model)
    ids = torch.arange(40).reshape(4, 10)
    tuned(ids, labels=ids).loss.backward()
    torch.optim.Adam(tuned.parameters(), lr=1e-2).step()
    found = emend.audit(model, tuned, words)
    assert found.verdict == "full rank"
    assert found.others
    assert not any(change.candidates for change in found.changes)


def test_the_object_of_an_edit_is_named():
    model, tokenizer = emend.load("lab/gptneo")
    edit = datasets.load("lab", limit=1, seed=1)[0]
    patch = emend.edit(model, tokenizer, [edit])
    (change,) = emend.audit(model, patch, tokenizer).changes
    assert change.edits == (edit.id,)
    first = tokenizer.decode(tokenizer(f" {edit.target}").input_ids[:1]).strip()
    assert first in [one.token for one in change.candidates]
    opposite = emend.audit(model, -patch, tokenizer).changes[0].candidates
    assert first not in [one.token for one in opposite]


def test_mistakes():
    model, _ = tiny_model("llama")
    with pytest.raises(InvalidInput, match="one structure"):
        emend.audit(model, tiny_model("llama", layers=2)[0])
    with pytest.raises(InvalidInput, match="one structure"):
        emend.audit(model, tiny_model("llama", inner=48)[0])
    other, _ = tiny_model("llama", seed=1)
    patch = random_patch(model, "llama")
    with pytest.raises(InvalidInput, match="hash"):
        emend.audit(other, patch)
    with patch.applied(model), pytest.raises(InvalidInput, match="attached to the base"):
        emend.audit(model, other)
    with patch.applied(model), pytest.raises(InvalidInput, match="attached to the other"):
        emend.audit(other, model)
