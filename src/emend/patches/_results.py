"""What a patch did: the outcome of each edit, and the blast radius (what else it changed)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
"""Groups of probes in the order shown, each with its singular and plural."""

_SHOWN = 3


@dataclass(frozen=True)
class Outcome:
    """What one edit did, measured on its exact text.

    Attributes:
        edit: The edit's id.
        text: The prompt with its subject.
        target: What the model should generate after it.
        took: Whether the edited model generates the target.
        before: Probability of the whole target before the edit, from 0 to 1; None where the model
            gives none (an endpoint).
        after: The same after it.
        generated: What the edited model generates after the text.
        bare: What it generates without the start token, where the text begins with the subject
            and emend puts a start token in front; else None.
        reason: Why the edit likely did not take; empty where it took.
        remedy: What to try then.
        language: The edit's language, if known.
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
    """Rebuild outcomes from `Outcome.to_dict`.

    Raises:
        TypeError: A field is unknown or missing.
    """
    return tuple(Outcome(**record) for record in records)


def edits_taken(outcomes: Sequence[Outcome]) -> dict[str, bool]:
    """Return whether each edit took, by id: in all its languages where it has several."""
    found: dict[str, bool] = {}
    for one in outcomes:
        id_ = one.translation_of or one.edit
        found[id_] = one.took and found.get(id_, True)
    return found


def outcome_summary(outcomes: Sequence[Outcome]) -> str:
    """State how many edits took, and where there are translations how many statements did."""
    edits = edits_taken(outcomes)
    line = f"{sum(edits.values())} of {len(edits)} edit{'s' * (len(edits) != 1)} took"
    if len(edits) == len(outcomes):
        return line
    took = sum(one.took for one in outcomes)
    return f"{line} in every language ({took} of {len(outcomes)} statements)"


@dataclass(frozen=True)
class Finding:
    """What the model generates after one probe's prompt, before and after the edits.

    Attributes:
        edit: Id of the edit whose probe it is.
        group: The probe's group.
        about: The neighbour, where the prompt is the edit's own with another subject; else "".
        prompt: The text that was continued.
        before: The short greedy continuation of the unedited model; None for rephrasings, which
            only the edited model is asked.
        after: That of the edited model.
        good: Whether the answer is right: the same as before; for a rephrasing, the target.
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
        """Return the cells of a table row: kind, prompt, answer before and answer after."""
        before = "" if self.before is None else _text(self.before)
        return TITLES[self.group][0], _ending(self.prompt), before, _text(self.after)


@brief
@dataclass(frozen=True)
class BlastRadius:
    """What edits changed beyond what they were made for.

    Attributes:
        asked: How many probes of each group were asked.
        findings: The wrong answers: those that changed, and rephrasings that do not state the
            target.
        perplexity_before: Perplexity of plain text before the edits; None where not measured.
        perplexity_after: The same after them.
        edits: Number of edits.
        edits_probed: Number of edits that were probed.
        made: Whether emend made probes, for edits that had none.
        without: Number of edits without probes because emend makes none in their language, by
            language tag ("und": unknown).
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
        """Return the number of wrong answers in a group."""
        return sum(one.group == group for one in self.findings)

    @property
    def perplexity_change(self) -> float | None:
        """Relative change of the perplexity of plain text: 0.01 is an increase of one percent."""
        before, after = self.perplexity_before, self.perplexity_after
        if before is None or after is None or not math.isfinite(before):
            return None
        return after / before - 1

    def sentences(self, shown: int = _SHOWN) -> list[str]:
        """Describe the changes: one sentence per group of probes, and one on plain text.

        Args:
            shown: Number of findings that a sentence names; 0 for counts only.
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
        """Pick up to `most` findings, taking groups in turn; return them group by group."""
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
        """Return one line with the number of probes and of edits."""
        count = count_text(sum(self.asked.values()), "probe")
        by = " made by emend" if self.made else ""
        if self.edits_probed < self.edits:
            return f"{count}{by} for a sample of {self.edits_probed} of {self.edits} edits"
        return f"{count}{by} for {count_text(self.edits, 'edit')}"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data, including the sentences."""
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
    """Rebuild a blast radius from `BlastRadius.to_dict`; None for None.

    Raises:
        TypeError: A field is unknown or missing.
    """
    if record is None:
        return None
    derived = ("changed", "perplexity_change", "sentences", "findings")
    fields = {name: value for name, value in record.items() if name not in derived}
    return BlastRadius(**fields, findings=tuple(Finding(**one) for one in record["findings"]))


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
    """Count findings by group and store the wrong answers; see `BlastRadius`.

    Args:
        findings: One for each probe that was asked.
        groups: Groups to report even if none of their probes was asked.
        perplexities: Of plain text, before and after.
        edits: Number of edits.
        edits_probed: Number of edits that were probed.
        made: Whether emend made probes.
        without: See `BlastRadius`.
    """
    findings = tuple(findings)
    asked = dict.fromkeys(groups, 0)
    for one in findings:
        asked[one.group] = asked.get(one.group, 0) + 1
    bad = tuple(one for one in findings if not one.good)
    return BlastRadius(asked, bad, *perplexities, edits, edits_probed, made, without or {})


def _ending(prompt: str, most: int = 70) -> str:
    """Return the end of a prompt: the front of a chat is only its template."""
    text = " ".join(prompt.split())
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _text(text: str) -> str:
    return short_answer(text) or shortened(" ".join(text.split()), 40)
