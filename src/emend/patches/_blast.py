"""The blast radius of edits: what else changed, as counts, findings and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from emend._brief import brief, count_text
from emend._validate import shortened
from emend.edits.answers import short_answer

REPHRASE = "rephrase"
TITLES: Mapping[str, tuple[str, str]] = {
    "neighborhood": ("neighbour", "neighbours"),
    "relation_specificity": ("other fact of the subject", "other facts of the subject"),
    "forgetfulness": ("fact of the old object", "facts of the old object"),
    "distracting": ("fact after a distracting text", "facts after a distracting text"),
    REPHRASE: ("rephrasing", "rephrasings"),
}
"""Groups of probes in the order in which they are shown, and what one and several are called."""

_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """What the model generates after one probe's prompt, before and after the edits.

    Attributes:
        edit: Id of the edit whose probe it is.
        group: The probe's group.
        about: The neighbour, where the prompt is the edit's own with another subject; else "".
        prompt: The text that was continued.
        before: The short greedy continuation of the unedited model; None where it was not asked
            (of rephrasings).
        after: That of the edited model.
        good: Whether it is as it should be: the same answer as before; of a rephrasing, the
            target.
    """

    edit: str
    group: str
    about: str
    prompt: str
    before: str | None
    after: str
    good: bool

    def describe(self) -> str:
        """State what changed in a few words."""
        name = self.about or repr(_ending(self.prompt))
        before = "" if self.before is None else f"{_text(self.before)!r} -> "
        return f"{name}: {before}{_text(self.after)!r}"

    def cells(self) -> tuple[str, str, str, str]:
        """Return what it is, prompt, answer before and answer after, as short texts."""
        before = "" if self.before is None else _text(self.before)
        return TITLES[self.group][0], _ending(self.prompt), before, _text(self.after)


@brief
@dataclass(frozen=True)
class BlastRadius:
    """What edits changed beyond what they were made for.

    Attributes:
        asked: How many probes of each group were asked.
        findings: The probes that are not as they should be: changed answers, and rephrasings
            that do not state the target.
        perplexity_before: Perplexity of plain text before the edits; None where not measured.
        perplexity_after: The same after them.
        edits: How many edits there are.
        edits_probed: How many of them were probed.
        made: Whether emend made probes, for edits that had none.
        without: How many edits have no probes since emend has none in their language, by its tag
            ("und": not known).
    """

    asked: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    perplexity_before: float | None = None
    perplexity_after: float | None = None
    edits: int = 1
    edits_probed: int = 1
    made: bool = True
    without: Mapping[str, int] = field(default_factory=dict)

    def changed(self, group: str) -> int:
        """Return how many probes of a group are not as they should be."""
        return sum(one.group == group for one in self.findings)

    @property
    def perplexity_change(self) -> float | None:
        """Relative change of the perplexity of plain text: 0.01 is one percent more."""
        before, after = self.perplexity_before, self.perplexity_after
        if before is None or after is None or not math.isfinite(before):
            return None
        return after / before - 1

    def sentences(self, shown: int = _SHOWN) -> list[str]:
        """State what changed, a sentence for each group of probes and one for plain text.

        Args:
            shown: How many findings a sentence names; 0 for counts alone.
        """
        lines = [self._sentence(group, shown) for group in TITLES if group in self.asked]
        if self.without:
            tags = ", ".join(self.without)
            count = count_text(sum(self.without.values()), "edit")
            lines.append(
                f"no probes for {count} in other languages ({tags}): emend makes them in English, "
                "Chinese, Japanese, Spanish and Arabic; give the edits their own"
            )
        change = self.perplexity_change
        if change is not None:
            numbers = f"{self.perplexity_before:.4g} -> {self.perplexity_after:.4g}"
            lines.append(f"perplexity of plain text {100 * change:+.1f}% ({numbers})")
        return lines

    def _sentence(self, group: str, shown: int) -> str:
        one, several = TITLES[group]
        asked, changed = self.asked[group], self.changed(group)
        if not asked:
            return f"no {several}: the model answers none of those that emend knows"
        name = one if asked == 1 else several
        findings = [found for found in self.findings if found.group == group]
        named = "; ".join(found.describe() for found in findings[:shown])
        more = f"; and {changed - shown} more" if named and changed > shown else ""
        if group == REPHRASE:
            stated = f"{asked - changed} of {count_text(asked, one, several)}"
            state = "state" if asked > 1 else "states"
            return f"{stated} {state} the target" + (f"; not {named}{more}" if named else "")
        return f"{changed} of {asked} {name} changed" + (f": {named}{more}" if named else "")

    def most_telling(self, most: int) -> list[Finding]:
        """Take findings of each group in turn, up to a number; shown group by group."""
        ranks: dict[str, int] = {}
        ranked: list[tuple[int, int]] = []
        for place, one in enumerate(self.findings):
            ranks[one.group] = ranks.get(one.group, -1) + 1
            ranked.append((ranks[one.group], place))
        chosen = {place for _, place in sorted(ranked)[:most]}
        order = {group: number for number, group in enumerate(TITLES)}
        picked = [one for place, one in enumerate(self.findings) if place in chosen]
        return sorted(picked, key=lambda one: order[one.group])

    def summary(self) -> str:
        """State in one line how many probes were asked, and of how many edits."""
        count = count_text(sum(self.asked.values()), "probe")
        by = " made by emend" if self.made else ""
        if self.edits_probed < self.edits:
            return f"{count}{by} for a sample of {self.edits_probed} of {self.edits} edits"
        return f"{count}{by} for {count_text(self.edits, 'edit')}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data, with the sentences."""
        return {
            **asdict(self),
            "asked": dict(self.asked),
            "without": dict(self.without),
            "findings": [asdict(one) for one in self.findings],
            "changed": {group: self.changed(group) for group in self.asked},
            "perplexity_change": self.perplexity_change,
            "sentences": self.sentences(),
        }


def blast_from(record: Mapping[str, Any] | None) -> BlastRadius | None:
    """Read what `BlastRadius.to_dict` gave; None for None.

    Raises:
        TypeError: A field is not known, or missing.
    """
    if record is None:
        return None
    derived = ("changed", "perplexity_change", "sentences", "findings")
    kept = {name: value for name, value in record.items() if name not in derived}
    return BlastRadius(**kept, findings=tuple(Finding(**one) for one in record["findings"]))


def blast_of(
    findings: Iterable[Finding],
    *,
    groups: Iterable[str] = (),
    perplexities: tuple[float | None, float | None] = (None, None),
    edits: int = 1,
    edits_probed: int = 1,
    made: bool = True,
    without: Mapping[str, int] | None = None,
) -> BlastRadius:
    """Count findings and keep those that are not as they should be.

    Args:
        findings: One for each probe that was asked.
        groups: Groups to state although nothing of them was asked.
        perplexities: Of plain text, before and after.
        edits: How many edits there are.
        edits_probed: How many of them were probed.
        made: Whether emend made probes.
        without: How many edits have no probes since emend has none in their language, by its tag.
    """
    findings = tuple(findings)
    asked = dict.fromkeys(groups, 0)
    for one in findings:
        asked[one.group] = asked.get(one.group, 0) + 1
    bad = tuple(one for one in findings if not one.good)
    return BlastRadius(asked, bad, *perplexities, edits, edits_probed, made, without or {})


def _ending(prompt: str, most: int = 70) -> str:
    """The end of a prompt: that of a chat is what was begun, its front the template's."""
    text = " ".join(prompt.split())
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _text(text: str) -> str:
    return short_answer(text) or shortened(" ".join(text.split()), 40)
