"""Lists of edits: their statements in each language, and the one definition of a conflict.

Two edits are for the same statement if their filled-in texts are equal, however each is split into
prompt and subject, or if both have a relation and subject and relation are equal (all compared as
`normalised`). They conflict if

- their targets differ: only one can be generated; or
- text and target are equal under two ids: the same edit would be written twice.

Two wordings of one fact (another text, the same target) do not conflict.

An edit with translations is one edit with one id, made as one statement in each language. Whether
an edit in one language shows in another is up to the model: in larger ones hardly, as their edit
vectors are nearly orthogonal (CLM-Bench, arXiv 2601.17397). Methods, patches and outcomes see plain
edits only, as `statements_of` returns them; each has the id of its edit (`Edit.translation_of`), so
that a patch takes out all of them together. Each statement is compared; those of one edit do not
conflict with one another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from emend._validate import shortened
from emend.edits._edit import Edit, normalised
from emend.errors import Conflict, InvalidInput

_MOST_SHOWN = 20
_TARGETS = "edits want different targets for one statement, expected one target"
_TWICE = "edits are the same under two ids, expected each once"
_BOTH = "edits are for the same statement, expected one edit of each"


def statements_of(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """List the statements of edits: each edit without its translations, then these."""
    return tuple(
        statement
        for edit in edits
        for statement in (
            (replace(edit, translations=()), *edit.translations) if edit.translations else (edit,)
        )
    )


def group_of(edit: Edit) -> str:
    """Return the id of the edit that a statement belongs to; a plain edit's own."""
    return edit.translation_of or edit.id


def with_translations(edits: Iterable[Edit], ids: Iterable[str]) -> tuple[str, ...]:
    """Return ids, each followed by those of its translations among some edits."""
    edits = tuple(edits)
    return tuple(
        dict.fromkeys(
            found
            for id_ in ids
            for found in (id_, *(each.id for each in edits if each.translation_of == id_))
        )
    )


def check_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return the edits as a tuple.

    Raises:
        InvalidInput: No edits, something else than edits, or two with the same id.
    """
    checked = tuple(edits)
    if not checked:
        raise InvalidInput("no edits were given, expected at least one: nothing to change")
    seen: set[str] = set()
    for edit in checked:
        if not isinstance(edit, Edit):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(
                f"an edit is a {type(edit).__name__}, expected emend.Edit: "
                "read them with emend.read_edits"
            )
        for statement in statements_of([edit]):
            if statement.id in seen:
                raise InvalidInput(
                    f"two edits have the id {statement.id!r}, expected different ones: "
                    "remove one or give it an id of its own"
                )
            seen.add(statement.id)
    return checked


class Keys(NamedTuple):
    """The normalised text, subject, relation and target of an edit."""

    text: str
    subject: str
    relation: str | None
    target: str


def keys_of(edit: Edit) -> Keys:
    """Return the texts by which an edit is compared."""
    relation = None if edit.relation is None else normalised(edit.relation)
    return Keys(normalised(edit.text), normalised(edit.subject), relation, normalised(edit.target))


def conflicting(edits: Iterable[Edit]) -> tuple[tuple[Edit, Edit], ...]:
    """Find pairs of edits that conflict; see the head of this file.

    Returns:
        Pairs in the order of the edits, the earlier edit first. Each edit is paired with the first
        that it conflicts with, not with all, so that the number of pairs is linear.
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
    """Build the error that shows both edits of each pair.

    Args:
        pairs: The older and the newer edit.
        remedy: What the user can do about it.
        what: The fault of each pair and what is expected; `reason_of` by default.
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
    """Return the fault of two edits that conflict, and what is expected."""
    return _TWICE if normalised(older.target) == normalised(newer.target) else _TARGETS


def _shown(edit: Edit) -> str:
    return repr(shortened(f"{edit.text} -> {edit.target.strip()}", 100))


def check_conflicts(edits: Iterable[Edit]) -> None:
    """Refuse edits that conflict; see `conflicting`.

    Raises:
        Conflict: Two want different targets for one statement, or are the same under two ids.
    """
    if pairs := conflicting(edits):
        raise conflict(pairs, "keep one of them (`emend convert --distinct` keeps the first)")


def continued(previous: Iterable[Edit], edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Join earlier and new edits; where they conflict or share an id, the new one replaces the old.

    Edits are replaced as a whole: if a new one conflicts with one language of an earlier edit, all
    its translations go with it.
    """
    edits, previous = tuple(edits), statements_of(previous)
    groups = {group_of(edit) for edit in edits}
    keys = [keys_of(edit) for edit in statements_of(edits)]
    texts = {one.text for one in keys}
    targets: dict[tuple[str, str | None], set[str]] = {}
    for one in keys:
        if one.relation:
            targets.setdefault((one.subject, one.relation), set()).add(one.target)

    def stays(edit: Edit) -> bool:
        own = keys_of(edit)
        wanted = targets.get((own.subject, own.relation), {own.target})
        return group_of(edit) not in groups and own.text not in texts and wanted == {own.target}

    gone = {group_of(edit) for edit in previous if not stays(edit)}
    return (*(edit for edit in previous if group_of(edit) not in gone), *edits)
