from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tests.editing.test_values import EDITS, TEMPLATES, relative
from tests.methods.closed_form import difference, edited
from tests.tiny import TEXT, tiny_model

from emend.editing import SearchSettings, optimise_values
from emend.editing.optimizers import Adam, Lbfgs, clamped
from emend.models import ModelView

WIDE = torch.tensor(1e6)


def descended(curvatures: torch.Tensor, steps: int, limits=WIDE, drop_after: int | None = None):
    """The losses of quadratic bowls (E, width) around 1, from 0; and where they are left."""
    tried = torch.zeros(len(curvatures), 1, curvatures.shape[1], dtype=torch.float64)
    optimizer = Lbfgs(tried, torch.full((len(tried),), 0.1, dtype=torch.float64))
    losses = []
    for step in range(steps):
        away = tried[:, 0] - 1
        loss = (curvatures * away.square()).sum(1) / 2
        held, reached = optimizer.best_of(tried, loss)
        losses.append(reached)
        bounds = limits.expand(len(tried), 1).double()
        tried = optimizer.step(tried, loss, (curvatures * away)[:, None], bounds)
        if step == drop_after:
            kept = torch.tensor([number != 1 for number in range(len(tried))])
            optimizer.select(kept)
            tried, curvatures = tried[kept], curvatures[kept]
    return losses, held


def bowls() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.logspace(-1, 2, 12).repeat(3, 1) * torch.rand(3, 1, generator=generator).double()


def test_it_comes_to_the_bottom_of_ill_conditioned_bowls_and_never_up_again() -> None:
    losses, held = descended(bowls(), 80)
    assert float(losses[-1].max()) < 1e-6 * float(losses[0].max())
    assert all(bool((after <= before).all()) for before, after in pairwise(losses))
    assert torch.allclose(held, torch.ones_like(held), atol=0.1)


def test_rows_do_not_know_of_one_another() -> None:
    curvatures = bowls()
    together, _ = descended(curvatures, 20)
    dropped, _ = descended(curvatures, 20, drop_after=6)
    for number in (0, 2):
        (alone, _) = descended(curvatures[[number]], 20)
        assert torch.allclose(together[-1][number], alone[-1][0])
        assert torch.allclose(dropped[-1][number // 2], alone[-1][0])


def test_a_bound_holds() -> None:
    _, held = descended(bowls(), 30, limits=torch.tensor(0.5))
    assert torch.allclose(held.norm(dim=-1), torch.tensor(0.5).double())
    assert torch.equal(clamped(held, torch.ones(3, 1)), held)


def test_a_loss_that_is_no_number_is_a_step_too_far() -> None:
    start = torch.zeros(1, 1, 2)
    optimizer = Lbfgs(start, torch.tensor([1.0]))
    limits = torch.full((1, 1), 1e6)
    optimizer.best_of(start, torch.tensor([5.0]))
    tried = optimizer.step(start, torch.tensor([5.0]), torch.tensor([[[3.0, 4.0]]]), limits)
    assert torch.allclose(tried, torch.tensor([[[-0.6, -0.8]]]))
    nothing = torch.tensor([float("nan")])
    held, reached = optimizer.best_of(tried, nothing)
    assert torch.equal(held, start) and reached == 5.0
    again = optimizer.step(tried, nothing, torch.full((1, 1, 2), torch.nan), limits)
    assert torch.allclose(again, 0.4 * tried)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_a_quarter_of_the_steps_comes_to_what_adam_comes_to(architecture) -> None:
    model, tokenizer = tiny_model(architecture, dtype=torch.float64, scale=2.0)
    view = ModelView(model)

    def search(edits, **settings):
        settings = SearchSettings(**{"stop_below": -1.0, "chunk": 8, **settings})
        return optimise_values(view, tokenizer, edits, TEMPLATES, 1, settings)

    adam = search(EDITS, steps=24)
    lbfgs = search(EDITS, steps=6, optimizer="lbfgs")
    reached = [sum(value.losses[-1] for value in values) / len(EDITS) for values in (adam, lbfgs)]
    assert reached[1] <= reached[0]
    for edit, value in zip(EDITS, lbfgs, strict=True):
        (alone,) = search([edit], steps=6, optimizer="lbfgs")
        assert relative(value.target, alone.target) < 1e-6
        assert list(value.losses) == sorted(value.losses, reverse=True)


def test_all_methods_with_a_search_take_it() -> None:
    model, tokenizer = tiny_model("llama")
    for name in ("rome", "memit", "pmet"):
        settings = {"steps": 3, "templates": ("{}",), "texts": TEXT}
        patches = [
            edited(name, model, tokenizer, EDITS[:2], optimizer=optimizer, **settings)
            for optimizer in ("lbfgs", "adam")
        ]
        assert difference(*patches) > 1e-2


def test_adam_steps_as_torch_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 8, generator=generator)
    expected = [row.clone().requires_grad_(True) for row in start]
    optimizers = [torch.optim.Adam([row], lr=0.5) for row in expected]
    found, adam = start.clone(), Adam(start, 0.5)
    for step in range(6):
        if step == 3:  # the second row is done
            kept = torch.tensor([True, False, True])
            found = found[kept]
            adam.select(kept)
            expected, optimizers = expected[::2], optimizers[::2]
        gradient = torch.randn(found.shape, generator=generator)
        found = adam.step(found, gradient)
        for row, optimizer, each in zip(expected, optimizers, gradient, strict=True):
            row.grad = each.clone()
            optimizer.step()
        assert torch.equal(found, torch.stack([row.detach() for row in expected]))
