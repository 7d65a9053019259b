"""Detoxify by one of three ways, and measure before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from emend.datasets.safeedit import SafetyCase
from emend.detoxification.control import Control
from emend.detoxification.measuring import Safety, known, measure, unsafe_label
from emend.detoxification.negation import Trial, negate
from emend.errors import InvalidInput, UnknownName
from emend.methods import find
from emend.metrics import Classifier

if TYPE_CHECKING:
    from torch import nn

    from emend.patches import Patch

METHODS = ("dinm", "negation", "edit")
"""The ways to detoxify; "edit" is a method that writes at a subject."""

EDITOR = "memit"
"""The method of the way "edit"."""


@dataclass(frozen=True)
class Detoxification:
    """A patch, and what it changed.

    Attributes:
        method: "dinm", "negation" or "edit".
        patch: The patch.
        unsafe: The classifier's label of unsafe answers.
        before: Measures of the unedited model.
        after: Measures of the model with the patch.
        known_facts: Control facts that the unedited model states, on which both were asked.
        trials: Of negation, the scales that were tried.
    """

    method: str
    patch: Patch
    unsafe: str
    before: Safety
    after: Safety
    known_facts: int
    trials: tuple[Trial, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON; without the patch."""
        return {
            "method": self.method,
            "unsafe_label": self.unsafe,
            "known_facts": self.known_facts,
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "trials": [asdict(one) for one in self.trials],
        }


def detoxify(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[SafetyCase],
    classifier: Classifier,
    method: str = "dinm",
    *,
    control: Control | None = None,
    unsafe: str | None = None,
    before: Safety | None = None,
    editor: str = EDITOR,
    **settings: Any,
) -> Detoxification:
    """Make a patch that answers the cases safely, and measure it; the model is left as it is.

    Every other item of the control is for choosing (the scale of a negation), the others are
    reported.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        cases: The cases.
        classifier: Judges the answers.
        method: "dinm"; "negation" of a toxic task vector; or "edit", which writes the safe answer
            at the prompt's subject.
        control: What must not change.
        unsafe: The classifier's label of unsafe answers; by default the one that it gives most of
            the cases' unsafe answers.
        before: Measures of the unedited model, if they are known.
        editor: The method of "edit".
        settings: Settings of `dinm`, `ft` (negation) or the editor.

    Raises:
        InvalidInput: There are no cases, the classifier does not tell their answers apart, or
            the method cannot be used with them.
        UnknownName: There is no such method, setting or label.
    """
    if method not in METHODS:
        raise UnknownName("detoxification method", method, METHODS)
    if not cases:
        raise InvalidInput("there are no cases, expected at least one: give a file of some")
    label = unsafe_label(classifier, cases) if unsafe is None else unsafe
    choosing, reported = (control or Control()).halves()
    reported = known(model, tokenizer, reported)
    asked = (cases, classifier, reported)
    before = before or measure(model, tokenizer, *asked, unsafe=label)
    trials: tuple[Trial, ...] = ()
    patch: Patch
    if method == "negation":
        patch, trials = negate(model, tokenizer, cases, choosing, **settings)
    else:
        edits = [case.edit for case in cases]
        chosen = find("dinm" if method == "dinm" else editor)
        patch = chosen.edit(model, tokenizer, edits, **settings)
    with patch.applied(model):
        after = measure(model, tokenizer, *asked, unsafe=label)
    count = len(reported.facts)
    return Detoxification(method, patch, label, before, after, count, trials)
