"""Formulas of vectors, such as ``0.4*a + 0.3*b - c`` or ``c + (b - a)``, read without `eval`.

A formula is a sum of vectors with a number each. What cannot be brought to that form (a product of
two vectors, a number added to a vector) is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import NamedTuple, NoReturn

from emend.errors import InvalidInput, UnknownName

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[-+*()]))"
)
_LONGEST = 10_000
_DEEPEST = 50


class _Sum(NamedTuple):
    """A number, and a weight for each vector."""

    number: float
    weights: dict[str, float]


def parse(formula: str, names: Collection[str]) -> dict[str, float]:
    """Read a formula.

    Args:
        formula: Names, numbers, ``+``, ``-``, ``*`` and parentheses.
        names: The names of the vectors that there are.

    Returns:
        The weight of each vector that the formula names, in the order of their first use; one that
        cancels out has weight 0.

    Raises:
        InvalidInput: It cannot be read, or is no sum of vectors with a number each.
        UnknownName: It names a vector that is not there.
    """
    if len(formula) > _LONGEST:
        raise InvalidInput(
            f"the formula has {len(formula):,} characters, expected {_LONGEST:,} at most: cut it"
        )
    reader = _Reader(formula, names)
    found = reader.sum()
    if reader.ahead:
        reader.refuse(f"{reader.ahead!r} is left over", "an operator, or the end")
    if found.number or not found.weights:
        shown = f"adds the number {found.number:g} to vectors" if found.weights else "has no vector"
        raise InvalidInput(
            f"the formula {formula!r} {shown}, expected vectors with a number each: write it as "
            "0.5*a + 0.5*b"
        )
    return found.weights


class _Reader:
    """Reads by recursive descent: a sum of products of numbers, names and parentheses."""

    def __init__(self, formula: str, names: Collection[str]) -> None:
        self.formula = formula
        self.names = names
        self.at = 0
        self.depth = 0
        self.ahead = ""
        self.kind: str | None = None
        self._next()

    def sum(self) -> _Sum:
        """Read products with ``+`` and ``-`` between them."""
        found = self._product()
        while self.ahead in ("+", "-") and self.ahead:
            sign = 1.0 if self.ahead == "+" else -1.0
            self._next()
            found = _added(found, _times(sign, self._product()))
        return found

    def refuse(self, found: str, expected: str) -> NoReturn:
        """Refuse the formula at the place where the reader is."""
        raise InvalidInput(
            f"the formula {self.formula!r} cannot be read: {found} at character {self.at + 1}, "
            f"expected {expected}"
        )

    def _product(self) -> _Sum:
        found = self._part()
        while self.ahead == "*":
            self._next()
            other = self._part()
            if found.weights and other.weights:
                raise InvalidInput(
                    f"the formula {self.formula!r} multiplies two vectors, expected a number times "
                    "a vector: write it as 0.5*a + 0.5*b"
                )
            found = _times(found.number, other) if other.weights else _times(other.number, found)
        return found

    def _part(self) -> _Sum:
        self.depth += 1
        if self.depth > _DEEPEST:
            self.refuse("parentheses or signs are nested too deeply", f"at most {_DEEPEST} levels")
        found = self._inner()
        self.depth -= 1
        return found

    def _inner(self) -> _Sum:
        text, kind = self.ahead, self.kind
        if kind == "number":
            self._next()
            if not math.isfinite(float(text)):
                self.refuse(f"the number {text} is too large", "a finite number")
            return _Sum(float(text), {})
        if kind == "name":
            if text not in self.names:
                raise UnknownName("vector", text, self.names)
            self._next()
            return _Sum(0.0, {text: 1.0})
        if text in ("+", "-") and text:
            self._next()
            return _times(1.0 if text == "+" else -1.0, self._part())
        if text == "(":
            self._next()
            found = self.sum()
            if self.ahead != ")":
                self.refuse(f"{self.ahead!r} comes" if self.ahead else "it ends", "')'")
            self._next()
            return found
        self.refuse(f"{text!r} comes" if text else "it ends", "a vector's name, a number or '('")

    def _next(self) -> None:
        """Go on to the next token; ``ahead`` is "" at the end."""
        match = _TOKEN.match(self.formula, self.at)
        if match is None:
            rest = self.formula[self.at :].strip()
            if rest:
                self.refuse(f"{rest[0]!r} comes", "names, numbers, +, -, * and parentheses")
            self.ahead, self.kind = "", None
            return
        self.kind = match.lastgroup
        self.ahead = match.group(match.lastgroup or 0)
        self.at = match.end()


def _added(left: _Sum, right: _Sum) -> _Sum:
    weights = dict(left.weights)
    for name, weight in right.weights.items():
        weights[name] = weights.get(name, 0.0) + weight
    return _Sum(left.number + right.number, weights)


def _times(number: float, one: _Sum) -> _Sum:
    return _Sum(number * one.number, {name: number * w for name, w in one.weights.items()})
