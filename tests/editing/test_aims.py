"""Other aims of the search: what they read, what they move, and what remembers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from tests.tiny import TEXT, tiny_model

from emend.editing import (
    Scored,
    SearchSettings,
    TargetLikelihood,
    optimise_values,
)
from emend.editing.jobs import make_jobs
from emend.editing.objective import Objective, capture_groups
from emend.edits import Edit, Probe
from emend.errors import InvalidInput
from emend.methods import find
from emend.models import ModelView
from emend.models.forward import evaluating
from emend.models.hooks import frozen

REPHRASED = (
    Probe("rephrase", "The birthplace of Marie Curie is", ("Paris",)),
    Probe("rephrase", "Her birthplace is", ("Paris",)),  # does not name her
)
EDIT = Edit("{} was born in", "Marie Curie", "Paris", probes=REPHRASED)
TEMPLATES = ("{}", "He said. {}")
QUICK: dict[str, Any] = {"templates": TEMPLATES, "texts": TEXT, "steps": 6}


@dataclass(frozen=True)
class Suppressed:
    """Lower the target's mean probability at some layers."""

    layers: tuple[int, ...] = ()
    rephrasings: int = 0
    stops: bool = False
    factor: float = 1.0
    name: str = "suppressed"

    def loss(self, scored: Scored) -> torch.Tensor:
        found = [logits.softmax(-1) for logits in (*scored.lens, scored.logits)]
        return self.factor * sum(one.gather(-1, scored.tokens[:, None])[:, 0] for one in found)

    def reached(self, scored: Scored) -> torch.Tensor:
        return torch.zeros_like(scored.tokens, dtype=torch.bool)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "layers": list(self.layers), "factor": self.factor}


@dataclass(frozen=True)
class Even:
    """Make two tokens equally probable at the prompt's last token."""

    one: int
    other: int
    layers: tuple[int, ...] = ()
    rephrasings: int = 0
    stops: bool = True
    name: str = "even"

    def gap(self, scored: Scored) -> torch.Tensor:
        gap = scored.logits[:, self.one] - scored.logits[:, self.other]
        return torch.where(scored.steps == 0, gap, 0.0)

    def loss(self, scored: Scored) -> torch.Tensor:
        return 100 * self.gap(scored) ** 2

    def reached(self, scored: Scored) -> torch.Tensor:
        return self.gap(scored).detach().abs() < 0.01

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "tokens": [self.one, self.other]}


def tiny(dtype=torch.float64):
    model, tokenizer = tiny_model("llama", dtype=dtype, scale=2.0)
    return model, tokenizer, ModelView(model)


def plain_loss(model, view, row, delta, layers) -> torch.Tensor:
    """The loss of `Suppressed` in a row, by a whole pass with a hook."""
    states = {}

    def add(_module, _args, output):
        output = output.clone()
        output[:, row.lookup] += delta
        return output

    def keep(layer):
        def hook(_module, _args, output):
            states[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [view.down_projection(1).register_forward_hook(add)]
    handles += [view.layer(n).register_forward_hook(keep(n)) for n in layers]
    with torch.no_grad():
        last = model(torch.tensor([row.ids])).logits[0]
        lens = [
            model.lm_head(model.model.norm(states[n].reshape(last.shape[0], -1))) for n in layers
        ]
    for handle in handles:
        handle.remove()
    tokens = torch.tensor(row.targets)[:, None]
    read = [one[-len(row.targets) :].softmax(-1).gather(-1, tokens) for one in (*lens, last)]
    return sum(read)[:, 0].mean()


@pytest.mark.parametrize("site", ["mlp", "block"])
def test_an_aim_reads_layers_and_rephrasings_as_whole_passes_do(site):
    model, tokenizer, view = tiny()
    layers = (1, 2)
    jobs = make_jobs(view, tokenizer, [EDIT], TEMPLATES, rephrasings=5)
    delta = torch.randn(view.hidden_size, dtype=torch.float64, generator=torch.manual_seed(0))
    with evaluating(model), frozen(model):
        groups = capture_groups(view, jobs, 1, site, published_order=False)
        objective = Objective(view, jobs, [0], groups, site, aim=Suppressed(layers))
        found = objective.terms(delta[None, None])
    rows = [row for row in jobs[0].rows if row.targets]
    assert len(rows) == len(TEMPLATES) + 1
    losses = [plain_loss(model, view, row, delta, layers) for row in rows]
    assert float(found.aim) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-6)


def test_the_default_aim_is_the_targets_likelihood_to_the_last_bit():
    _, tokenizer, view = tiny(torch.float32)
    usual, named = (
        optimise_values(
            view, tokenizer, [EDIT], TEMPLATES, 1, SearchSettings(steps=4, enough=0.9, aim=aim)
        )
        for aim in (None, TargetLikelihood(0.9))
    )
    assert torch.equal(usual[0].target, named[0].target)
    assert usual[0].losses == named[0].losses


def test_an_aim_that_does_not_stop_takes_all_steps():
    _, tokenizer, view = tiny()
    for aim, count in ((Suppressed(), 9), (Suppressed(stops=True, factor=0.0), 1)):
        settings = SearchSettings(steps=9, norm_penalty=0, kl_factor=0, optimizer="lbfgs", aim=aim)
        (value,) = optimise_values(view, tokenizer, [EDIT], TEMPLATES, 1, settings)
        assert len(value.losses) == count


@pytest.mark.parametrize("method", ["rome", "memit", "alphaedit", "ft"])
def test_methods_minimise_the_aim(method):
    model, tokenizer, _ = tiny(torch.float32)
    one, other = (tokenizer.encode(text)[-1] for text in (" Paris", " Warsaw"))
    settings = {"steps": 12} if method == "ft" else {**QUICK, "ablation": {"norm_penalty": 0.0}}
    if method == "alphaedit":
        settings |= {"quantile": 0.3, "norm_weight": 0.0}
    aim = Even(one, other)
    patch = find(method).edit(model, tokenizer, [EDIT], aim=aim, **settings)
    assert patch.config["aim"] == aim.record()
    ids = torch.tensor([tokenizer.encode(EDIT.text)])

    def gap() -> float:
        with torch.no_grad():
            last = model(ids).logits[0, -1]
        return float((last[one] - last[other]).abs())

    before = gap()
    with patch.applied(model):
        assert gap() < 0.5 * before


def test_values_are_cached_by_their_aim():
    model, tokenizer, _ = tiny(torch.float32)
    aims = [None, Suppressed(), Suppressed(factor=2.0), Suppressed((2,))]
    patches = [find("memit").edit(model, tokenizer, [EDIT], aim=aim, **QUICK) for aim in aims]
    names = [name for patch in patches for name in patch.state]
    assert len(set(names)) == len(aims)
    again = find("memit").edit(model, tokenizer, [EDIT], aim=aims[1], previous=patches[1], **QUICK)
    assert list(again.state) == list(patches[1].state)
    with pytest.raises(InvalidInput, match="made with the aim suppressed, expected target_like"):
        find("memit").edit(model, tokenizer, [EDIT], previous=patches[1], **QUICK)


def test_an_aim_that_cannot_be_taken_is_refused_in_one_line():
    model, tokenizer, _ = tiny(torch.float32)
    with pytest.raises(InvalidInput, match="grace only makes a model generate targets, expected"):
        find("grace").edit(model, tokenizer, [EDIT], aim=Suppressed())
    for method in ("memit", "ft"):
        given = {} if method == "ft" else QUICK
        with pytest.raises(InvalidInput, match="reads layer 0, expected none below the edited"):
            find(method).edit(model, tokenizer, [EDIT], aim=Suppressed((0,)), layers=(1,), **given)
