"""From the edits of a ledger to proposals of what they entail, kept with what they came from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from emend import models
from emend.edits.answers import first_phrase
from emend.edits.joining import joined
from emend.errors import InvalidInput
from emend.ledger import LIVE, Entry, Ledger
from emend.ledger.entailment import Ask, Derived, Skipped, entail
from emend.ledger.rules import Rules
from emend.ledger.store import LONGEST_NOTE

TAG = "derived"
"""What marks derived edits in a ledger."""

ANSWER_TOKENS = 12
"""The longest answer of a model that is read."""


@dataclass(frozen=True)
class Expansion:
    """What was proposed in a ledger, and what was not.

    Attributes:
        proposed: The new entries, each with its parent; in the order in which they were added.
        derived: How each of them was derived, in the same order.
        skipped: What was left out, with reasons.
    """

    proposed: tuple[Entry, ...]
    derived: tuple[Derived, ...]
    skipped: tuple[Skipped, ...]


def expand(
    ledger: Ledger,
    rules: Rules,
    model: Any = None,
    tokenizer: Any = None,
    *,
    ids: Iterable[str] | None = None,
    accept: bool = False,
    depth: int = 1,
    author: str = "",
) -> Expansion:
    """Propose the edits that edits of a ledger entail.

    Each is added with the edit that it follows from as its parent: what takes out the parent takes
    it out too. Proposals are not built until they are accepted. Expanding again adds only what is
    new.

    Args:
        ledger: The ledger.
        rules: What follows from what.
        model: The unedited model, asked for what no active edit says; None asks nobody.
        tokenizer: Its tokenizer.
        ids: Which edits to start from; by default the active ones that are not derived.
        accept: Make what follows active at once.
        depth: How many steps, as for :func:`entail`.
        author: Who does it.

    Raises:
        InvalidInput: No edits to start from, one that was taken out, a model without a tokenizer,
            or what `entail` refuses.
        UnknownName: There is no edit with such an id.
    """
    if (model is None) != (tokenizer is None):
        raise InvalidInput("a model or a tokenizer is given, expected both or none: give the other")
    entries = _chosen(ledger, ids, accept)
    known = [entry.edit for entry in ledger.entries(status="active")]
    ask = None if model is None else asker(model, tokenizer)
    edits = [entry.edit for entry in entries]
    found = entail(edits, rules, ask=ask, known=known, depth=depth)
    fresh, waiting, skipped = _sorted_out(found.derived, ledger, accept)
    proposed: list[Entry] = []
    if waiting:
        ledger.accept(*waiting, author=author)
    for parent, rule, because, group in _groups(fresh):
        proposed += ledger.add(
            [each.edit for each in group],
            author=author,
            reason=f"follows from {parent} ({rule})",
            source=because[:LONGEST_NOTE],
            tags=(TAG,),
            status="active" if accept else "proposed",
            parent=parent,
        )
    kept = {each.edit.id: each for each in found.derived if each.edit.id in waiting}
    proposed = [ledger.entry(id) for id in kept] + proposed
    return Expansion(tuple(proposed), (*kept.values(), *fresh), (*found.skipped, *skipped))


def asker(model: Any, tokenizer: Any) -> Ask:
    """Make what asks the unedited model: it gives the greedy answer and its probability.

    An answer ends before the end of a sentence, a comma or a line's end. Its probability is the
    product over its tokens, from 0 to 1; that of no answer is 0.

    Args:
        model: The model; patches attached to it are suspended for each question.
        tokenizer: Its tokenizer.
    """

    def ask(prompt: str) -> tuple[str, float]:
        with models.base(model):
            text = models.generate(
                model, tokenizer, [prompt], max_new_tokens=ANSWER_TOKENS, stop="\n"
            )[0]
            answer = first_phrase(text)
            if not answer:
                return "", 0.0
            score = models.score(model, tokenizer, [prompt], [answer])[0]
        return answer, math.exp(score.total)

    return ask


def _chosen(ledger: Ledger, ids: Iterable[str] | None, accept: bool) -> list[Entry]:
    """Select the entries to start from."""
    if ids is None:
        entries = [each for each in ledger.entries(status="active") if each.parent is None]
        if not entries:
            raise InvalidInput("no edits are active, expected at least one: add some, or name ids")
        return entries
    entries = [ledger.entry(id) for id in dict.fromkeys(ids)]
    if not entries:
        raise InvalidInput("no ids were given, expected at least one: there is nothing to expand")
    fit = ("active",) if accept else LIVE
    for entry in entries:
        if entry.status not in fit:
            remedy = "accept it first" if entry.status == "proposed" else "restore it first"
            raise InvalidInput(
                f"edit {entry.id!r} is {entry.status}, expected {' or '.join(fit)}: {remedy}"
            )
    return entries


def _sorted_out(
    derived: Sequence[Derived], ledger: Ledger, accept: bool
) -> tuple[list[Derived], list[str], list[Skipped]]:
    """Sort out what is new, ids of waiting proposals that are accepted now, and what is left out.

    What was taken out by hand is not proposed again, nor what would follow from it.
    """
    there = {entry.id: entry for entry in ledger.entries()}
    fresh: list[Derived] = []
    waiting: list[str] = []
    skipped: list[Skipped] = []
    out: set[str] = set()
    for each in derived:
        entry = there.get(each.edit.id)
        reason = "" if entry is None else _why_not(entry, each, accept)
        if each.parent in out:
            reason = f"{each.parent}, from which it follows, is not in the ledger"
        if reason:
            live = entry is not None and entry.status in LIVE
            out |= set() if live else {each.edit.id}
            text, target = each.edit.text, each.edit.target.strip()
            skipped.append(Skipped(each.parent, each.rule, text, target, reason))
        elif entry is not None:
            waiting.append(entry.id)
        else:
            fresh.append(each)
    return fresh, waiting, skipped


def _why_not(entry: Entry, derived: Derived, accept: bool) -> str:
    """Return why an entry excludes a derived edit of its id; empty: accept the entry."""
    there, edit = entry.edit, derived.edit
    if (there.text, there.target.strip()) != (edit.text, edit.target.strip()):
        said = joined(there.text, there.target)
        return f"an edit with its id ({entry.status}) says {said!r}"
    if entry.status == "proposed":
        return "" if accept else "it is proposed already: accept it"
    return f"it was {entry.status}: restore it where it is wanted"


def _groups(derived: Sequence[Derived]) -> Iterator[tuple[str, str, str, list[Derived]]]:
    """Group neighbouring derived edits that have parent, rule and reason in common."""

    def together(each: Derived) -> tuple[str, str, str]:
        return each.parent, each.rule, each.because

    for (parent, rule, because), group in groupby(derived, together):
        yield parent, rule, because, list(group)
