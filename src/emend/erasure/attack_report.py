"""`AttackReport`: what attacks found of each secret, and how often."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from emend._brief import brief, count_text
from emend._io import json_text, write_json, write_text
from emend.erasure.attacks import Attempt
from emend.erasure.secret import Secret

Z = 1.959964
"""Standard deviations of an interval of 95%."""


@dataclass(frozen=True)
class Rate:
    """A share of successes with Wilson's interval of 95% (Wilson 1927).

    Attributes:
        found: Number of successes.
        of: Number of trials.
    """

    found: int
    of: int

    @classmethod
    def over(cls, outcomes: Iterable[bool]) -> Rate:
        """Count outcomes."""
        given = list(outcomes)
        return cls(sum(given), len(given))

    @property
    def share(self) -> float | None:
        """The share; None without trials."""
        return self.found / self.of if self.of else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Lower and upper end of the interval; None without trials."""
        if not self.of:
            return None
        share, count = self.found / self.of, self.of
        middle = share + Z**2 / (2 * count)
        width = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
        scale = 1 + Z**2 / count
        return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)

    def text(self) -> str:
        """Write it as "38.0% (26 to 52)"; a dash without trials."""
        if self.share is None or self.interval is None:
            return "-"
        low, high = self.interval
        return f"{100 * self.share:.1f}% ({100 * low:.0f} to {100 * high:.0f})"

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        return {"found": self.found, "of": self.of, "share": self.share, "interval": self.interval}


@brief
@dataclass(frozen=True)
class Outcome:
    """What one attack found.

    Attributes:
        attack: Its name.
        title: What it does.
        how: How it spent its budget.
        attempts: One for each secret; empty where it could not be run.
        controls: The same with another subject in the prompt; None where there is no other.
        seconds: Time that it took, controls included.
        refusal: Why it could not be run; None where it was.
    """

    attack: str
    title: str
    how: str = ""
    attempts: tuple[Attempt, ...] = ()
    controls: tuple[Attempt | None, ...] = ()
    seconds: float = 0.0
    refusal: str | None = None


@dataclass(frozen=True, repr=False)
class AttackReport:
    """What attacks found of secrets.

    Attributes:
        secrets: The secrets, S of them.
        known: For each whether the model knew it before; rates are over these.
        outcomes: One for each attack.
        settings: Budget, seed and layers.
    """

    secrets: tuple[Secret, ...]
    known: tuple[bool, ...]
    outcomes: tuple[Outcome, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        attacks = count_text(len(self.outcomes), "attack")
        return f"AttackReport: {count_text(len(self.secrets), 'secret')}, {attacks}"

    @property
    def nothing_to_erase(self) -> tuple[str, ...]:
        """Ids of the secrets that the model did not know."""
        pairs = zip(self.secrets, self.known, strict=True)
        return tuple(secret.id for secret, known in pairs if not known)

    @cached_property
    def rates(self) -> dict[str, Rate]:
        """Success of each attack that was run, over the secrets that the model knew."""
        return {
            one.attack: Rate.over(self._of_known([each.found for each in one.attempts]))
            for one in self.outcomes
            if one.refusal is None
        }

    @cached_property
    def controls(self) -> dict[str, Rate]:
        """The same with another subject in the prompt: what can be guessed from it alone."""
        return {
            one.attack: Rate.over(
                each.found
                for each, known in zip(one.controls, self.known, strict=True)
                if known and each is not None
            )
            for one in self.outcomes
            if one.refusal is None and one.controls
        }

    @property
    def any_attack(self) -> Rate:
        """Share of known secrets that at least one attack finds."""
        run = [one.attempts for one in self.outcomes if one.refusal is None]
        return Rate.over(self._of_known([any(a.found for a in each) for each in zip(*run)]))  # noqa: B905

    def rows(self) -> list[list[str]]:
        """Return a row for each attack: name, rate, control, seconds, how the budget was spent."""
        rows: list[list[str]] = []
        for one in self.outcomes:
            if one.refusal is not None:
                rows.append([one.attack, "-", "-", "-", f"not run: {one.refusal}"])
                continue
            control = self.controls.get(one.attack, Rate(0, 0)).text()
            cells = [self.rates[one.attack].text(), control, f"{one.seconds:.1f}", one.how]
            rows.append([one.attack, *cells])
        if len(self.rates) > 1:
            rows.append(["any of them", self.any_attack.text(), "-", "-", ""])
        return rows

    def note(self) -> str:
        """State what the rates are over, in one line."""
        known = sum(self.known)
        note = f"over {count_text(known, 'secret')} that the model knew, B = {self.budget}"
        left = len(self.known) - known
        apart = f"; {count_text(left, 'secret')} that it did not know: nothing to erase"
        return note + (apart if left else "")

    @property
    def budget(self) -> Any:
        """B."""
        return self.settings.get("budget")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        return {
            "settings": dict(self.settings),
            "known": dict(zip((one.id for one in self.secrets), self.known, strict=True)),
            "nothing_to_erase": list(self.nothing_to_erase),
            "any_attack": self.any_attack.to_dict(),
            "attacks": {one.attack: self._outcome_dict(one) for one in self.outcomes},
        }

    def to_json(self) -> str:
        """Write it as JSON."""
        return json_text(self.to_dict(), indent=2) + "\n"

    def to_markdown(self) -> str:
        """Write the rates as a table of Markdown."""
        return markdown(COLUMNS, self.rows()) + f"\n{self.note()}\n"

    def save(self, directory: str | Path) -> Path:
        """Write ``attacks.json`` and ``attacks.md``, each whole or not at all.

        Returns:
            The directory.
        """
        directory = Path(directory)
        write_json(directory / "attacks.json", self.to_dict())
        write_text(directory / "attacks.md", self.to_markdown())
        return directory

    def _of_known(self, values: Sequence[bool]) -> list[bool]:
        return [value for value, known in zip(values, self.known, strict=False) if known]

    def _outcome_dict(self, one: Outcome) -> dict[str, Any]:
        if one.refusal is not None:
            return {"title": one.title, "refusal": one.refusal}
        control = self.controls.get(one.attack)
        ids = [secret.id for secret in self.secrets]
        return {
            "title": one.title,
            "how": one.how,
            "seconds": one.seconds,
            "rate": self.rates[one.attack].to_dict(),
            "control": None if control is None else control.to_dict(),
            "secrets": {
                id: attempt.to_dict() for id, attempt in zip(ids, one.attempts, strict=True)
            },
        }


COLUMNS = ("attack", "found", "with another subject", "seconds", "candidates")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
