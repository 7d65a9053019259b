"""Settings: the type and range of each are declared at its field and checked in one place.

A dataclass of settings annotates each field with what it may hold:

    steps: Count = 25
    quantile: Annotated[float, Range(above=0, below=1)] = 0.02
    layers: tuple[int, ...] | None = None

`checked` converts values given in Python, `from_text` the text after ``--set NAME=``, and
`from_file` the values of a settings file. Each refuses a wrong type or a number outside its range
in one line that states the setting, what was found and what is expected.
"""

from __future__ import annotations

import json
import math
import numbers
import operator
import os
import reprlib
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Union, cast

from emend.errors import InvalidInput, UnknownName


@dataclass(frozen=True)
class Range:
    """The numbers that a setting may take; always finite.

    Attributes:
        least: The smallest one.
        above: A bound that it must exceed.
        most: The largest one.
        below: A bound that it must stay below.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def holds(self, number: float) -> bool:
        """Return whether a number is in the range; one that is not finite never is."""
        return (
            math.isfinite(number)
            and (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    @property
    def words(self) -> str:
        """The range in words: "more than 0, at most 1"."""
        bounds = {
            "at least": self.least,
            "more than": self.above,
            "at most": self.most,
            "less than": self.below,
        }
        return ", ".join(f"{name} {bound}" for name, bound in bounds.items() if bound is not None)


Count = Annotated[int, Range(least=1)]
Whole = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, below=1 << 63)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Part = Annotated[float, Range(above=0, most=1)]
Share = Annotated[float, Range(least=0, below=1)]


@dataclass(frozen=True)
class Reads:
    """Conversion of a setting of its own type, such as texts.

    Attributes:
        words: The accepted values in words, to follow "expected".
        given: Converts what a Python caller gives.
        named: Converts names, as the command line and settings files give them.
    """

    words: str
    given: Callable[[Any], Any]
    named: Callable[[list[str]], Any]


def checked(owner: str, config_type: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert given settings to the types of their fields.

    Args:
        owner: Owner of the settings, such as the name of a method; for messages.
        config_type: Its dataclass of settings.
        given: Settings by name. A list is taken as a tuple, and a single element as a tuple of
            one; an int is taken as a float, and any type with ``__index__`` as an int.

    Raises:
        UnknownName: A setting does not exist.
        InvalidInput: A value has the wrong type or is outside its range.
    """
    hints = hints_of(owner, config_type, given)
    return {name: _checked(name, value, hints[name]) for name, value in given.items()}


def from_text(owner: str, config_type: type, name: str, text: str) -> Any:
    """Read one setting from text, by the type of its field.

    A setting of type text takes the text unchanged; one of several texts takes them separated by
    commas, or as a JSON list where a text itself contains a comma.

    Raises:
        UnknownName: A setting does not exist.
        InvalidInput: The text does not fit the field.
    """
    hint = hints_of(owner, config_type, [name])[name]
    return _checked(name, _parsed(text, hint), hint)


def from_file(owner: str, config_type: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the settings of a JSON or YAML file, in which texts are names; see `checked`.

    Raises:
        UnknownName: A setting does not exist.
        InvalidInput: A value has the wrong type or is outside its range.
    """
    hints = hints_of(owner, config_type, given)
    named = {name: _named(value, hints[name]) for name, value in given.items()}
    return checked(owner, config_type, named)


def hints_of(owner: str, config_type: type, names: Iterable[str]) -> dict[str, Any]:
    """Return the annotation of every setting, with its range.

    Raises:
        UnknownName: One of the names is not a setting.
    """
    known = [field.name for field in fields(config_type)]
    for name in names:
        if name not in known:
            raise UnknownName(f"setting of {owner}", name, known)
    return typing.get_type_hints(config_type, include_extras=True)


def words_of(hint: Any) -> str:
    """Describe what an annotation admits: "float (more than 0) or none"."""
    return " or ".join(_words(kind, notes) for kind, notes in alternatives(hint))


def alternatives(hint: Any, notes: tuple[Any, ...] = ()) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return the types of a union, each with the metadata of its `Annotated`."""
    if typing.get_origin(hint) is Annotated:
        return alternatives(hint.__origin__, (*notes, *hint.__metadata__))
    if typing.get_origin(hint) in (Union, types.UnionType):
        return [one for kind in typing.get_args(hint) for one in alternatives(kind, notes)]
    return [(hint, notes)]


class _Unfit(Exception):
    """A value has the wrong type or is outside its range."""


def _checked(name: str, value: Any, hint: Any) -> Any:
    try:
        return _fitted(value, hint)
    except _Unfit:
        found = " ".join(_short.repr(value).split())
        example = _example(hint) if name != "templates" else '["{}", "I heard that {}"]'
        remedy = f"e.g. {name}={shlex.quote(example)}" if example else "give such a value"
        raise InvalidInput(
            f"setting {name} is {found}, expected {words_of(hint)}: {remedy}"
        ) from None


def _example(hint: Any) -> str:
    """Write an example value of a setting; "" where its description suffices."""
    (kind, notes), *_ = [one for one in alternatives(hint) if one[0] is not type(None)]
    ranges = [note for note in notes if isinstance(note, Range)]
    if _reads(notes):
        return ""
    if typing.get_origin(kind) is Literal:
        return str(typing.get_args(kind)[0])
    if typing.get_origin(kind) is tuple:
        elements = typing.get_args(kind)
        rest = elements[:1] if elements[-1] is Ellipsis else elements[1:]
        return ",".join(_example(one) for one in (elements[0], *rest))
    for number in {int: (3, 1, 0), float: (0.5, 1.5, 0.0)}.get(kind, ()):
        if all(one.holds(number) for one in ranges):
            return str(number)
    return {bool: "true", str: "text"}.get(kind, "")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def _fitted(value: Any, hint: Any) -> Any:
    """Return the value as the first type of the annotation that takes it."""
    for kind, notes in alternatives(hint):
        try:
            fitted = _as(kind, notes, value)
        except _Unfit:
            continue
        if all(note.holds(fitted) for note in notes if isinstance(note, Range)):
            return fitted
    raise _Unfit


def _as(kind: Any, notes: tuple[Any, ...], value: Any) -> Any:
    reads = _reads(notes)
    origin = typing.get_origin(kind)
    if reads and value is not None:
        return reads.given(value)
    is_bool = isinstance(value, bool)
    if kind is int and not is_bool and hasattr(value, "__index__"):
        return operator.index(cast(Any, value))
    if kind is float and not is_bool and isinstance(value, numbers.Real):
        return float(value)
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(cast("os.PathLike[str]", value))
    if origin is Literal and value in typing.get_args(kind):
        return value
    if origin is tuple:
        return _row(typing.get_args(kind), value)
    if kind is Any or (kind is type(None) and value is None):
        return value
    plain = origin if isinstance(origin, type) else kind
    if isinstance(plain, type) and isinstance(value, plain) and plain not in (int, float):
        return value
    raise _Unfit


def _row(elements: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    """Convert a list, or its only element, to a tuple of the elements' types."""
    row = list(cast("Iterable[Any]", value) if isinstance(value, (list, tuple, range)) else [value])
    if elements[-1] is not Ellipsis and len(elements) != len(row):
        raise _Unfit
    kinds = [elements[0]] * len(row) if elements[-1] is Ellipsis else elements
    return tuple(_fitted(one, kind) for one, kind in zip(row, kinds, strict=True))


def _reads(notes: tuple[Any, ...]) -> Reads | None:
    return next((note for note in notes if isinstance(note, Reads)), None)


def _named(value: Any, hint: Any) -> Any:
    """Return a file's value, with names converted where the setting has its own type."""
    reads = next((found for _, notes in alternatives(hint) if (found := _reads(notes))), None)
    names = cast("list[Any]", value) if isinstance(value, list) else [value]
    if reads is None or not all(isinstance(name, str) for name in names):
        return value
    return reads.named(names)


def _parsed(text: str, hint: Any) -> Any:
    """Return the value that a text stands for; the text itself where it stands for none."""
    kinds = [kind for kind, _ in alternatives(hint)]
    word = text.lower()
    if word == "none" and type(None) in kinds:
        return None
    if word in ("true", "false") and bool in kinds:
        return word == "true"
    for kind in kinds:
        if typing.get_origin(kind) is tuple:
            return _listed(text, typing.get_args(kind)[0])
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                continue
    if any(_reads(notes) for _, notes in alternatives(hint)):
        return _named(_listed(text, str), hint)
    return _unquoted(text)


def _listed(text: str, element: Any) -> list[Any]:
    """Return the elements of a JSON list, or of a list separated by commas."""
    if text.startswith("["):
        try:
            return cast("list[Any]", json.loads(text))
        except ValueError:
            pass  # a text that begins with a bracket
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [_parsed(part, element) for part in parts or [text]]


def _unquoted(text: str) -> str:
    r"""Return a text, or the content of a JSON string (so that "\n" can be given)."""
    try:
        found = json.loads(text) if text.startswith('"') else text
    except ValueError:
        return text
    return found if isinstance(found, str) else text


def _words(kind: Any, notes: tuple[Any, ...]) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    reads = _reads(notes)
    if reads:
        return reads.words
    if kind is type(None):
        return "none"
    if origin is Literal:
        *first, last = map(repr, args)
        return f"{', '.join(first)} or {last}" if first else last
    if origin is tuple:
        if args[-1] is Ellipsis:
            return f"list of {words_of(args[0])}"
        return f"list of {len(args)} ({', '.join(map(words_of, args))})"
    name = getattr(kind, "__name__", str(kind))
    ranges = [note.words for note in notes if isinstance(note, Range) and note.words]
    return f"{name} ({', '.join(ranges)})" if ranges else name
