"""What a ledger gives back: entries, events, builds, measurements, what was solved."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from emend._validate import Fault, check_text, refuse, text_fault
from emend.edits import Edit
from emend.errors import InvalidInput, first_line

STATUSES = ("proposed", "active", "superseded", "reverted")
"""What an entry can be. Only what is active is built; only what is proposed waits for review."""

LIVE = ("proposed", "active")
"""What an entry is until it is taken out."""

KINDS = (
    *("created", "added", "accepted", "superseded", "reverted", "restored", "noted"),
    *("built", "measured", "imported", "merged"),
)
"""What an event can be about."""


@dataclass(frozen=True)
class Entry:
    """An edit with who asked for it, why, and what became of it.

    Attributes:
        edit: The edit, with the former answer in `original` where it is known.
        author: Who asked for it.
        reason: Why.
        source: Where the fact comes from (a document, a ticket).
        tags: Words to find it by, sorted.
        time: When it was added; UTC, ISO 8601 with microseconds.
        changed: When its status last changed.
        status: One of `STATUSES`.
        previous_status: The status before it was superseded or reverted, else None.
        parent: The id of the edit that this one was derived from, or None.
        superseded_by: The id of the edit that won over this one, or None.
        cascade_root: The id of the ancestor whose removal took this one out too, or None.
    """

    edit: Edit
    author: str
    reason: str
    source: str
    tags: tuple[str, ...]
    time: str
    changed: str
    status: str
    previous_status: str | None = None
    parent: str | None = None
    superseded_by: str | None = None
    cascade_root: str | None = None

    @property
    def id(self) -> str:
        """The id of the edit."""
        return self.edit.id


@dataclass(frozen=True)
class Event:
    """A line of the history; nothing ever changes or removes one.

    Attributes:
        id: 32 hexadecimal digits, unlike those of any other event anywhere.
        time: UTC, ISO 8601 with microseconds.
        what: One of "created", "added", "accepted", "superseded", "reverted", "restored",
            "noted", "built", "measured", "imported", "merged".
        edit: The id of the edit it is about, or None.
        author: Who did it.
        reason: Why.
        details: What else belongs to it, JSON-able.
    """

    id: str
    time: str
    what: str
    edit: str | None
    author: str
    reason: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Build:
    """A patch that was built of the ledger.

    Attributes:
        base: Hash of the base model's weights.
        method: Name of the method.
        config: Its settings, JSON-able.
        edits: Ids of the edits in it; sorted when it comes from a ledger.
        patch_hash: Hash of the patch.
        path: Where the patch was written, as given; never followed by the ledger.
        seconds: What the build took.
        id: Given by the ledger.
        time: Given by the ledger; UTC, ISO 8601 with microseconds.
    """

    base: str
    method: str
    config: Mapping[str, Any]
    edits: tuple[str, ...]
    patch_hash: str
    path: str = ""
    seconds: float = 0.0
    id: str = ""
    time: str = ""


@dataclass(frozen=True)
class Measurement:
    """What a suite found of a build.

    Attributes:
        id: Given by the ledger.
        build: Id of the build.
        time: UTC, ISO 8601 with microseconds.
        suite: Name of the suite.
        results: What was measured, JSON-able.
    """

    id: str
    build: str
    time: str
    suite: str
    results: Mapping[str, Any]


@dataclass(frozen=True)
class Solved:
    """What is known of a value that was solved for, without its bytes.

    Attributes:
        name: The fingerprint of all that the value depends on.
        base: Hash of the base model's weights.
        method: Name of the method that it was solved for.
        edit: Id of the edit, where it was given.
        config: Settings of the method, JSON-able.
        details: What else was given with it, e.g. the lookup token; JSON-able.
        time: When it was kept; UTC, ISO 8601 with microseconds.
        digest: SHA-256 of its bytes in hexadecimal.
        size: Number of its bytes.
    """

    name: str
    base: str
    method: str
    edit: str | None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    time: str = ""
    digest: str = ""
    size: int = 0


def to_json(what: str, data: object) -> str:
    """Write a mapping as JSON; sorted, so that equal mappings give equal text.

    Raises:
        InvalidInput: It is no mapping, or holds what JSON cannot.
    """
    refuse(what, json_fault(data))
    return _sorted_json(data)


def json_fault(data: object) -> Fault | None:
    """Say why something is no mapping that JSON can hold, if it is not."""
    if not isinstance(data, Mapping):
        return Fault(f"is a {type(data).__name__}", "a mapping", "make it one")
    try:
        _sorted_json(cast("Mapping[str, Any]", data)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return Fault(f"cannot be kept as JSON ({first_line(error)})", "plain data", "make it plain")
    return None


def _sorted_json(data: object) -> str:
    given = dict(cast("Mapping[str, Any]", data))
    return json.dumps(given, ensure_ascii=False, allow_nan=False, sort_keys=True)


def tidy_tags(tags: object) -> tuple[str, ...]:
    """Sort tags, each once.

    Raises:
        InvalidInput: They are no list of texts.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidInput(f"tags is {str(tags)[:40]!r}, expected a list of texts")
    given = list(cast("Iterable[object]", tags))
    for tag in given:
        check_text("tag", tag)  # which may not be empty, as other notes may
        check_note("tag", tag)
    return tuple(sorted(set(cast("list[str]", given))))


LONGEST_NOTE = 1_000
"""Characters of a name: an id, an author, a source, a tag, a suite."""

LONGEST_REASON = 10_000
"""Characters of a reason or a path."""


def check_note(name: str, value: object, longest: int = LONGEST_NOTE) -> None:
    """Refuse what is not a text that can be kept; an empty one is fine.

    Raises:
        InvalidInput: With what was found, what was expected and the remedy.
    """
    refuse(name, note_fault(value, longest))


def note_fault(value: object, longest: int = LONGEST_NOTE) -> Fault | None:
    """Say why a value is no text that can be kept, if it is not; an empty one is fine."""
    if value == "":
        return None
    fault = text_fault(value)
    if fault is None and len(cast(str, value)) > longest:
        found = f"has {len(cast(str, value)):,} characters"
        return Fault(found, f"at most {longest:,}", "shorten it")
    return fault
