"""Formulas: what is read, against sums of numbers, and what is refused in one line."""

from __future__ import annotations

import random

import pytest

from emend.arithmetic import parse
from emend.errors import EmendError, InvalidInput, UnknownName

NAMES = ("a", "b", "c", "long_name2")


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("0.4*a + 0.3*b - c", {"a": 0.4, "b": 0.3, "c": -1.0}),
        ("c + (b - a)", {"c": 1.0, "b": 1.0, "a": -1.0}),
        ("-a", {"a": -1.0}),
        ("a*2*.5e1", {"a": 10.0}),
        ("2*(a - 3*(b + c))", {"a": 2.0, "b": -6.0, "c": -6.0}),
        ("a - a", {"a": 0.0}),
        ("a + 1 - 1", {"a": 1.0}),
        (" - - long_name2 ", {"long_name2": 1.0}),
    ],
)
def test_a_formula_is_a_weight_for_each_vector(formula, expected):
    assert parse(formula, NAMES) == pytest.approx(expected)


def test_random_formulas_mean_what_python_computes():
    """Each vector is replaced by a number: the formula's value must be Python's."""
    draw = random.Random(0)
    for _ in range(300):
        formula = _formula(draw, 4)
        values = {name: draw.uniform(-2, 2) for name in NAMES}
        found = sum(weight * values[name] for name, weight in parse(formula, NAMES).items())
        assert found == pytest.approx(eval(formula, {}, values), abs=1e-9)


def _formula(draw, depth):
    if not depth or draw.random() < 0.2:
        return draw.choice(NAMES)
    kind = draw.randrange(4)
    if kind == 0:
        return f"{draw.uniform(0, 3):.3f}{draw.choice(' *')}*{_inner(draw, depth)}".replace(
            "**", "*"
        )
    if kind == 1:
        return f"-{_inner(draw, depth)}"
    return f"{_formula(draw, depth - 1)} {draw.choice('+-')} {_inner(draw, depth)}"


def _inner(draw, depth):
    return f"({_formula(draw, depth - 1)})"


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("a * b", "multiplies two vectors"),
        ("a + 1", "adds the number 1"),
        ("2 * 3", "has no vector"),
        ("", "it ends at character 1"),
        ("a +", "it ends at character 4"),
        ("(a + b", "expected '\\)'"),
        ("a b", "'b' is left over"),
        ("a / 2", "'/' comes at character 2"),
        ("a.b", "'.' comes"),
        ("a ** 2", "'\\*' comes"),
        ("__import__('os')", "unknown vector"),
        ("(" * 60 + "a" + ")" * 60, "nested too deeply"),
        ("1e999*a", "too large"),
        ("a" * 20_000, "characters"),
    ],
)
def test_what_is_no_sum_of_vectors_is_refused_in_one_line(formula, said):
    with pytest.raises(EmendError, match=said) as caught:
        parse(formula, NAMES)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(UnknownName, match=r"'long_name'.*did you mean 'long_name2'"):
        parse("0.5*a + long_name", NAMES)
    assert issubclass(InvalidInput, EmendError)
