"""What a list of edits must be before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable

from emend.edits._edit import Edit
from emend.edits._statements import conflict, conflicting, keys_of
from emend.edits._translations import group_of, statements_of
from emend.errors import InvalidInput


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


def check_conflicts(edits: Iterable[Edit]) -> None:
    """Refuse edits of which two cannot hold together; see `conflicting`.

    Raises:
        Conflict: Two want different targets for one statement, or are the same under two ids.
    """
    if pairs := conflicting(edits):
        raise conflict(pairs, "keep one of them (`emend convert --distinct` keeps the first)")


def continued(previous: Iterable[Edit], edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Join earlier edits and new ones; where they conflict, or share an id, the new one stays.

    Edits go as a whole: where a new one conflicts with one language of an earlier edit, all its
    translations go with it.
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
