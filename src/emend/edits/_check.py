"""Is this a text that a tokenizer can take?"""

from __future__ import annotations

from emend.errors import InvalidInput

LONGEST_TEXT = 100_000
"""Characters; a statement about one fact is a hundred, so longer is a file gone wrong."""


def check_text(field: str, value: object, *, trimmed: bool = False) -> None:
    """Refuse a value that is not a text with something in it.

    Args:
        field: What the value is called in the message.
        value: What was given.
        trimmed: Also refuse white space at either end (it would shift the subject's position).

    Raises:
        InvalidInput: With what was found, what was expected and how to mend it.
    """
    fault = _fault(value, trimmed)
    if fault:
        raise InvalidInput(f"{field} {fault}")


def _fault(value: object, trimmed: bool) -> str | None:
    if not isinstance(value, str):
        found = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        return f"is {found}, expected text: put it in quotes"
    if not value.strip():
        return f"is {'empty' if not value else 'only white space'}, expected text: fill it in"
    if len(value) > LONGEST_TEXT:
        return f"has {len(value):,} characters, expected at most {LONGEST_TEXT:,}: shorten it"
    if "\x00" in value:
        return "holds a NUL character, expected text: remove it"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "holds half of a surrogate pair, expected text: write the character itself"
    if trimmed and value != value.strip():
        return f"is {value[:40]!r} with white space at an end, expected none: remove it"
    return None
