"""UltraEdit: write normalised gradients by one ridge regression, turn by turn; nothing is trained.

Gu et al. 2025, arXiv 2505.14679 (TMLR 2026); StableEdit, arXiv 2605.11836 (ICML 2026).

For each turn of n edits and each edited matrix, at the tokens that predict a target token:

    H, G       inputs of the matrix (N, in), and the gradients at its outputs (N, out)
    h~, g~     (x - mean) / deviation, over all rows of all turns so far; shared by equal shapes
    v          -eta |h~|^2 g~
    Delta W^T = (H^T H + alpha I)^-1 H^T V         solved in float64 on the smaller side

and the next turn's gradients are taken on the edited model. StableEdit is `whiten`, `alpha=10`
and `warmup=20`: g~ = Cov^(-1/2) (g - mean) where more rows than dimensions were seen.

Deviations:

- By default the step does not depend on scale: v = -strength rms(y) (|h~|^2 / mean |h~|^2)
  (g~ / rms(g~)), with y the outputs of the matrix at these tokens, and the ridge is alpha times the
  mean |h|^2. Over many rows mean |h~|^2 is `in` and rms(g~) is 1, so this is the published v in
  another unit: strength is the change of an output relative to its size, in any model. `eta`
  (published: 1e-6, for models of 7B) takes the published v, and alpha is then absolute (published:
  1).
- The variance is the biased one, and pseudo-rows are counted with the rows seen: a single edit of
  one token would be its own mean, and be normalised to zero.
- The model is not changed: earlier turns act as hooks, in float32.

It changes the outputs at all keys that resemble those of the edits, since it knows no other keys:
on SmolLM2-135M ten edits take and the rest of the model is ruined, even at the least strength at
which they take; in early layers, where keys differ more, they do not take. The paper's models are
fifty times as large.

The change of a turn depends on the turns before, so the order of edits matters, and edits cannot be
taken out alone. The patch holds the running statistics, with which a continued patch proceeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, Positive, Whole
from emend.editing import Row, Session, context_rows
from emend.editing.gradients import (
    Normaliser,
    TokenGradients,
    Whitener,
    linear_modules,
    token_gradients,
)
from emend.editing.layerwise import changed
from emend.errors import NumericalFailure
from emend.methods._method import method
from emend.models import ModelView
from emend.models.structure import projection_shape
from emend.patches import Dense, Factor, LowRank, WeightPatch, add

BATCH = 10
"""Edits in one forward and backward pass."""

PRIOR = 10.0
"""Pseudo-rows counted in the statistics, except in the published form."""


@dataclass(frozen=True)
class Step:
    """Settings of the step size; see `ultraedit`."""

    strength: float
    eta: float | None
    alpha: float | None
    whiten: bool


@method(
    title="UltraEdit: normalised gradients by ridge regression, turn by turn (StableEdit: whiten)",
    paper="Gu et al. 2025, arXiv 2505.14679",
    when="very many edits in little time, in models of billions of parameters; ruins small ones",
    avoid="small models: twenty edits ruin SmolLM2; where one edit must be taken out alone",
    continues="sequential",
)
def ultraedit(
    session: Session,
    *,
    layers: tuple[int, ...] | None = None,
    turn: Count = 100,
    strength: Positive = 1.5,
    eta: Positive | None = None,
    alpha: Positive | None = None,
    whiten: bool = False,
    warmup: Whole = 0,
) -> WeightPatch:
    """Write the edits, one turn at a time.

    Args:
        session: The edits and the engine.
        layers: Layers whose down-projections are edited; by default the last quarter.
        turn: Edits written at once; the next ones see the edited model.
        strength: Change of the outputs at a target token, relative to them, over all modules.
        eta: The published step (1e-6) instead of strength; alpha is then absolute, and statistics
            have no prior.
        alpha: The ridge: by default 0.01 (of the mean |h|^2), or 1 where eta is set.
        whiten: Give gradients unit covariance and not only unit variance (StableEdit).
        warmup: Turns whose gradients are observed before the first change (StableEdit: 20).
    """
    view = session.view
    if layers is None:
        layers = view.editable_from(round(0.75 * view.num_layers))
    layers = tuple(sorted(view.numbered(layers)))
    names = [view.name_of(view.down_projection(layer)) for layer in layers]
    rows = [each[0] for each in context_rows(session.tokenizer, session.edits, ["{}"])]
    run = _Run(view, names, Step(strength, eta, alpha, whiten))
    if isinstance(session.previous, WeightPatch):
        run.recall(session.previous)
    turns = [rows[start : start + turn] for start in range(0, len(rows), turn)]
    for each in turns[:warmup]:
        run.observe(run.gradients(each))
    for each in progress(turns, "turns of edits"):
        run.turn(each)
    return session.patch(run.changes, state=run.state(), layers=layers)


class _Run:
    """The changes so far, and the running statistics of each shape."""

    def __init__(self, view: ModelView, names: Sequence[str], how: Step) -> None:
        self.view, self.how = view, how
        self.modules = linear_modules(view, names)
        self.shapes: dict[str, tuple[int, int]] = {}
        for name, module in self.modules.items():
            shape = projection_shape(module)
            assert shape is not None
            self.shapes[name] = shape
        kind = Whitener if how.whiten else Normaliser
        prior = PRIOR if how.eta is None else 0.0
        self.inputs = {shape: Normaliser(shape[1], prior) for shape in self._kinds()}
        self.outputs = {shape: kind(shape[0], prior) for shape in self._kinds()}
        self.changes: dict[str, Factor] = {}

    def turn(self, rows: Sequence[Row]) -> None:
        """Write the edits of one turn."""
        found = self.gradients(rows)
        self.observe(found)
        for name, gradients in found.items():
            change = self._solve(self.shapes[name], gradients)
            before = self.changes.get(name)
            total = change if before is None else add(before, change)
            if total.rank > min(total.shape):
                total = Dense(total.dense())
            self.changes[name] = total

    def gradients(self, rows: Sequence[Row]) -> dict[str, TokenGradients]:
        """Compute gradients of the model edited so far, at tokens that predict a target token."""
        with ExitStack() as stack:
            for name, change in self.changes.items():
                stack.enter_context(changed(self.modules[name], change))
            return token_gradients(self.view, rows, self.modules, where="targets", batch_size=BATCH)

    def observe(self, found: dict[str, TokenGradients]) -> None:
        """Add all gradients of a turn to the statistics, before any is normalised."""
        for name, gradients in found.items():
            self.inputs[self.shapes[name]].observe(gradients.inputs)
            self.outputs[self.shapes[name]].observe(gradients.gradients)

    def _solve(self, shape: tuple[int, int], gradients: TokenGradients) -> LowRank | Dense:
        """Solve Delta W^T = (H^T H + alpha I)^-1 H^T V = H^T (H H^T + alpha I)^-1 V."""
        how = self.how
        given = gradients.inputs.double()  # (N, in)
        length = self.inputs[shape](gradients.inputs).double().square().sum(1, keepdim=True)
        normal = self.outputs[shape](gradients.gradients).double()  # (N, out)
        ridge = how.alpha or 1.0
        if how.eta is not None:
            values = -how.eta * length * normal
        else:
            usual = length.mean() * normal.square().mean().sqrt()
            usual = usual.clamp(min=torch.finfo(torch.float64).tiny)
            step = how.strength / len(self.modules) * gradients.size
            values = -step / usual * length * normal
            ridge = (how.alpha or 0.01) * float(given.square().sum(1).mean())
        few = len(given) <= given.shape[1]
        gram = given @ given.T if few else given.T @ given
        gram.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            raise NumericalFailure(
                f"the ridge regression of {len(given)} tokens cannot be solved, expected a "
                "positive definite system: take a larger alpha"
            )
        if few:
            solved = torch.cholesky_solve(values, factor)  # (N, out)
            return LowRank(given.float(), solved.T.float())
        return Dense(torch.cholesky_solve(given.T @ values, factor).T.float())

    def _kinds(self) -> list[tuple[int, int]]:
        return sorted(set(self.shapes.values()))

    def state(self) -> dict[str, Tensor]:
        """Return the running statistics, by shape."""
        return {
            f"{side}.{shape[0]}x{shape[1]}.{name}": tensor.clone()
            for side, held in (("inputs", self.inputs), ("outputs", self.outputs))
            for shape, normaliser in held.items()
            for name, tensor in normaliser.state_dict().items()
        }

    def recall(self, previous: WeightPatch) -> None:
        """Load the statistics of an earlier patch, where it holds those of these shapes."""
        for side, held in (("inputs", self.inputs), ("outputs", self.outputs)):
            for shape, normaliser in held.items():
                prefix = f"{side}.{shape[0]}x{shape[1]}."
                known = {
                    name.removeprefix(prefix): tensor
                    for name, tensor in previous.state.items()
                    if name.startswith(prefix)
                }
                if set(known) == set(normaliser.state_dict()):
                    normaliser.load_state_dict(known)
