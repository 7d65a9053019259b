"""Negation of a toxic task vector: fine-tune on unsafe answers, and subtract the change.

Ilharco et al. 2023, "Editing Models with Task Arithmetic", arXiv 2212.04089, section 3:

    tau = theta_toxic - theta,      theta' = theta - lambda tau

    paper    here
    tau      the patch of `ft` on the unsafe answers, down-projections of all layers
    lambda   scale: the largest on a grid that keeps the control perplexity within 0.5, and 95% of
             the control facts

Deviation: of the weights only the MLPs' down-projections are fine-tuned, on the cases' own prompts
and unsafe answers; the paper tunes all weights on a corpus of toxic comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from emend._progress import progress
from emend.datasets.safeedit import SafetyCase
from emend.detoxification.control import Control
from emend.detoxification.measuring import known, stated
from emend.errors import InvalidInput
from emend.methods import find
from emend.models import ModelView, perplexity

if TYPE_CHECKING:
    from torch import nn

    from emend.edits import Edit
    from emend.patches import WeightPatch

SCALES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
PERPLEXITY_ROOM = 0.5
ACCURACY_KEPT = 0.95


@dataclass(frozen=True)
class Trial:
    """One scale of the grid.

    Attributes:
        scale: Lambda.
        perplexity: Of the control texts; None where there are none.
        facts: Share of the known control facts that are still stated; None where there are none.
        holds: Whether both stay within their bounds.
    """

    scale: float
    perplexity: float | None
    facts: float | None
    holds: bool


def negate(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[SafetyCase],
    control: Control,
    *,
    scales: Sequence[float] = SCALES,
    **settings: Any,
) -> tuple[WeightPatch, tuple[Trial, ...]]:
    """Fine-tune on the unsafe answers, and return the change times -scale.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        cases: Cases with unsafe answers.
        control: What the scale is chosen by; not what is reported afterwards.
        scales: The grid, tried from the largest down to the first that holds.
        settings: Settings of `ft`, in place of its published form over all layers.

    Returns:
        The patch, and the scales that were tried.

    Raises:
        InvalidInput: A case has no unsafe answer, there is no control, a scale is not positive,
            or none of the scales keeps the control.
    """
    _check(cases, control, scales)
    toxic = [_toxic(case) for case in cases]
    layers = tuple(ModelView(model).editable)
    given: dict[str, Any] = {"original": True, "layers": layers, **settings}
    vector = cast("WeightPatch", find("ft").edit(model, tokenizer, toxic, **given))
    control = known(model, tokenizer, control)
    usual = perplexity(model, tokenizer, control.texts) if control.texts else None
    trials: list[Trial] = []
    for scale in progress(sorted(scales, reverse=True), "choosing the scale"):
        patch = -scale * vector
        with patch.applied(model):
            trials.append(_trial(model, tokenizer, control, scale, usual))
        if trials[-1].holds:
            config = {**vector.config, "scale": scale}
            edits = tuple(case.edit for case in cases)
            return replace(patch, method="negation", config=config, edits=edits), tuple(trials)
    raise InvalidInput(
        f"none of the scales from {max(scales):g} to {min(scales):g} keeps the control perplexity "
        f"within {PERPLEXITY_ROOM:g} and {ACCURACY_KEPT:.0%} of the known facts: give smaller "
        "scales, or fewer steps of fine-tuning"
    )


def _check(cases: Sequence[SafetyCase], control: Control, scales: Sequence[float]) -> None:
    if not cases:
        raise InvalidInput("there are no cases, expected at least one: give a file of some")
    for case in cases:
        if case.edit.original is None:
            raise InvalidInput(
                f"case {case.edit.id!r} has no unsafe generation, expected one to fine-tune on: "
                "add it, or take another method"
            )
    if not control.texts and not control.facts:
        raise InvalidInput(
            "negation has nothing to choose its scale by, expected texts or facts: give some"
        )
    if not scales or min(scales) <= 0:
        raise InvalidInput(f"scales are {list(scales)}, expected positive numbers")


def _toxic(case: SafetyCase) -> Edit:
    assert case.edit.original is not None
    return replace(case.edit, target=case.edit.original, original=None, probes=())


def _trial(
    model: nn.Module, tokenizer: Any, control: Control, scale: float, usual: float | None
) -> Trial:
    right = stated(model, tokenizer, control) if control.facts else []
    facts = sum(right) / len(right) if right else None
    found = None if usual is None else perplexity(model, tokenizer, control.texts)
    holds = (facts is None or facts >= ACCURACY_KEPT) and (
        found is None or usual is None or found - usual <= PERPLEXITY_ROOM
    )
    return Trial(scale, found, facts, holds)
