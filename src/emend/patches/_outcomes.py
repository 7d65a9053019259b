"""What became of each edit of a patch, as asked of the edited model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What one edit did, measured on its exact text.

    Attributes:
        edit: The edit's id.
        text: The prompt with its subject.
        target: What the model is to generate after it.
        took: Whether the edited model generates the target.
        before: Probability of the whole target before the edit, from 0 to 1; None where the model
            gives none (an endpoint).
        after: The same after it.
        generated: What the edited model generates after the text.
        bare: What it generates without the start token, where the text begins with the subject
            and emend puts a start token in front; else None.
        reason: Why the edit likely did not take; empty where it took.
        remedy: What to try then.
        language: The edit's language, where it is known.
        translation_of: The id of the edit that it is a translation of, if it is one.
    """

    edit: str
    text: str
    target: str
    took: bool
    before: float | None
    after: float | None
    generated: str
    bare: str | None = None
    reason: str = ""
    remedy: str = ""
    language: str | None = None
    translation_of: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON-able data."""
        return asdict(self)

    def describe(self) -> str:
        """State the outcome in one line."""
        chance = ""
        if self.before is not None and self.after is not None:
            chance = f"P(target) {self.before:.2g} -> {self.after:.2g}, "
        found = f"{chance}the model generates {self.generated.strip()!r}"
        language = f"[{self.language}] " if self.language else ""
        line = f"{language}{self.text!r} -> {self.target.strip()!r}: {found}"
        if self.bare is not None:
            line = f"{line}; without the start token {self.bare.strip()!r}"
        return line if self.took else f"{line}; likely reason: {self.reason}; try: {self.remedy}"


def outcomes_from(records: Iterable[Mapping[str, Any]]) -> tuple[Outcome, ...]:
    """Read what `Outcome.to_dict` gave.

    Raises:
        TypeError: A field is missing, or not known.
    """
    return tuple(Outcome(**record) for record in records)


def edits_taken(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    """Tell of each edit, by id, whether it took: in all its languages where it has several."""
    found: dict[str, bool] = {}
    for one in outcomes:
        id_ = one.translation_of or one.edit
        found[id_] = one.took and found.get(id_, True)
    return found


def outcome_summary(outcomes: Sequence[Outcome]) -> str:
    """State in a few words how many edits took, and in how many languages where several are."""
    edits = edits_taken(outcomes)
    line = f"{sum(edits.values())} of {len(edits)} edit{'s' * (len(edits) != 1)} took"
    if len(edits) == len(outcomes):
        return line
    took = sum(one.took for one in outcomes)
    return f"{line} in every language ({took} of {len(outcomes)} statements)"
