"""The fields of a suite's file, read one by one with everything wrong noted at its place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from emend._validate import check_text
from emend.errors import InvalidInput, nearest
from emend.versioning._rules_file import LONGEST_FILE, Problems


@dataclass(frozen=True)
class Fields:
    """The fields of one object, at a place of the file.

    Every getter gives something of the right kind, and notes a problem where that is not what
    stands there: the file is refused when all of it was read.

    Attributes:
        place: Where the object stands, such as ``must_change.probes[2]``; "" at the top.
        values: Its fields that are known.
        problems: Where to note what is wrong.
    """

    place: str
    values: dict[str, object]
    problems: Problems

    @classmethod
    def of(
        cls, place: str, value: object, known: tuple[str, ...], problems: Problems, at: str = ""
    ) -> Fields | None:
        """The fields of a value; None, and a note, where it is no object.

        Args:
            place: What the object is called in messages about itself.
            value: What stands there.
            known: The names of the fields that it may have.
            problems: Where to note what is wrong.
            at: The place that its fields are named after.
        """
        if not isinstance(value, dict):
            expected = ", ".join(known)
            problems.add(place, f"is {_found(value)}, expected an object with {expected}: add it")
            return None
        given = {str(name): each for name, each in cast("dict[object, object]", value).items()}
        for name in given:
            _known(problems, place, "field", name, known)
        kept = {name: each for name, each in given.items() if name in known}
        return cls(at, kept, problems)

    def known(self, name: str, value: str, names: Iterable[str]) -> bool:
        """Whether a value is one of these names."""
        return _known(self.problems, self._at(name), "name", value, tuple(names))

    def inner(self, name: str, known: tuple[str, ...]) -> Fields | None:
        """The object in a field; None where there is none."""
        if name not in self.values:
            return None
        at = self._at(name)
        return Fields.of(at, self.values[name], known, self.problems, at)

    def mapping(self, name: str) -> dict[str, object]:
        """The object in a field, whatever its names."""
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            self.problems.add(
                self._at(name), f"is {_found(value)}, expected an object with names: mend it"
            )
            return {}
        return {str(key): each for key, each in cast("dict[object, object]", value).items()}

    def objects(self, name: str, known: tuple[str, ...]) -> list[Fields]:
        """The objects in the list of a field, at least one."""
        at = self._at(name)
        pairs = enumerate(self._list(name, 1))
        found = [
            Fields.of(f"{at}[{n}]", each, known, self.problems, f"{at}[{n}]") for n, each in pairs
        ]
        return [each for each in found if each is not None]

    def text(self, name: str, default: str | None = "") -> str | None:
        """A text; it has to be there unless the default is None or has something in it."""
        if name not in self.values and default != "":
            return default
        return self.values[name] if self._is_text(name, self.values.get(name)) else None  # pyright: ignore[reportReturnType]

    def texts(self, name: str, *, least: int) -> tuple[str, ...]:
        """A list of texts, or one text, at least so many."""
        value = self.values.get(name)
        items = [value] if isinstance(value, str) else self._list(name, least)
        good = [self._is_text(f"{name}[{n}]", each) for n, each in enumerate(items)]
        texts = cast("list[str]", items) if all(good) else []
        if len(set(texts)) < len(texts):
            self.problems.add(self._at(name), "one stands twice, expected each once: remove one")
        return tuple(texts)

    def number(self, name: str, default: float | None, most: float = math.inf) -> float:
        """A number from 0 to `most`; it has to be there where there is no default."""
        value = self.values.get(name, default)
        bound = "0 or more" if most == math.inf else f"0 to {most:g}"
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and 0 <= value <= most and math.isfinite(value):  # pyright: ignore[reportOptionalOperand, reportOperatorIssue, reportArgumentType]
            return float(cast(float, value))
        found = str(cast(object, value)) if is_number else _found(value)
        self.problems.add(self._at(name), f"is {found}, expected a number, {bound}: mend it")
        return 0.0

    def lines(self, name: str, directory: Path) -> tuple[str, ...]:
        """The lines with something in them of the text file that a field names."""
        given = self.text(name)
        if not given:
            return ()
        path = directory / given
        try:
            if path.stat().st_size > LONGEST_FILE:
                raise InvalidInput(f"has more than {LONGEST_FILE:,} bytes: take a part of it")
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            return self._unreadable(
                name, path, f"byte {error.start} is not UTF-8: save it as UTF-8"
            )
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            return self._unreadable(name, path, f"{reason}: paths start where the suite is")
        except InvalidInput as error:
            return self._unreadable(name, path, str(error))
        lines = tuple(line for line in text.splitlines() if line.strip())
        return lines or self._unreadable(name, path, "holds no text: write some into it")

    def _unreadable(self, name: str, path: Path, reason: str) -> tuple[str, ...]:
        self.problems.add(self._at(name), f"{path}, expected a text file: {reason}")
        return ()

    def _list(self, name: str, least: int) -> list[object]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            self.problems.add(self._at(name), f"is {_found(value)}, expected a list: mend it")
            return []
        found = cast("list[object]", value)
        if len(found) < least:
            self.problems.add(
                self._at(name), f"has {len(found)} entries, expected {least} or more: add some"
            )
        return found

    def _is_text(self, name: str, value: object) -> bool:
        try:
            check_text("", value)
        except InvalidInput as error:
            self.problems.add(self._at(name), str(error).strip())
            return False
        return True

    def _at(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name


def _known(problems: Problems, place: str, kind: str, name: str, known: tuple[str, ...]) -> bool:
    if name in known:
        return True
    near = nearest(name, known)
    hint = f"did you mean {near!r}?" if near else "remove it"
    there = ", ".join(known)
    problems.add(place, f"unknown {kind} {name[:40]!r}, expected {there}: {hint}")
    return False


def _found(value: object) -> str:
    names = {"dict": "an object", "list": "a list", "str": "a text", "bool": "true or false"}
    return "missing" if value is None else names.get(type(value).__name__, "a number")
