"""Measure the blast radius of a patch: its probes before and after it, and plain text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from emend import models
from emend._validate import choice_fault, refuse
from emend.edits import GROUPS, Edit, Probe, statements_of, states_answer
from emend.edits.answers import same_reply
from emend.patches import BlastRadius, Finding, Patch, blast_of
from emend.probes._asking import NEW_TOKENS, Asker
from emend.probes._data import plain_text
from emend.probes._languages import ENGLISH, language_of, languages
from emend.probes._make import made_for

Source = Literal["auto", "given", "none"]
SOURCES: tuple[Source, ...] = ("auto", "given", "none")
"""The probes that are asked: given ones, and made ones for edits without (auto); given; none."""

MOST_EDITS = 20
"""The largest number of edits that are probed; of more a sample is taken."""

MADE = ("rephrase", "neighborhood", "relation_specificity", "forgetfulness")
"""Groups of the probes that emend makes."""

Perplexities = tuple[float | None, float | None]
"""Of plain text, before and after; None where not measured."""

_ASKED = (*GROUPS["rephrase"], *GROUPS["locality"])


def check_source(probes: str) -> None:
    """Refuse a word that is none of `SOURCES`.

    Raises:
        InvalidInput: It is none.
    """
    refuse("probes", choice_fault(probes, SOURCES))


def with_probes(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    probes: str = "auto",
    *,
    batch_size: int = 48,
) -> list[Edit]:
    """Return edits with the probes that are to be asked, translations as edits of their own.

    Args:
        model: The causal language model; patches attached to it do not act.
        tokenizer: Its tokenizer.
        edits: The edits.
        probes: "auto" makes probes for edits that have none, for at most `MOST_EDITS` of them (not
            for an endpoint, where each costs a request and returns no probability), "given"
            leaves edits as they are, "none" removes their probes.
        batch_size: Prompts in one forward pass.

    Raises:
        InvalidInput: `probes` is another word.
    """
    check_source(probes)
    edits = statements_of(edits)
    if probes == "none":
        return [replace(edit, probes=()) for edit in edits]
    if probes == "given":
        return list(edits)
    with models.base(model):
        return _filled(Asker(model, tokenizer, batch_size), edits, edits)


def blast_radius(
    model: nn.Module,
    tokenizer: Any,
    patch: Patch,
    probes: str = "auto",
    *,
    edits: Iterable[Edit] | None = None,
    batch_size: int = 48,
) -> BlastRadius | None:
    """Measure what else a patch changes, by short greedy replies to probes before and after it.

    Args:
        model: The model that the patch is for; patches attached to it do not act.
        tokenizer: Its tokenizer.
        patch: The patch.
        probes: See `with_probes`; those of the groups `rephrase` and of locality are asked.
        edits: The edits to probe, by default the patch's; of more than `MOST_EDITS` a sample.
        batch_size: Prompts in one forward pass; the result does not depend on it.

    Returns:
        The changes; None without probes or edits.

    Raises:
        InvalidInput: `probes` is another word.
    """
    check_source(probes)
    edits = statements_of(patch.edits if edits is None else edits)
    if probes == "none" or not edits:
        return None
    chosen = _sampled(edits)
    made = probes == "auto" and not isinstance(model, models.Endpoint)
    made = made and any(not edit.probes for edit in edits)
    with models.base(model):
        before = Asker(model, tokenizer, batch_size)
        if probes == "auto":
            chosen = _filled(before, chosen, patch.edits)
        return _measured(before, patch, chosen, len(edits), made)


def _measured(
    before: Asker, patch: Patch, chosen: Sequence[Edit], count: int, made: bool
) -> BlastRadius | None:
    """Ask the probes of the chosen edits, of `count` in all, without and with a patch."""
    model, tokenizer = before.model, before.tokenizer
    pairs = [(edit, probe) for edit in chosen for probe in edit.probes if probe.group in _ASKED]
    if not pairs and not made:
        return None
    probes = [probe for _, probe in pairs]
    length = _new_tokens(tokenizer, probes)
    before.ask((one.prompt for one in probes if one.group not in GROUPS["rephrase"]), length)
    old = plain_perplexity(model, tokenizer)
    with patch.applied(model):
        after = Asker(model, tokenizer, before.batch_size)
        after.expect(_expected(before, probes))
        after.ask((probe.prompt for probe in probes), length)
        new = plain_perplexity(model, tokenizer)
    return blast_of(
        [
            _finding(edit, one, before.known(one.prompt), after.text(one.prompt))
            for edit, one in pairs
        ],
        groups=MADE if made else (),
        perplexities=(old, new),
        edits=count,
        edits_probed=len(chosen),
        made=made,
        without=_without(chosen) if made else None,
    )


def _finding(edit: Edit, probe: Probe, before: str | None, after: str) -> Finding:
    """Judge the texts generated before and after an edit.

    A rephrasing must state the target; otherwise the answer must be the same (`same_reply`).
    """
    if before is None or probe.group in GROUPS["rephrase"]:
        good = states_answer(after, probe.answers)
    else:
        good = same_reply(before, after, probe.answers)
    name = _neighbour(edit, probe.group, probe.prompt)
    return Finding(edit.id, probe.group, name, probe.prompt, before, after, good)


def _neighbour(edit: Edit | None, group: str, prompt: str) -> str:
    """Return the neighbour's name if the prompt is the edit's own with another subject; else ""."""
    if edit is None or group != "neighborhood":
        return ""
    front, _, end = edit.prompt.partition("{}")
    inner = prompt.removeprefix(front).removesuffix(end)
    return inner if front + inner + end == prompt and inner else ""


def radius_of_records(
    records: Iterable[Mapping[str, Any]],
    edits: Sequence[Edit] = (),
    *,
    perplexities: Perplexities = (None, None),
    made: bool = False,
) -> BlastRadius | None:
    """Compute the blast radius from the records of an evaluation.

    Args:
        records: See `emend.metrics.Report`.
        edits: The edits that were evaluated.
        perplexities: Of plain text, before and after.
        made: Whether emend made probes.

    Returns:
        The changes; None if no probe was asked.
    """
    edits = statements_of(edits)
    by_id = {edit.id: edit for edit in edits}
    findings = [
        _finding_of_record(record, by_id.get(record["edit"]))
        for record in records
        if record["group"] in _ASKED
    ]
    if not findings:
        return None
    return blast_of(
        findings,
        perplexities=perplexities,
        edits=max(len({record["edit"] for record in records}), len(edits)),
        edits_probed=len({one.edit for one in findings}),
        made=made,
        without=_without(edits) if made else None,
    )


def _finding_of_record(record: Mapping[str, Any], edit: Edit | None) -> Finding:
    return Finding(
        record["edit"],
        record["group"],
        _neighbour(edit, record["group"], record["prompt"]),
        record["prompt"],
        record["text_before"],
        record["text_after"],
        record["protocols"]["exact_match"]["after"] == 1.0,
    )


def _without(edits: Iterable[Edit]) -> dict[str, int]:
    """Count the edits without probes in languages in which emend makes none, by language tag."""
    tags = [language_of(edit) for edit in edits if not edit.probes]
    return dict(Counter(tag for tag in tags if tag != ENGLISH and tag not in languages()))


def _sampled(edits: Sequence[Edit]) -> list[Edit]:
    """Return at most `MOST_EDITS` edits, evenly spaced."""
    if len(edits) <= MOST_EDITS:
        return list(edits)
    return [edits[number * len(edits) // MOST_EDITS] for number in range(MOST_EDITS)]


def _filled(asker: Asker, edits: Sequence[Edit], others: Iterable[Edit]) -> list[Edit]:
    """Return the edits, with made probes for those without; an endpoint's as they are."""
    if isinstance(asker.model, models.Endpoint):
        return list(edits)
    bare = _sampled([edit for edit in edits if not edit.probes])
    made = dict(zip((edit.id for edit in bare), made_for(asker, bare, others), strict=True))
    return [replace(edit, probes=made.get(edit.id, edit.probes)) for edit in edits]


def _expected(before: Asker, probes: Iterable[Probe]) -> dict[str, str]:
    """Return the answer that each prompt should have: the one before, or a rephrasing's target."""
    found: dict[str, str] = {}
    for probe in probes:
        known = probe.group not in GROUPS["rephrase"] and before.answer(probe.prompt)
        found[probe.prompt] = known or probe.answers[0]
    return found


def _new_tokens(tokenizer: Any, probes: Iterable[Probe]) -> int:
    """Return the tokens that hold the longest answer, and one more to see where it ends."""
    answers = {answer for probe in probes for answer in probe.answers}
    longest = max((_tokens(tokenizer, answer) for answer in answers), default=0)
    return max(NEW_TOKENS, longest + 1)


def _tokens(tokenizer: Any, text: str) -> int:
    if tokenizer is None:  # for an endpoint
        return len(text) // 2 + 1
    return len(tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"])


def plain_perplexity(model: nn.Module, tokenizer: Any) -> float | None:
    """Return the perplexity of a few ordinary sentences; None for an endpoint, which has none."""
    if isinstance(model, models.Endpoint):
        return None
    return models.perplexity(model, tokenizer, plain_text())
