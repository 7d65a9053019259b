"""Optimise v*, the MLP output at the subject's last token that makes the model generate the target.

ROME, Meng et al. 2022, arXiv 2202.05262, equation 4.

For an edit with contexts x_j, target tokens o and subject's last token i, find delta minimising

    mean_j -log p(o | x_j, y_i += delta) + kappa KL(p(. | s, y_i += delta) || p(. | s))
        + w |delta| / |v_0|^2

by Adam (or L-BFGS) under |delta| <= c |v_0|, where y_i is the down-projection's output at token
i, v_0 its value in the first row, and s is "{subject} is a". Many edits are optimised together, but
each has its own loss, clamp and stopping rule, so that the result is that of one by one.

Only what delta can reach is run (`emend.models.replay`), and logits are computed only where
they are scored.

Two options go beyond the paper. Edits of one subject may share one delta (``share_subject``): their
keys are nearly equal, so that what is written at one shows at the others, and only one delta for
all of them can be right at each. And further answers about the subject may be preserved
(``preserve``, ``statements``): the published term looks at the subject's own position only, where a
model predicts which words follow a name and not what it knows of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from emend._brief import brief
from emend._progress import progress
from emend.editing.aims import Aim, TargetLikelihood, shortens
from emend.editing.jobs import Job, chunks, make_jobs
from emend.editing.objective import (
    PARTS,
    Group,
    Objective,
    Site,
    Terms,
    capture_groups,
)
from emend.editing.optimizers import Adam, Lbfgs, clamped
from emend.editing.rows import check_templates
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.models import ModelView
from emend.models.forward import evaluating, fused
from emend.models.hooks import frozen
from emend.models.placing import widened

CHUNK = 6
"""Edits optimised together by default. More gains nothing on a CPU and needs more memory."""

FIRST = 3.0
"""Length of the first step of L-BFGS, in lengths of v_0: the loss is flat near 0."""

SETTLED = 0.02
"""Nats by which two steps of L-BFGS must lower the loss to continue once the target is top-1."""

HALVINGS = 4
"""Halvings by which the least length of a delta is found: to a sixteenth of it."""

MARGIN = 1.1
"""Factor on that length, since what is written is not reached to the last bit."""

Optimizer = Literal["adam", "lbfgs"]
"""Adam, as published, or L-BFGS, which takes fewer steps."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the optimisation.

    Attributes:
        steps: Forward passes; the last takes no step, so there are ``steps - 1`` updates.
        learning_rate: Adam's.
        norm_penalty: The factor w on ``|delta| / |v_0|^2``.
        clamp: The bound c on ``|delta| / |v_0|``.
        kl_factor: The factor kappa.
        preserve: Further prompts with one "{}" for the subject, whose answers are preserved; those
            without a sure answer, or answered as the edit's own prompt is, are left out.
        preserve_factor: Factor on the mean KL(before || after) over what is preserved.
        share_subject: Whether all edits of one subject share one delta.
        stop_below: The optimisation of an edit ends when its loss is below this.
        easing: Factor on the target's loss once all its tokens are top-1 (PMET: 0.1).
        stop_kl: It also ends once they are, if the KL term is at most this (PMET: 0.01).
        chunk: About how many edits are optimised together; the result does not depend on it
            beyond rounding. With 1, a value is bit for bit the same whatever else is optimised.
        published_order: Sum in the order of the published loop, so that float32 rounds as it does:
            one edit at a time, every row run separately and padded to the same length, gradients
            of rows added from the last to the first. Slower, and useful only to reproduce
            recorded numbers: with small gradients Adam magnifies rounding.
        statements: Number of the model's own statements of the subject that are preserved.
        enough: Probability from which on a target token adds no loss; 1 for the published loss.
            It is a setting of the default aim.
        optimizer: Adam, or L-BFGS, which reaches the same loss in a fraction of the steps.
        aim: Another loss in place of the target's negative log-likelihood; see `editing.aims`.
    """

    steps: int = 20
    learning_rate: float = 0.5
    norm_penalty: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    preserve: tuple[str, ...] = ()
    preserve_factor: float = 1.0
    share_subject: bool = False
    stop_below: float = 0.05
    easing: float = 1.0
    stop_kl: float | None = None
    chunk: int = CHUNK
    published_order: bool = False
    optimizer: Optimizer = "adam"
    statements: int = 0
    enough: float = 1.0
    aim: Aim | None = None

    @property
    def loss(self) -> Aim:
        """The aim, by default the target's likelihood."""
        return self.aim or TargetLikelihood(self.enough)


@brief
@dataclass(frozen=True)
class Value:
    """The optimised value of one edit; float32 (float64 for a float64 model), C contexts.

    Attributes:
        initial: (hidden_size,), v_0: the down-projection's output in the first context.
        target: (hidden_size,), v* = v_0 + delta.
        keys: (C, intermediate_size), the down-projection's input at the subject's last token.
        outputs: (C, hidden_size), its output there.
        losses: The loss at each step, the last included; for L-BFGS the least so far.
    """

    initial: Tensor
    target: Tensor
    keys: Tensor
    outputs: Tensor
    losses: tuple[float, ...]

    @property
    def delta(self) -> Tensor:
        """(hidden_size,), v* - v_0."""
        return self.target - self.initial


@dataclass(frozen=True)
class Found:
    """Values that were optimised as one problem.

    Attributes:
        edits: Numbers of their edits.
        values: One for each.
        seconds: What the optimisation took, by the clock.
        cpu_seconds: The same of the CPU.
    """

    edits: Sequence[int]
    values: Sequence[Value]
    seconds: float
    cpu_seconds: float


def optimise_values(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings | None = None,
    *,
    site: Site = "mlp",
    on_found: Callable[[Found], None] | None = None,
) -> list[Value]:
    """Optimise the value of each edit at the output of one layer or of its down-projection.

    The model's weights are not changed and need no gradients. The model runs in its own dtype;
    losses are in float32.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: E edits.
        templates: C context templates; the first gives v_0 (it should be the bare "{}").
        layer: The layer.
        settings: Settings of the optimisation.
        site: Where delta is added, and what ``initial``, ``target`` and ``outputs`` of a value
            refer to: "mlp", the down-projection's output (ROME), or "block", the layer's
            (MEMIT). With "attention+mlp" (PMET) the outputs of both are optimised together, each
            with its own delta and clamp; the value is the down-projection's.
        on_found: Called with each value, or those optimised as one, as soon as they are found.

    Returns:
        E values, in the order of the edits.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        InvalidInput: The aim reads a layer below this one.
        NumericalFailure: A loss is not finite.
    """
    settings = settings or SearchSettings()
    (layer,) = view.numbered([layer])
    jobs = make_jobs(
        *(view, tokenizer, edits, check_templates(templates)),
        check_templates(settings.preserve) if settings.preserve else (),
        share_subject=settings.share_subject,
        share_rows=not settings.published_order,
        statements=settings.statements,
        rephrasings=settings.loss.rephrasings,
    )
    found: dict[int, Value] = {}
    published = settings.published_order
    one_call = nullcontext() if published else fused(view.model)
    with evaluating(view.model), frozen(view.model), one_call:
        size = 1 if published else settings.chunk
        for members in progress(chunks(jobs, size), "optimising values"):
            began = time.perf_counter(), time.process_time()
            optimised = _optimise(view, members, layer, settings, site)
            spent = time.perf_counter() - began[0], time.process_time() - began[1]
            for job, values in zip(members, optimised, strict=True):
                found.update(zip(job.edits, values, strict=True))
                if on_found is not None:
                    on_found(Found(job.edits, values, *(one / len(members) for one in spent)))
    return [found[index] for index in range(len(edits))]


def _optimise(
    view: ModelView, jobs: Sequence[Job], layer: int, settings: SearchSettings, site: Site
) -> list[list[Value]]:
    """Optimise the values of some jobs together."""
    published = settings.published_order
    groups = capture_groups(view, jobs, layer, site, published_order=published)
    keys, outputs = _sites(jobs, groups)
    bases = torch.stack([each[0] for each in outputs])[:, None]  # (J, 1, hidden_size)
    if site == "attention+mlp":
        bases = torch.cat([_attention_outputs(jobs, groups).to(bases), bases], dim=1)
    assert bases.shape[1] == PARTS[site]
    sizes = bases.norm(dim=-1)  # (J, P)
    objective = Objective(view, jobs, range(len(jobs)), groups, site, published, settings.loss)
    deltas, losses = _descend(objective, torch.zeros_like(bases), sizes, settings)
    if shortens(settings.loss):
        deltas = list(_shortened(objective, torch.stack(deltas)))
    return [
        _values(job, deltas[n][-1], keys[n], outputs[n], losses[n]) for n, job in enumerate(jobs)
    ]


def _descend(
    objective: Objective, delta: Tensor, sizes: Tensor, settings: SearchSettings
) -> tuple[list[Tensor], list[list[float]]]:
    """Minimise from ``delta`` (J, P, hidden_size); return each job's final delta and its losses."""
    jobs = objective.jobs
    optimizer = _optimizer(delta, sizes, settings)
    found: dict[int, Tensor] = {}
    losses: list[list[float]] = [[] for _ in jobs]
    hits = [False] * len(jobs)  # of each job, whether the target is top-1 at its best delta
    for step in range(settings.steps):
        delta = delta.detach().requires_grad_(True)
        terms = objective.terms(delta)
        loss = _loss(terms, delta, sizes[objective.active], settings)
        best, reached = optimizer.best_of(delta.detach(), loss.detach())
        current, hit = reached.tolist(), terms.hit.tolist()
        is_best = (loss.detach().to(reached) == reached).tolist()
        for number, job in enumerate(objective.active):
            losses[job].append(current[number])
            hits[job] = hit[number] if is_best[number] else hits[job]
            _check_finite(current[number], jobs[job].name, step)
        enough = _enough(terms, loss, reached, settings)
        finished = [
            step == settings.steps - 1 or done or (hits[job] and _settled(losses[job], settings))
            for done, job in zip(enough, objective.active, strict=True)
        ]
        for number, job in enumerate(objective.active):
            if finished[number]:
                found[job] = best[number].clone()
        if all(finished):
            break
        (gradient,) = torch.autograd.grad(loss.sum(), delta)
        limits = settings.clamp * sizes[objective.active]
        delta = optimizer.step(delta.detach(), loss.detach(), gradient, limits)
        if any(finished):
            kept = torch.tensor([not done for done in finished], device=delta.device)
            delta = delta[kept]
            optimizer.select(kept)
            objective = objective.without(finished)
    return [found[job] for job in range(len(jobs))], losses


def _shortened(objective: Objective, deltas: Tensor) -> Tensor:
    """Scale each delta down to the least length that reaches its aim, times `MARGIN`; by bisection.

    The first step of L-BFGS goes to the bound, and a loss that is 0 from some point on has no
    gradient that leads back: what is longer than it must be moves other answers for nothing. A
    delta that does not reach its aim is left as it is.

    Args:
        objective: The loss of all J jobs.
        deltas: (J, P, hidden_size).
    """
    with torch.no_grad():
        reached = objective.terms(deltas).hit.to(deltas.device)  # (J,)
        short, long = torch.zeros_like(reached, dtype=deltas.dtype), torch.ones_like(reached)
        long = long.to(deltas)
        for _ in range(HALVINGS):
            middle = (short + long) / 2
            hit = objective.terms(deltas * middle[:, None, None]).hit.to(deltas.device)
            short, long = torch.where(hit, short, middle), torch.where(hit, middle, long)
    scale = torch.where(reached, (MARGIN * long).clamp(max=1.0), 1.0)
    return scale[:, None, None] * deltas


def _loss(terms: Terms, delta: Tensor, sizes: Tensor, settings: SearchSettings) -> Tensor:
    """Return (J,), the loss of each job."""
    eased = torch.where(terms.hit, settings.easing, 1.0)
    decay = (delta.norm(dim=-1) / sizes**2).sum(1).to(terms.aim.device)
    loss = terms.aim * eased + settings.kl_factor * terms.essence + settings.norm_penalty * decay
    preserves = settings.preserve or settings.statements
    return loss + settings.preserve_factor * terms.preserved if preserves else loss


def _optimizer(delta: Tensor, sizes: Tensor, settings: SearchSettings) -> _Adam | Lbfgs:
    """Make the optimizer that the settings name."""
    if settings.optimizer == "lbfgs":
        return Lbfgs(delta, FIRST * sizes.sum(1))
    return _Adam(delta, settings.learning_rate)


class _Adam:
    """Adam under a bound; its last point is its best."""

    def __init__(self, delta: Tensor, learning_rate: float) -> None:
        self._adam = Adam(delta, learning_rate)

    def best_of(self, tried: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
        """See `Lbfgs.best_of`."""
        return tried, loss

    def step(self, tried: Tensor, loss: Tensor, gradient: Tensor, limits: Tensor) -> Tensor:
        """See `Lbfgs.step`."""
        del loss
        return clamped(self._adam.step(tried, gradient), limits)

    def select(self, kept: Tensor) -> None:
        """See `Lbfgs.select`."""
        self._adam.select(kept)


def _settled(losses: Sequence[float], settings: SearchSettings) -> bool:
    """Return whether the last two steps of L-BFGS hardly lowered the loss."""
    if settings.optimizer != "lbfgs" or len(losses) < 3 or not settings.loss.stops:
        return False
    return losses[-3] - losses[-1] < SETTLED


def _enough(terms: Terms, loss: Tensor, reached: Tensor, settings: SearchSettings) -> list[bool]:
    """Return which jobs are done, from the losses (J,) of the last and of the best deltas."""
    if not settings.loss.stops:
        return [False] * len(loss)
    enough = reached < settings.stop_below
    if settings.stop_kl is not None:
        preserved = terms.hit & (terms.essence <= settings.stop_kl)
        enough = enough | preserved.to(enough.device) & (loss.to(reached) == reached)
    return enough.tolist()


def _values(
    job: Job, delta: Tensor, keys: Tensor, outputs: Tensor, losses: Sequence[float]
) -> list[Value]:
    """Make the value of each edit of a job: its own output plus the job's delta."""
    parts = zip(keys.split(job.each), outputs.split(job.each), strict=True)
    return [Value(o[0], o[0] + delta, k, o, tuple(losses)) for k, o in parts]


def _sites(jobs: Sequence[Job], groups: Sequence[Group]) -> tuple[list[Tensor], list[Tensor]]:
    """Collect each job's keys (C, intermediate_size) and outputs (C, hidden_size) by context."""
    at = {
        member: (group.capture.keys[row], group.capture.values[row])
        for group in groups
        for row, member in enumerate(group.members)
    }
    keys: list[Tensor] = []
    outputs: list[Tensor] = []
    for number, job in enumerate(jobs):
        pairs = [at[number, row] for row in range(job.contexts)]
        keys.append(widened(torch.stack([key for key, _ in pairs])))
        outputs.append(widened(torch.stack([output for _, output in pairs])))
    return keys, outputs


def _attention_outputs(jobs: Sequence[Job], groups: Sequence[Group]) -> Tensor:
    """Return (J, 1, hidden_size), attention outputs at the subject in the first contexts."""
    found = [torch.empty(0)] * len(jobs)
    for group in groups:
        outputs = group.capture.attention_outputs()
        for row, (job, index) in enumerate(group.members):
            if index == 0:
                found[job] = widened(outputs[row])
    return torch.stack(found)[:, None]


def _check_finite(loss: float, name: str, step: int) -> None:
    if not math.isfinite(loss):
        raise NumericalFailure(
            f"the loss of {name} is {loss} at step {step}, expected a finite number: "
            "load the model in float32 or bfloat16, or check its weights"
        )
