"""Which edits are for the same statement: one definition for lists, patches and ledgers.

Texts are compared in Unicode's form NFKC, without regard to case and spacing. Two edits are for
the same statement where their filled-in texts are equal, however each is split into prompt and
subject, or where both have a relation and subject and relation are equal. They conflict where

- their targets differ: only one can be generated; or
- text and target are equal under two ids: the same edit would be written twice.

Two wordings of one fact (another text, the same target) do not conflict. Of an edit with
translations each statement is compared; those of one edit do not conflict with one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from emend._validate import shortened
from emend.edits._edit import Edit
from emend.edits._text import normalised
from emend.edits._translations import group_of, statements_of
from emend.errors import Conflict

_MOST_SHOWN = 20
_TARGETS = "edits want different targets for one statement, expected one target"
_TWICE = "edits are the same under two ids, expected each once"
_BOTH = "edits are for the same statement, expected one edit of each"


class Keys(NamedTuple):
    """The normalised forms of an edit: of its whole text, subject, relation and target."""

    text: str
    subject: str
    relation: str | None
    target: str


def keys_of(edit: Edit) -> Keys:
    """Return what an edit is compared by."""
    relation = None if edit.relation is None else normalised(edit.relation)
    return Keys(normalised(edit.text), normalised(edit.subject), relation, normalised(edit.target))


def conflicting(edits: Iterable[Edit]) -> tuple[tuple[Edit, Edit], ...]:
    """Find pairs of edits that cannot hold together; see the head of this file.

    Returns:
        Pairs in the order of the edits, the earlier edit first. Each edit is paired with the first
        that it conflicts with, not with all: so their number grows as that of the edits.
    """
    texts: dict[str, Edit] = {}
    relations: dict[tuple[str, str], list[tuple[Edit, str]]] = {}
    pairs: dict[tuple[str, str], tuple[Edit, Edit]] = {}

    def pair(first: Edit, edit: Edit) -> None:
        if group_of(first) != group_of(edit):
            pairs[first.id, edit.id] = (first, edit)

    for edit in edits:
        for keys in map(keys_of, statements_of([edit])):
            pair(texts.setdefault(keys.text, edit), edit)
            if keys.relation is None:
                continue
            # The first edit, and the first whose target is not the first one's.
            group = relations.setdefault((keys.subject, keys.relation), [(edit, keys.target)])
            different = [other for other, target in group if target != keys.target]
            if different:
                pair(different[0], edit)
            if different and len(group) == 1:
                group.append((edit, keys.target))
    return tuple(pairs.values())


def conflict(pairs: Iterable[tuple[Edit, Edit]], remedy: str, what: str = "") -> Conflict:
    """Make the error that shows both edits of each pair.

    Args:
        pairs: The older and the newer edit.
        remedy: What can be done about it.
        what: What is wrong with a pair, and what is expected; by default as `reason_of` says.
    """
    pairs = tuple(pairs)
    reasons = {reason_of(older, newer) for older, newer in pairs}
    what = what or (reasons.pop() if len(reasons) == 1 else _BOTH)
    lines = [
        f"{older.id!r} ({_shown(older)}) against {newer.id!r} ({_shown(newer)})"
        for older, newer in pairs[:_MOST_SHOWN]
    ]
    if len(pairs) > len(lines):
        lines.append(f"... and {len(pairs) - len(lines)} more")
    if len(pairs) == 1:
        return Conflict(f"{what}: {lines[0]}: {remedy}", pairs)
    return Conflict("\n".join([f"{len(pairs)} pairs of {what}: {remedy}", *lines]), pairs)


def reason_of(older: Edit, newer: Edit) -> str:
    """Return what is wrong with two edits that conflict, and what is expected."""
    return _TWICE if normalised(older.target) == normalised(newer.target) else _TARGETS


def _shown(edit: Edit) -> str:
    return repr(shortened(f"{edit.text} -> {edit.target.strip()}", 100))
