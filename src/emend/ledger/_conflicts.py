"""Which edits want different things of one statement."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from emend.edits import Edit
from emend.errors import Conflict

STATEMENT = "edits want different targets for one statement, expected one target"
AT_ONCE = "they came in at once: keep one of them"

_MOST_SHOWN = 20


class Keys(NamedTuple):
    """The normalised forms of an edit: of its whole text, subject, relation and target."""

    text: str
    subject: str
    relation: str | None
    target: str


def normalised(text: str) -> str:
    """A text in Unicode's form NFKC, without regard to case and to how it is spaced."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def keys_of(edit: Edit) -> Keys:
    """What an edit is compared by."""
    relation = None if edit.relation is None else normalised(edit.relation)
    return Keys(normalised(edit.text), normalised(edit.subject), relation, normalised(edit.target))


def conflicting(edits: Iterable[Edit]) -> tuple[tuple[Edit, Edit], ...]:
    """Pairs that want different targets for one statement.

    One statement is the same subject and relation, where both have a relation, or the same text;
    all compared by their normalised forms.

    Returns:
        Pairs in the order of the edits, the earlier edit first. Each edit stands beside the first
        that wants something else, not beside all: their number grows as that of the edits.
    """
    groups: dict[tuple[str, ...], list[tuple[Edit, str]]] = {}
    pairs: dict[tuple[str, str], tuple[Edit, Edit]] = {}
    for edit in edits:
        keys = keys_of(edit)
        statements: list[tuple[str, ...]] = [(keys.text,)]
        if keys.relation is not None:
            statements.append((keys.subject, keys.relation))
        for statement in statements:
            # The first edit, and the first whose target is not the first one's.
            group = groups.setdefault(statement, [(edit, keys.target)])
            different = [other for other, target in group if target != keys.target]
            if different and different[0].id != edit.id:
                pairs[different[0].id, edit.id] = (different[0], edit)
            if different and len(group) == 1:
                group.append((edit, keys.target))
    return tuple(pairs.values())


def conflict(pairs: Iterable[tuple[Edit, Edit]], what: str, mend: str) -> Conflict:
    """The error that shows both edits of each pair.

    Args:
        pairs: The older and the newer edit.
        what: What is wrong with a pair, and what is expected.
        mend: What can be done about it.
    """
    pairs = tuple(pairs)
    lines = [
        f"{older.id!r} ({_shown(older)}) against {newer.id!r} ({_shown(newer)})"
        for older, newer in pairs[:_MOST_SHOWN]
    ]
    if len(pairs) > len(lines):
        lines.append(f"... and {len(pairs) - len(lines)} more")
    if len(pairs) == 1:
        return Conflict(f"{what}: {lines[0]}: {mend}", pairs)
    return Conflict("\n".join([f"{len(pairs)} pairs of {what}: {mend}", *lines]), pairs)


def _shown(edit: Edit) -> str:
    return repr(shortened(f"{edit.text} -> {edit.target.strip()}", 100))


def shortened(text: str, longest: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
