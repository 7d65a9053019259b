"""Token gradients against autograd's own, on Linear and Conv1D."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import tiny_model

from emend.editing import context_rows
from emend.editing.gradients import (
    TokenGradients,
    linear_modules,
    mlp_modules,
    target_places,
    token_gradients,
)
from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.models import ModelView

EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris, France"),
    Edit("The mother tongue of {} is", "Tom Berg", "French"),
    Edit("{}, the", "Anna Berg", "cello"),
]
ARCHITECTURES = ("gpt2", "gpt_neo", "opt", "bloom", "falcon", "llama", "gemma2", "phi", "gpt_neox")


def whole(found: TokenGradients) -> torch.Tensor:
    """The gradient of the matrix, (out, in)."""
    return found.gradients.T @ found.inputs


def plain_gradient(model, rows, module) -> tuple[float, torch.Tensor]:
    """The sum over rows of the gradient of each one's mean loss, by autograd on the parameter."""
    total = torch.zeros(())
    module.weight.requires_grad_(True)
    for row in rows:
        logits = model(torch.tensor([row.ids])).logits[0, -len(row.targets) :]
        total = total + F.cross_entropy(logits.float(), torch.tensor(row.targets))
    (gradient,) = torch.autograd.grad(total, module.weight)
    return float(total.detach()), gradient


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_sum_to_the_gradient_of_the_matrix(architecture) -> None:
    model, tokenizer = tiny_model(architecture)
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    into, down = mlp_modules(view, 2)
    modules = linear_modules(view, [*into, down, mlp_modules(view, 1)[1]])
    found = token_gradients(view, rows, modules, batch_size=2)
    for name, module in modules.items():
        _, expected = plain_gradient(model, rows, module)
        if not isinstance(module, torch.nn.Linear):
            expected = expected.T
        error = (whole(found[name]) - expected).norm() / expected.norm()
        assert error < 1e-4, name


def test_what_one_row_gives_does_not_depend_on_the_others() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    name = mlp_modules(view, 2)[1]
    modules = linear_modules(view, [name])
    together = token_gradients(view, rows, modules)[name]
    for number, row in enumerate(rows):
        alone = token_gradients(view, [row], modules)[name]
        own = together.rows == number
        assert torch.allclose(together.inputs[own], alone.inputs, atol=1e-5)
        assert torch.allclose(together.gradients[own], alone.gradients, atol=1e-5)
    assert together.rows.tolist() == sorted(together.rows.tolist())


def test_only_predicting_tokens_or_all_that_count() -> None:
    model, tokenizer = tiny_model("gpt2")
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    last = mlp_modules(view, view.num_layers - 1)[1]
    early = mlp_modules(view, 0)[1]
    modules = linear_modules(view, [early, last])
    everywhere = token_gradients(view, rows, modules)
    targets = token_gradients(view, rows, modules, where="targets")
    count = sum(len(row.targets) for row in rows)
    assert len(targets[early].inputs) == len(targets[last].inputs) == count
    # Nothing comes after the last block but the head: only predicting tokens count there.
    assert len(everywhere[last].inputs) == count
    assert len(everywhere[early].inputs) == sum(len(row.ids) for row in rows)
    assert torch.allclose(whole(everywhere[last]), whole(targets[last]), atol=1e-6)


def test_size_is_that_of_the_outputs() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    name = mlp_modules(view, 1)[1]
    modules = linear_modules(view, [name])
    found = token_gradients(view, rows, modules, where="targets", batch_size=2)[name]
    expected = modules[name](found.inputs).square().mean().sqrt()
    assert found.size == pytest.approx(float(expected.detach()), rel=1e-4)


def test_model_is_left_as_it_was() -> None:
    model, tokenizer = tiny_model("gpt2")
    model.train()
    next(model.parameters()).requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    with torch.no_grad():
        token_gradients(view, rows, linear_modules(view, [mlp_modules(view, 0)[1]]))
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_half_precision_gives_float32() -> None:
    model, tokenizer = tiny_model("llama", dtype=torch.bfloat16)
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    name = mlp_modules(view, 2)[1]
    found = token_gradients(view, rows, linear_modules(view, [name]))[name]
    assert found.inputs.dtype == found.gradients.dtype == torch.float32
    assert float(found.gradients.norm()) > 0


def test_gradient_that_is_not_finite_is_refused() -> None:
    model, tokenizer = tiny_model("llama")
    view = ModelView(model)
    rows = [each[0] for each in context_rows(tokenizer, EDITS, ["{}"])]
    model.model.norm.register_forward_hook(lambda _m, _a, output: output * float("nan"))
    with pytest.raises(NumericalFailure, match="not finite"):
        token_gradients(view, rows, linear_modules(view, [mlp_modules(view, 2)[1]]))


def test_unknown_module_is_refused() -> None:
    view = ModelView(tiny_model("gpt2")[0])
    for name in ("transformer.h.0.nothing", "transformer.h.0.ln_1"):
        with pytest.raises(InvalidInput, match="no linear module"):
            linear_modules(view, [name])


def test_target_places() -> None:
    _, tokenizer = tiny_model("gpt2")
    rows = [each[0] for each in context_rows(tokenizer, EDITS[:1], ["{}"])]
    (numbers, columns), tokens, weights = target_places(rows)
    assert tokens.tolist() == list(rows[0].targets)
    assert columns.tolist()[-1] == len(rows[0].ids) - 1
    assert set(numbers.tolist()) == {0}
    assert float(weights.sum()) == pytest.approx(1.0)
