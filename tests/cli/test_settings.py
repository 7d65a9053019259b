"""Settings of methods: read from the source, given by flags and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from emend._signature import setting_texts
from emend.cli._settings import describe, settings_for
from emend.errors import InvalidInput, UnknownName


@dataclass(frozen=True)
class Base:
    """Common."""

    layer: int | None = None
    """Which block;
    None for a default."""


@dataclass(frozen=True)
class Config(Base):
    """Settings."""

    rate: float = 0.5
    """How fast."""

    form: Literal["a", "b"] = "a"
    """Which form."""

    lengths: tuple[int, ...] = (5, 10)
    bare: bool = False
    names: tuple[str, ...] = field(default_factory=lambda: ("x",))
    word: str = "x"


def given(*assignments, config=()):
    return settings_for("mine", Config, config, assignments)


def test_docstrings_are_read_from_the_source_and_inherited():
    assert setting_texts(Config) == {
        "layer": "Which block; None for a default.",
        "rate": "How fast.",
        "form": "Which form.",
    }
    described = {setting["name"]: setting for setting in describe(Config)}
    assert list(described) == ["layer", "rate", "form", "lengths", "bare", "names", "word"]
    assert described["rate"] == {
        "name": "rate",
        "type": "float",
        "default": 0.5,
        "help": "How fast.",
    }
    assert described["names"]["default"] == ("x",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("rate=1", 1.0),
        ("rate=5e-1", 0.5),
        ("layer=3", 3),
        ("layer=none", None),
        ("form=b", "b"),
        ("bare=True", True),
        ("lengths=1,2,3", (1, 2, 3)),
        ("lengths=[4]", (4,)),
        ("lengths=4", (4,)),
        ("names=a,b", ("a", "b")),
        ("names={}", ("{}",)),
        ('names={"a": 1}', ('{"a": 1}',)),
        ("names=3", ("3",)),
        ("names=none", ("none",)),
        ('names=["In Europe, {}", "{}"]', ("In Europe, {}", "{}")),
        ("names=[1] {}", ("[1] {}",)),
        ("word=3", "3"),
        ("word=true", "true"),
        (r'word="a\nb"', "a\nb"),
        ("word={}", "{}"),
    ],
)
def test_text_becomes_the_type_of_the_setting(text, value):
    """Fault 25: `--set templates={}` was read as a JSON object."""
    found = given(text)[text.split("=")[0]]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate=fast", "float"),
        ("rate=true", "float"),
        ("layer=1.5", "int or none"),
        ("layer=true", "int or none"),
        ("form=c", "'a' or 'b'"),
        ("bare=1", "bool"),
        ("lengths=1,x", "list of int"),
        ("lengths=", "list of int"),
        ("rate=", "float"),
    ],
)
def test_what_does_not_fit_is_refused(text, expected):
    with pytest.raises(InvalidInput, match="expected " + expected):
        given(text)


def test_unknown_settings_and_the_order_of_sources(tmp_path):
    with pytest.raises(UnknownName, match=r"unknown setting of mine 'raet': did you mean 'rate'"):
        given("raet=1")
    (tmp_path / "one.json").write_text('{"rate": 1, "layer": 1, "bare": true}')
    found = given("rate=3", config=[str(tmp_path / "one.json"), "layer=2"])
    assert found == {"rate": 3.0, "layer": 2, "bare": True}
