"""One validator: what is wrong with a value, where, what was expected and the remedy.

A check is a function from a value to a `Fault`, or None where the value is good. `refuse` raises
a fault for one value. For a file, a `Record` reads the fields of each object with such checks and
notes every fault in `Problems`, which refuses the file at the end with one line for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from emend.errors import BrokenFile, InvalidInput, nearest

LONGEST_TEXT = 100_000
"""Characters; a statement about one fact is a hundred, so longer is a file gone wrong."""

_Part = TypeVar("_Part")

_MOST_SHOWN = 50
_LONGEST_SHOWN = 300


class Fault(NamedTuple):
    """What is wrong with a value: "is empty", expected "text", remedy "fill it in"."""

    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.found}{expected}{f': {self.remedy}' if self.remedy else ''}"


Check = Callable[[object], Fault | None]
"""What is wrong with a value, or None."""


class Problem(NamedTuple):
    """A fault and its place.

    Attributes:
        source: What the file is called.
        line: The line, from 1 on; None where it is not known.
        field: The place in the record, such as ``probes[2].prompt``; "" for the record itself.
        fault: What is wrong there.
    """

    source: str
    line: int | None
    field: str
    fault: Fault

    @property
    def said(self) -> str:
        """Field and fault, without their place."""
        fault = Fault(*(shortened(part, _LONGEST_SHOWN) for part in self.fault))
        return f"{shortened(self.field, _LONGEST_SHOWN)} {fault}".strip()

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{where}: {self.said}"


class Problems:
    """All that is wrong with a file (or another source), reported at once.

    Args:
        source: What it is called in messages.
        line_of: The line of a field, for problems that were noted without one.
    """

    def __init__(self, source: str, line_of: Callable[[str], int | None] | None = None) -> None:
        self.source = source
        self.found: list[Problem] = []
        self._line_of = line_of

    def __len__(self) -> int:
        return len(self.found)

    def note(self, fault: Fault | None, field: str = "", line: int | None = None) -> bool:
        """Note a fault, if there is one.

        Returns:
            Whether there is none.
        """
        if fault is None:
            return True
        if line is None and self._line_of is not None:
            line = self._line_of(field)
        self.found.append(Problem(self.source, line, field, fault))
        return False

    def check(self) -> None:
        """Refuse the source if anything was noted.

        Raises:
            BrokenFile: With a line for each problem: source, line, field, what was found, what
                was expected, the remedy. The message shows the first; `problems` has all.
        """
        lines = [str(problem) for problem in self.found]
        if not lines:
            return
        if len(lines) == 1:
            raise BrokenFile(lines[0])
        shown = lines[:_MOST_SHOWN]
        if len(lines) > len(shown):
            shown.append(f"... and {len(lines) - len(shown)} more")
        error = BrokenFile(f"{self.source}: {len(lines)} problems", shown)
        error.problems = tuple(lines)
        raise error


def refuse(field: str, fault: Fault | None) -> None:
    """Raise a fault, if there is one.

    Raises:
        InvalidInput: "<field> <found>, expected <expected>: <remedy>".
    """
    if fault is not None:
        raise InvalidInput(f"{field} {fault}")


def text_fault(value: object, *, trimmed: bool = False) -> Fault | None:
    """Say why a value is no text that a tokenizer can take, if it is not.

    Args:
        value: What was given.
        trimmed: Also refuse white space at either end (it would shift the subject's position).
    """
    if not isinstance(value, str):
        found = "null" if value is None else f"{type(value).__name__} {shown(str(value))}"
        return Fault(f"is {found}", "text", "put it in quotes")
    if not value.strip():
        return Fault(f"is {'empty' if not value else 'only white space'}", "text", "fill it in")
    if len(value) > LONGEST_TEXT:
        return Fault(f"has {len(value):,} characters", f"at most {LONGEST_TEXT:,}", "shorten it")
    if "\x00" in value:
        return Fault("holds a NUL character", "text", "remove it")
    if any("\ud800" <= character <= "\udfff" for character in value):
        return Fault("holds half of a surrogate pair", "text", "write the character itself")
    if trimmed and value != value.strip():
        return Fault(f"is {shown(value)} with white space at an end", "none", "remove it")
    return None


def name_fault(value: object) -> Fault | None:
    """Say why a value is no text without white space at its ends, if it is not."""
    return text_fault(value, trimmed=True)


def check_text(field: str, value: object, *, trimmed: bool = False) -> None:
    """Refuse a value that is not a text with something in it; see `text_fault`.

    Raises:
        InvalidInput: With what was found, what was expected and the remedy.
    """
    refuse(field, text_fault(value, trimmed=trimmed))


def checked_parts(
    field: str, values: object, kind: type[_Part], expected: str
) -> tuple[_Part, ...]:
    """Return a list's parts as a tuple, each of one type.

    Args:
        field: What the list is called in messages.
        values: What was given.
        kind: The type of each part.
        expected: The parts in words: "texts", "emend.Probe objects".

    Raises:
        InvalidInput: The value is no list, or a part has another type.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(f"{field} is {shown(values)}, expected a list of {field}")
    parts = tuple(cast("Iterable[_Part]", values))
    for part in parts:
        if not isinstance(part, kind):
            raise InvalidInput(f"{field} holds {shown(part)}, expected {expected}")
    return parts


def choice_fault(value: object, known: Collection[str]) -> Fault | None:
    """Say that a value is none of the known names, if so, and which is meant."""
    if isinstance(value, str) and value in known:
        return None
    near = nearest(value, known) if isinstance(value, str) else None
    remedy = f"did you mean {near!r}?" if near else "take one of them"
    found = shown(value) if isinstance(value, str) else kind_of(value)
    return Fault(f"is {found}", f"one of {', '.join(known)}", remedy)


def kind_of(value: object) -> str:
    """Name the kind of a value as a file's writer knows it."""
    names = {"dict": "an object", "list": "a list", "str": "a text", "bool": "true or false"}
    return "null" if value is None else names.get(type(value).__name__, "a number")


def shown(value: object, most: int = 40) -> str:
    """Show a value in quotes, cut where it is long."""
    return repr(shortened(value, most) if isinstance(value, str) else value)


@dataclass(frozen=True)
class Record:
    """The fields of one object, read one by one.

    Each getter gives something of the right kind, and notes a problem where that is not what
    is there: whoever reads the file refuses it when all of it was read.

    Attributes:
        values: The fields that are known, as the file has them.
        problems: Where to note what is wrong.
        place: The object's place, such as ``must_change.probes[2]``; "" at the top.
        line: The line on which it begins, where known.
    """

    values: Mapping[str, object]
    problems: Problems
    place: str = ""
    line: int | None = None

    @classmethod
    def of(
        cls,
        value: object,
        problems: Problems,
        known: Collection[str] | None,
        *,
        what: str = "the record",
        place: str = "",
        line: int | None = None,
    ) -> Record | None:
        """Take an object; None, and a note, where a value is none.

        Args:
            value: The value.
            problems: Where to note what is wrong.
            known: The fields that it may have; others are noted. None takes any.
            what: What the object is called where it has no place.
            place: Its place.
            line: The line on which it begins, where known.
        """
        if not isinstance(value, Mapping):
            fields = f" with {', '.join(known)}" if known else ""
            fault = Fault(f"is {kind_of(value)}", f"an object{fields}", "put it in braces")
            problems.note(fault, place or what, line)
            return None
        given = {str(name): each for name, each in cast("Mapping[object, object]", value).items()}
        record = cls(given, problems, place, line)
        for name in given if known is not None else ():
            if name not in cast("Collection[str]", known):
                record.note(name, _unknown_field(name, cast("Collection[str]", known)))
        kept = {name: each for name, each in given.items() if known is None or name in known}
        return cls(kept, problems, place, line)

    def at(self, name: str) -> str:
        """Return the place of a field."""
        return f"{self.place}.{name}" if self.place else name

    def has(self, name: str) -> bool:
        """Return whether a field is there and not null."""
        return self.values.get(name) is not None

    def note(self, name: str, fault: Fault | None) -> bool:
        """Note what is wrong with a field, if anything is; whether nothing is."""
        return self.problems.note(fault, self.at(name), self.line)

    def text(self, name: str, check: Check = text_fault, *, required: bool = True) -> str | None:
        """Read a text; None where there is none, or it is not good.

        Args:
            name: The field.
            check: What is wrong with a value.
            required: Whether a problem is noted where it is missing, or null.
        """
        if name not in self.values:
            if required:
                self.note(name, Fault("is missing", "text", "add it"))
            return None
        value = self.values[name]
        if value is None and not required:
            return None
        return cast(str, value) if self.note(name, check(value)) else None

    def texts(
        self, name: str, check: Check = text_fault, *, least: int = 0, distinct: bool = False
    ) -> tuple[str, ...]:
        """Read a list of texts, or one text; empty where something is wrong with one of them.

        Args:
            name: The field.
            check: What is wrong with a value.
            least: How many there must be.
            distinct: Whether each may stand only once.
        """
        value = self.values.get(name)
        items = [value] if isinstance(value, str) else self.items(name, least)
        good = [self.note(f"{name}[{n}]", check(each)) for n, each in enumerate(items)]
        if not all(good):
            return ()
        texts = tuple(cast("list[str]", items))
        if distinct and len(set(texts)) < len(texts):
            self.note(name, Fault("holds one twice", "each once", "remove one"))
        return texts

    def items(self, name: str, least: int = 0) -> list[object]:
        """Read a list, whatever it holds."""
        value = self.values.get(name)
        if value is None and not least:
            return []
        if value is None:
            self.note(name, Fault("is missing", "a list", "add it"))
            return []
        if not isinstance(value, (list, tuple)):
            self.note(name, Fault(f"is {kind_of(value)}", "a list", "put it in brackets"))
            return []
        found = list(cast("list[object]", value))
        if len(found) < least:
            expected = "at least one" if least == 1 else f"{least} or more"
            self.note(name, Fault(f"has {len(found)} entries", expected, "add some"))
        return found

    def number(
        self, name: str, default: float | None = None, *, least: float = 0, most: float = math.inf
    ) -> float:
        """Read a number from `least` to `most`; it must be there where there is no default."""
        value = self.values.get(name, default)
        bound = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and math.isfinite(value) and least <= value <= most:  # pyright: ignore[reportOptionalOperand, reportOperatorIssue, reportArgumentType]
            return float(cast(float, value))
        found = f"is {value}" if is_number else f"is {kind_of(value)}"
        found = found if name in self.values else "is missing"
        self.note(name, Fault(found, f"a number, {bound}", "fix it"))
        return least

    def flag(self, name: str, default: bool) -> bool:
        """Read true or false."""
        value = self.values.get(name, default)
        if isinstance(value, bool):
            return value
        self.note(name, Fault(f"is {kind_of(value)}", "true or false", "fix it"))
        return default

    def choice(self, name: str, known: Collection[str], *, required: bool = True) -> str | None:
        """Read one of some names."""
        return self.text(name, lambda value: choice_fault(value, known), required=required)

    def mapping(self, name: str) -> dict[str, object]:
        """Read an object with names of its own as its fields."""
        value = self.values.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.note(name, Fault(f"is {kind_of(value)}", "an object with names", "fix it"))
            return {}
        given = cast("Mapping[object, object]", value).items()
        return {str(key): each for key, each in given if self.note(name, _key_fault(key))}

    def record(
        self, name: str, known: Collection[str] | None, *, required: bool = False
    ) -> Record | None:
        """Read an object; None where there is none, or it is something else."""
        if name not in self.values:
            if required:
                self.note(name, Fault("is missing", "an object", "add it"))
            return None
        return self._inner(self.at(name), self.values[name], known)

    def records(self, name: str, known: Collection[str] | None, least: int = 0) -> Iterator[Record]:
        """Read a list of objects one by one; what is none is noted and left out."""
        for number, value in enumerate(self.items(name, least)):
            found = self._inner(f"{self.at(name)}[{number}]", value, known)
            if found is not None:
                yield found

    def _inner(self, place: str, value: object, known: Collection[str] | None) -> Record | None:
        return Record.of(value, self.problems, known, place=place, line=self.line)


def _unknown_field(name: str, known: Collection[str]) -> Fault:
    near = nearest(name[:LONGEST_TEXT], known) if len(name) < 100 else None
    remedy = f"did you mean {near!r}?" if near else "remove it"
    return Fault("is an unknown field", f"one of {', '.join(known)}", remedy)


def _key_fault(key: object) -> Fault | None:
    fault = text_fault(key, trimmed=True)
    return fault and fault._replace(found=f"has a name that {fault.found}")


def shortened(text: str, most: int) -> str:
    """Cut a text to at most `most` characters, the last of them "…" where it was longer."""
    return text if len(text) <= most else text[: most - 1] + "…"
