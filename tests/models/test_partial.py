from __future__ import annotations

import warnings

import pytest
import torch
from tests.tiny import ARCHITECTURES, tiny_model

from emend.errors import InvalidInput, NumericalFailure, UnsupportedModel
from emend.models.hooks import frozen
from emend.models.replay import BlockCapture, aligned, capture_blocks, natural, whole
from emend.models.view import ModelView

POST_NORMED = {"gemma2", "gemma3", "olmo2", "granite", "glm4"}
"""Something stands between the down-projection and the residual: a norm, or a factor."""

FLOAT32_INSIDE = {"gptj", "gpt_neo", "bloom", "gemma2"}
"""These compute the softmax, or all of attention, in float32 whatever the model's dtype."""

VARIANTS = {
    "falcon_alibi": ("falcon", {"alibi": True}),
    "falcon_new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_serial": ("falcon", {"parallel_attn": False}),
    "llama_eager": ("llama", {"attn_implementation": "eager"}),
    "gpt2_eager": ("gpt2", {"attn_implementation": "eager"}),
    "mistral_window": ("mistral", {"sliding_window": 3}),
    "gemma3_window": ("gemma3", {"sliding_window": 3}),
    "starcoder2_window": ("starcoder2", {"sliding_window": 4}),
    "gpt_neo_window": ("gpt_neo", {"window_size": 3}),
    "neox_serial": ("gpt_neox", {"use_parallel_residual": False}),
}


def make_rows(vocabulary: int) -> tuple[list[list[int]], list[int]]:
    generator = torch.Generator().manual_seed(0)

    def draw(length: int) -> list[int]:
        return torch.randint(4, vocabulary, (length,), generator=generator).tolist()

    return [draw(n) for n in (9, 14, 6, 11, 7)], [3, 8, 0, 10, 2]


def full_run(view, layer, ids, start, delta):
    """Last block's output of one unpadded row by an ordinary forward, delta added at `start`."""
    seen = {}

    def add(_module, _args, output):
        flat = output.reshape(-1, output.shape[-1])
        index = (torch.tensor([start]),)
        return flat.index_put(index, delta[None], accumulate=True).reshape(output.shape)

    def keep(_module, _args, output):
        seen["last"] = output if isinstance(output, torch.Tensor) else output[0]

    handles = [
        view.down_projection(layer).register_forward_hook(add),
        view.layers[-1].register_forward_hook(keep),
    ]
    try:
        view.model(input_ids=torch.tensor([ids]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen["last"][0, start:]


def check(view, layer, tolerance, **options):
    rows, starts = make_rows(view.vocabulary)
    capture = capture_blocks(view, rows, starts, layer, **options)
    generator = torch.Generator().manual_seed(1)
    delta = torch.randn(len(rows), view.hidden_size, generator=generator).to(capture.values.dtype)
    with torch.no_grad():
        found = capture.run(delta)
        for index, (ids, start) in enumerate(zip(rows, starts, strict=True)):
            expected = full_run(view, layer, ids, start, delta[index])
            at = int(capture.at[index])
            error = (found[index, at : at + len(expected)] - expected).norm() / expected.norm()
            assert error < tolerance
    return capture


def tolerance_of(name, dtype) -> float:
    if dtype == torch.float32:
        return 1e-5
    return 1e-6 if name in FLOAT32_INSIDE else 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("layer", [0, 2, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_partial_is_full(name, layer, dtype) -> None:
    view = ModelView(tiny_model(name, dtype=dtype)[0])
    capture = check(view, layer, tolerance_of(name, dtype))
    assert capture.reuses_prefix
    assert capture.is_additive == (name not in POST_NORMED)
    assert capture.thins == (layer < 3)
    if name != "gpt_neo":  # whose local attention takes the last tokens to be the ones that ask
        assert capture.arrange is natural


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_partial_is_full_for_variants(variant, layer) -> None:
    name, overrides = VARIANTS[variant]
    view = ModelView(tiny_model(name, **overrides)[0])
    assert check(view, layer, 1e-5).reuses_prefix


@pytest.mark.parametrize("arrange", [natural, aligned, whole])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "gemma3"])
def test_all_layouts_give_the_same(name, arrange) -> None:
    view = ModelView(tiny_model(name)[0])
    capture = check(view, 1, 1e-5, arrangements=[arrange])
    assert capture.reuses_prefix == (arrange is not whole)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neo", "llama", "gemma2", "bloom", "opt"])
def test_gradients_and_thinned_runs(name) -> None:
    view = ModelView(tiny_model(name)[0])
    rows, starts = make_rows(view.vocabulary)
    capture = capture_blocks(view, rows, starts, 1)
    delta = torch.zeros(len(rows), view.hidden_size, requires_grad=True)
    ends = torch.tensor([len(r) - 1 - s for r, s in zip(rows, starts, strict=True)]) + capture.at
    index = torch.arange(len(rows))
    with frozen(view.model):
        picked = capture.run_at(delta, index, ends)
        (found,) = torch.autograd.grad(picked.square().sum(), delta)
        assert torch.allclose(picked, capture.run(delta)[index, ends], rtol=1e-4, atol=1e-5)
        for number, (ids, start) in enumerate(zip(rows, starts, strict=True)):
            one = torch.zeros(view.hidden_size, requires_grad=True)
            last = full_run(view, 1, ids, start, one)[-1]
            (expected,) = torch.autograd.grad(last.square().sum(), one)
            assert (found[number] - expected).norm() < 1e-4 * expected.norm()


def test_rows_can_be_selected() -> None:
    for name in ("bloom", "gpt_neo", "gemma3", "falcon"):
        view = ModelView(tiny_model(name)[0])
        rows, starts = make_rows(view.vocabulary)
        capture = capture_blocks(view, rows, starts, 1)
        delta = torch.ones(len(rows), view.hidden_size)
        with torch.no_grad():
            all_rows, some = capture.run(delta), capture.select([3, 1]).run(delta[:2])
        for row, chosen in ((3, 0), (1, 1)):
            real = slice(int(capture.at[row]), int(capture.at[row]) + len(rows[row]) - starts[row])
            assert torch.allclose(some[chosen, real], all_rows[row, real], rtol=1e-4, atol=1e-5)


def test_rows_without_any_padding() -> None:
    for name in ("gpt2", "llama", "gpt_neo"):
        view = ModelView(tiny_model(name)[0])
        rows = [[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]]
        capture = capture_blocks(view, rows, [2, 2], 1)
        assert capture.reuses_prefix
        delta = torch.ones(2, view.hidden_size)
        with torch.no_grad():
            found = capture.run(delta)
            expected = full_run(view, 1, rows[1], 2, delta[1])
        at = int(capture.at[1])
        assert torch.allclose(found[1, at : at + 3], expected, rtol=1e-4, atol=1e-5)


def test_a_model_without_a_cache_recomputes_all_tokens_and_says_so(monkeypatch) -> None:
    model, _ = tiny_model("llama")
    view = ModelView(model)
    forward = model.forward

    def without_cache(input_ids=None, attention_mask=None, position_ids=None, use_cache=None):
        return forward(input_ids, attention_mask, position_ids, use_cache=False)

    monkeypatch.setattr(model, "forward", without_cache)
    with pytest.warns(UserWarning, match="all tokens are recomputed"):
        capture = check(view, 1, 1e-5)
    assert not capture.reuses_prefix


def test_a_block_with_a_memory_of_its_own_is_refused() -> None:
    model, _ = tiny_model("llama")
    view = ModelView(model)
    calls = 0

    def drift(_module, _args, output):
        nonlocal calls
        calls += 1
        return output * (1 + calls)

    model.model.layers[3].mlp.register_forward_hook(drift)
    rows, starts = make_rows(view.vocabulary)
    with pytest.raises(UnsupportedModel, match="cannot be run apart"):
        capture_blocks(view, rows, starts, 1)


def test_weights_that_became_nan_are_named_as_such() -> None:
    model, _ = tiny_model("gpt2")
    view = ModelView(model)
    rows, starts = make_rows(view.vocabulary)
    with torch.no_grad():
        model.transformer.h[2].mlp.c_proj.weight[3, 4] = torch.nan
    with pytest.raises(NumericalFailure, match="not finite"):
        capture_blocks(view, rows, starts, 1)


def test_an_mlp_that_refuses_loose_tokens_is_run_whole(monkeypatch) -> None:
    view = ModelView(tiny_model("llama")[0])
    rows, starts = make_rows(view.vocabulary)
    assert capture_blocks(view, rows, starts, 1).thins
    up = view.layers[-1].mlp.up_proj
    forward = up.forward

    def strict(hidden):
        if hidden.ndim != 3:
            raise ValueError(f"{hidden.ndim} axes")
        return forward(hidden)

    monkeypatch.setattr(up, "forward", strict)
    again = ModelView(view.model)  # a view keeps what it found out
    assert not capture_blocks(again, rows, starts, 1).thins


def test_nothing_warns_where_all_is_well() -> None:
    view = ModelView(tiny_model("gpt_neo")[0])
    rows, starts = make_rows(view.vocabulary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        capture_blocks(view, rows, starts, 1)


def test_bad_rows_are_refused() -> None:
    view = ModelView(tiny_model("gpt2")[0])
    for rows, starts in (([], []), ([[1, 2]], [2]), ([[1, 2]], [-1]), ([[1, 2]], [0, 1])):
        with pytest.raises(InvalidInput, match="start"):
            capture_blocks(view, rows, starts, 1)


def test_what_was_found_out_is_not_found_out_again(monkeypatch) -> None:
    model, _ = tiny_model("gemma2")
    view = ModelView(model)
    first = capture_blocks(view, [[1, 2, 3, 4], [5, 6, 7, 8]], [1, 1], 1)
    assert view.findings == {("additive", 1): False, ("thins", 1): first.thins}

    def again(_capture):
        raise AssertionError("looked at twice")

    monkeypatch.setattr(BlockCapture, "_finds_additive", again)
    monkeypatch.setattr(BlockCapture, "_finds_thinning", again)
    second = capture_blocks(view, [[5, 6, 7], [1, 2, 3, 4]], [0, 2], 1)
    assert (second.is_additive, second.thins) == (False, first.thins)
    with pytest.raises(AssertionError, match="twice"):
        capture_blocks(view, [[1, 2, 3, 4]], [1], 0)


def test_one_row_does_not_show_whether_the_last_mlp_thins() -> None:
    view = ModelView(tiny_model("gpt2")[0])
    assert not capture_blocks(view, [[1, 2, 3, 4]], [1], 1).thins
    assert ("thins", 1) not in view.findings
    assert capture_blocks(view, [[1, 2, 3, 4], [5, 6, 7, 8]], [1, 1], 1).thins
