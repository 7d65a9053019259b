from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.patches.helpers import (
    EDITS,
    MODULES,
    OTHERS,
    logits,
    random_patch,
    same_bits,
    state_bits,
)
from tests.tiny import tiny_model

from emend import models
from emend.errors import Conflict, InvalidInput, NumericalFailure, UnknownName
from emend.patches import Dense, LowRank, WeightPatch

ARCHITECTURES = tuple(MODULES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_applied_equals_changed_weights_and_leaves_every_bit_alone(architecture):
    model, _ = tiny_model(architecture)
    bits, clean = state_bits(model), logits(model)
    patch = random_patch(model, architecture, layers=(0, 2), ranks=(1, 3))
    with patch.applied(model) as same:
        assert same is model
        edited = logits(model)
        assert same_bits(bits, state_bits(model))
    assert same_bits(bits, state_bits(model))
    assert torch.equal(clean, logits(model))
    assert (edited - clean).abs().max() > 0.1
    with torch.no_grad():
        for name in patch.factors:
            delta = patch.delta(name)
            weight = model.get_submodule(name).weight
            weight += delta.T if architecture == "gpt2" else delta
    torch.testing.assert_close(edited, logits(model), atol=1e-4, rtol=1e-5)


def test_low_precision_output_keeps_its_dtype():
    model, _ = tiny_model("llama", dtype=torch.bfloat16)
    patch = random_patch(model, "llama")
    with patch.applied(model):
        assert logits(model).dtype == torch.bfloat16


def test_nested_patches_add_and_detach_in_any_order():
    model, _ = tiny_model("llama")
    p = random_patch(model, "llama", seed=1)
    q = random_patch(model, "llama", seed=2, layers=(1, 3), ranks=(1, 1), edits=OTHERS)
    with (p + q).applied(model):
        together = logits(model)
    p.attach(model)
    q.attach(model)
    torch.testing.assert_close(logits(model), together, atol=1e-4, rtol=1e-5)
    p.detach(model)
    left = logits(model)
    q.detach(model)
    with q.applied(model):
        assert torch.equal(left, logits(model))
    assert models.attachments(model) == ()


def test_base_suspends_and_error_detaches():
    model, _ = tiny_model("gpt2")
    clean = logits(model)
    patch = random_patch(model, "gpt2")

    def fail_inside():
        with patch.applied(model):
            with models.base(model):
                assert torch.equal(clean, logits(model))
            assert not torch.equal(clean, logits(model))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert torch.equal(clean, logits(model))


def test_gradient_flows_through_an_applied_patch():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", layers=(0,), ranks=(1,))
    embedded = model.get_input_embeddings()(torch.tensor([[1, 2, 3]])).detach().requires_grad_()
    with torch.inference_mode():
        patch.attach(model)
    model(inputs_embeds=embedded).logits.sum().backward()
    patch.detach(model)
    assert embedded.grad is not None
    assert embedded.grad.abs().sum() > 0


def test_attach_twice_and_detach_unattached_are_refused():
    model, _ = tiny_model("gpt2")
    patch = random_patch(model, "gpt2")
    with pytest.raises(InvalidInput, match="not attached"):
        patch.detach(model)
    with patch.applied(model), pytest.raises(InvalidInput, match="already"):
        patch.attach(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 2}, "lacks 1 of 2 modules"),
        ({"width": 48}, "shape"),
        ({"seed": 5}, "hash"),
    ],
)
def test_wrong_model_is_refused_in_one_line_and_leaves_nothing_behind(change, message):
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama", layers=(0, 3), ranks=(1, 1))
    other, _ = tiny_model("llama", **change)
    clean = logits(other)
    allowed = message != "hash"
    with pytest.raises(InvalidInput, match=message) as error:
        patch.attach(other, allow_other_base=allowed)
    assert "\n" not in str(error.value)
    assert torch.equal(clean, logits(other))
    if not allowed:
        with patch.applied(other, allow_other_base=True):
            assert not torch.equal(clean, logits(other))


def test_algebra():
    model, _ = tiny_model("gpt2")
    p = random_patch(model, "gpt2", seed=1)
    q = random_patch(model, "gpt2", seed=2, layers=(1, 2), ranks=(1, 2), edits=OTHERS)
    name, other = MODULES["gpt2"].format(1), MODULES["gpt2"].format(2)
    torch.testing.assert_close((-p).delta(name), -p.delta(name))
    torch.testing.assert_close((p + q).delta(name), p.delta(name) + q.delta(name))
    torch.testing.assert_close((p - q).delta(other), -q.delta(other))
    torch.testing.assert_close((0.4 * p).delta(name), 0.4 * p.delta(name))
    torch.testing.assert_close((p * 2).delta(name), 2 * p.delta(name))
    assert (p - p).norm == pytest.approx(0, abs=1e-4)
    assert p.norm == pytest.approx(float(p.delta(name).norm()), rel=1e-5)
    dense = replace(p, factors={name: Dense(p.delta(name))})
    torch.testing.assert_close((dense + q).delta(name), p.delta(name) + q.delta(name))
    with pytest.raises(TypeError):
        p + 1  # type: ignore[operator]
    with pytest.raises(InvalidInput, match="same model"):
        p + replace(q, base={"hash": "other"})


def test_a_sum_acts_as_its_parts_and_takes_them_back():
    model, _ = tiny_model("llama")
    a, b, c = (
        random_patch(model, "llama", seed=seed, ranks=(seed,), edits=edits)
        for seed, edits in ((1, EDITS), (2, OTHERS), (3, ()))
    )
    with (c + 0.5 * (b - a)).applied(model):
        analogy = logits(model)
    for patch in (c, half := 0.5 * b, minus := -0.5 * a):
        patch.attach(model)
    torch.testing.assert_close(logits(model), analogy, atol=1e-4, rtol=1e-5)
    for patch in (c, half, minus):
        patch.detach(model)
    name = MODULES["llama"].format(1)
    torch.testing.assert_close((a + b - b).delta(name), a.delta(name), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((a + b).delta(name), (b + a).delta(name))
    assert (0 * a).norm == 0
    assert [edit.id for edit in (a + b).edits] == ["one", "two", "three", "four"]
    with pytest.raises(TypeError):
        a * "2"  # type: ignore[operator]
    with pytest.raises(InvalidInput, match="shape"):
        a + WeightPatch({name: LowRank(torch.ones(1, 3), torch.ones(4, 1))})


def test_a_sum_writes_no_edit_twice_and_no_two_targets():
    """Fault B3: `p + p` wrote the edit twice, with twice the norm."""
    model, _ = tiny_model("llama")
    p = random_patch(model, "llama")
    again = replace(EDITS[0], id="again")
    other = replace(EDITS[0], id="other", target="Oslo")
    for edits, said in (
        (p.edits, "2 pairs of edits are in both patches"),
        ((again,), "the same under two ids"),
        ((other,), "different targets for one statement"),
    ):
        with pytest.raises(Conflict, match=said) as caught:
            p + replace(p, edits=edits)
        assert "take them out of one" in str(caught.value)
    assert (2 * p).norm == pytest.approx(2 * p.norm)
    assert (p - p).norm == pytest.approx(0, abs=1e-4)


def test_without_and_only_split_by_edit():
    model, _ = tiny_model("llama")
    name = MODULES["llama"].format(1)
    patch = random_patch(model, "llama", ranks=(5,))
    one, two = patch.only("one"), patch.without("one")
    assert [edit.id for edit in one.edits] == ["one"]
    assert [edit.id for edit in two.edits] == ["two"]
    assert (one.rank, two.rank) == (3, 2)
    torch.testing.assert_close((one + two).delta(name), patch.delta(name))
    torch.testing.assert_close((two + one).only(["two"]).delta(name), two.delta(name))
    assert patch.without("one", "two").norm == 0
    assert patch.without() is patch
    assert patch.only(["two", "one", "two"]) is patch
    assert (2 * patch).without("one").norm == pytest.approx(2 * two.norm)
    with pytest.raises(UnknownName, match="did you mean 'one'"):
        patch.without("onne")


def test_shared_rows_cannot_be_split_but_a_single_edit_owns_all():
    model, _ = tiny_model("llama")
    patch = random_patch(model, "llama")
    name, factor = next(iter(patch.factors.items()))
    shared = replace(patch, factors={name: LowRank(factor.A, factor.B)})
    for mixed in (shared, replace(patch, factors={name: Dense(patch.delta(name))})):
        with pytest.raises(InvalidInput, match="shared by all edits"):
            mixed.without("one")
    p = replace(shared, edits=shared.edits[:1])
    q = replace(shared, edits=shared.edits[1:])
    torch.testing.assert_close((p + q).without("two").delta(name), p.delta(name))


def test_bad_factors_are_refused():
    with pytest.raises(NumericalFailure, match="NaN"):
        LowRank(torch.tensor([[float("nan")]]), torch.ones(1, 1))
    with pytest.raises(InvalidInput, match="rank"):
        LowRank(torch.ones(2, 3), torch.ones(3, 1))
    with pytest.raises(InvalidInput, match="edit id per row"):
        LowRank(torch.ones(2, 3), torch.ones(3, 2), ("one",))
    with pytest.raises(UnknownName, match="module"):
        WeightPatch({}).delta("nothing")
