"""What a list of edits must be before anything is done with it."""

from __future__ import annotations

from collections.abc import Iterable

from emend.edits._edit import Edit
from emend.errors import InvalidInput


def check_edits(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """The edits as a tuple.

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
        if edit.id in seen:
            raise InvalidInput(
                f"two edits have the id {edit.id!r}, expected different ones: "
                "remove one or give it an id of its own"
            )
        seen.add(edit.id)
    return checked


def check_conflicts(edits: Iterable[Edit]) -> None:
    """Refuse edits that want different targets for one statement.

    Raises:
        InvalidInput: Two do.
    """
    wanted: dict[tuple[str, str], Edit] = {}
    for one in edits:
        first = wanted.setdefault((one.prompt, one.subject), one)
        if first.target.strip() != one.target.strip():
            raise InvalidInput(
                f"edits {first.id!r} and {one.id!r} want both {first.target.strip()!r} and "
                f"{one.target.strip()!r} for {one.text!r}, expected one target: remove one"
            )


def continued(previous: Iterable[Edit], edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Earlier edits and new ones; of one statement, or one id, the new one stands."""
    edits = tuple(edits)
    ids = {edit.id for edit in edits}
    statements = {(edit.prompt, edit.subject) for edit in edits}
    kept = [
        edit
        for edit in previous
        if edit.id not in ids and (edit.prompt, edit.subject) not in statements
    ]
    return (*kept, *edits)
