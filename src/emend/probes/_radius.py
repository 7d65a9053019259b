"""Measuring the blast radius of a patch: its probes before and after, and plain text."""

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
"""Which probes are asked: given ones, and made ones for edits without (auto); given ones alone;
none."""

MOST_EDITS = 20
"""Edits that are probed; of more a sample is taken."""

MADE = ("rephrase", "neighborhood", "relation_specificity", "forgetfulness")
"""Groups of the probes that emend makes."""

_ASKED = (*GROUPS["rephrase"], *GROUPS["locality"])


def check_source(probes: str) -> None:
    """Refuse a word that says not which probes are asked.

    Raises:
        InvalidInput: It is none of `SOURCES`.
    """
    refuse("probes", choice_fault(probes, SOURCES))


def with_probes(
    model: nn.Module,
    tokenizer: Any,
    edits: Sequence[Edit],
    probes: str = "auto",
    *,
    most: int = MOST_EDITS,
    batch_size: int = 48,
) -> list[Edit]:
    """Return edits with the probes that are to be asked, translations as edits of their own.

    Args:
        model: The causal language model; patches attached to it do not act.
        tokenizer: Its tokenizer.
        edits: The edits.
        probes: "auto" makes probes for edits that have none (not for an endpoint, where each
            costs a request and gives no probability), "given" leaves edits as they are, "none"
            takes their probes away.
        most: Make probes for a sample of so many edits at most.
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
        return _filled(Asker(model, tokenizer, batch_size), edits, edits, most)


def blast_radius(
    model: nn.Module,
    tokenizer: Any,
    patch: Patch,
    probes: str = "auto",
    *,
    edits: Iterable[Edit] | None = None,
    most: int = MOST_EDITS,
    batch_size: int = 48,
) -> BlastRadius | None:
    """Measure what else a patch changes.

    Probes of the groups `rephrase` and of locality are asked before and after the patch, by
    short greedy continuations. An answer changed where its words did (`same_reply`); a
    rephrasing is as it should be where the edited model states the target.

    Args:
        model: The model that the patch is for; what is attached to it does not act here.
        tokenizer: Its tokenizer.
        patch: The patch.
        probes: Which probes are asked: "auto" (those of the edits, and made ones for edits that
            have none), "given" or "none".
        edits: The edits to probe, with their probes; by default those that the patch holds.
        most: Probe a sample of so many edits at most.
        batch_size: Prompts in one forward pass; the result does not depend on it.

    Returns:
        What changed; None for "none", for "given" where no probes are, and where there are no
        edits.

    Raises:
        InvalidInput: `probes` is another word.
    """
    check_source(probes)
    edits = statements_of(patch.edits if edits is None else edits)
    if probes == "none" or not edits:
        return None
    chosen = sampled(edits, most)
    with models.base(model):
        before = Asker(model, tokenizer, batch_size)
        if probes == "auto":
            chosen = _filled(before, chosen, patch.edits, most)
        pairs = [(e, probe) for e in chosen for probe in e.probes if probe.group in _ASKED]
        made = probes == "auto" and not isinstance(model, models.Endpoint)
        made = made and any(not edit.probes for edit in edits)
        if not pairs and not made:
            return None
        length = _new_tokens(tokenizer, [probe for _, probe in pairs])
        before.ask((p.prompt for _, p in pairs if p.group not in GROUPS["rephrase"]), length)
        old = plain_perplexity(model, tokenizer)
        with patch.applied(model):
            after = Asker(model, tokenizer, batch_size)
            after.expect(_expected(before, [probe for _, probe in pairs]))
            after.ask((probe.prompt for _, probe in pairs), length)
            new = plain_perplexity(model, tokenizer)
    findings = [
        finding_of(edit, probe, before.known(probe.prompt), after.text(probe.prompt))
        for edit, probe in pairs
    ]
    return blast_of(
        findings,
        groups=MADE if made else (),
        perplexities=(old, new),
        edits=len(edits),
        edits_probed=len(chosen),
        made=made,
        without=_without(chosen) if made else None,
    )


def finding_of(edit: Edit, probe: Probe, before: str | None, after: str) -> Finding:
    """Judge what is generated after a probe's prompt before and after an edit."""
    if before is None or probe.group in GROUPS["rephrase"]:
        good = states_answer(after, probe.answers)
    else:
        good = same_reply(before, after, probe.answers)
    name = about(edit, probe.group, probe.prompt)
    return Finding(edit.id, probe.group, name, probe.prompt, before, after, good)


def about(edit: Edit, group: str, prompt: str) -> str:
    """Return the neighbour whose prompt is the edit's own with its name; "" for others."""
    if group != "neighborhood":
        return ""
    front, _, end = edit.prompt.partition("{}")
    inner = prompt.removeprefix(front).removesuffix(end)
    return inner if front + inner + end == prompt and inner else ""


def radius_of_records(
    records: Iterable[Mapping[str, Any]],
    edits: Sequence[Edit] = (),
    *,
    perplexities: tuple[float | None, float | None] = (None, None),
    made: bool = False,
) -> BlastRadius | None:
    """Read the blast radius out of the records of an evaluation.

    Args:
        records: See `emend.metrics.Report`.
        edits: The edits that were evaluated.
        perplexities: Of plain text, before and after.
        made: Whether emend made probes.

    Returns:
        What changed; None where no probe was asked.
    """
    edits = statements_of(edits)
    by_id = {edit.id: edit for edit in edits}
    findings = [
        Finding(
            record["edit"],
            record["group"],
            about(by_id[record["edit"]], record["group"], record["prompt"])
            if record["edit"] in by_id
            else "",
            record["prompt"],
            record["text_before"],
            record["text_after"],
            record["protocols"]["exact_match"]["after"] == 1.0,
        )
        for record in records
        if record["group"] in _ASKED
    ]
    if not findings:
        return None
    probed = len({one.edit for one in findings})
    count = max(len({record["edit"] for record in records}), len(edits))
    return blast_of(
        findings,
        perplexities=perplexities,
        edits=count,
        edits_probed=probed,
        made=made,
        without=_without(edits) if made else None,
    )


def _without(edits: Iterable[Edit]) -> dict[str, int]:
    """How many edits have no probes since emend has none in their language, by its tag."""
    tags = [language_of(edit) for edit in edits if not edit.probes]
    return dict(Counter(tag for tag in tags if tag != ENGLISH and tag not in languages()))


def sampled(edits: Sequence[Edit], most: int) -> list[Edit]:
    """Take at most so many edits, evenly over all of them."""
    if len(edits) <= most:
        return list(edits)
    return [edits[number * len(edits) // most] for number in range(most)]


def _filled(asker: Asker, edits: Sequence[Edit], others: Iterable[Edit], most: int) -> list[Edit]:
    """Edits with made probes where they have none; an endpoint's as they are."""
    if isinstance(asker.model, models.Endpoint):
        return list(edits)
    bare = sampled([edit for edit in edits if not edit.probes], most)
    made = dict(zip((edit.id for edit in bare), made_for(asker, bare, others), strict=True))
    return [replace(edit, probes=made.get(edit.id, edit.probes)) for edit in edits]


def _expected(before: Asker, probes: Iterable[Probe]) -> dict[str, str]:
    """What each prompt's answer is if all is well: that of before, or a rephrasing's target."""
    found: dict[str, str] = {}
    for probe in probes:
        known = probe.group not in GROUPS["rephrase"] and before.answer(probe.prompt)
        found[probe.prompt] = known or probe.answers[0]
    return found


def _new_tokens(tokenizer: Any, probes: Iterable[Probe]) -> int:
    """How many tokens hold the answers of all probes, and one more to see where they end."""
    answers = {answer for probe in probes for answer in probe.answers}
    longest = max((_tokens(tokenizer, answer) for answer in answers), default=0)
    return max(NEW_TOKENS, longest + 1)


def _tokens(tokenizer: Any, text: str) -> int:
    if tokenizer is None:  # of an endpoint
        return len(text) // 2 + 1
    return len(tokenizer(f" {text.strip()}", add_special_tokens=False)["input_ids"])


def plain_perplexity(model: nn.Module, tokenizer: Any) -> float | None:
    """Return the perplexity of a few ordinary sentences; None of an endpoint, which gives none."""
    if isinstance(model, models.Endpoint):
        return None
    return models.perplexity(model, tokenizer, plain_text())
