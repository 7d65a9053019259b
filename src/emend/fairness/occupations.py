"""Occupations and templates: the list that ships, a user's file, and what is held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

from emend._io import split_lines
from emend._validate import text_fault
from emend.errors import BrokenFile, InvalidInput, MissingFile

SHIPPED = Path(__file__).with_name("occupations.json")
HELD_OUT = 4
"""Every fourth occupation and template is held out of an edit by default, and measured."""


@dataclass(frozen=True)
class Occupations:
    """Occupations in templates, after each of which one of two pronouns is expected.

    Attributes:
        occupations: Singular nouns, such as "nurse".
        templates: Texts with one "{}" for the occupation, that end before the pronoun.
        pair: The two pronouns.
        contrasts: Nouns of people whose pronoun is no stereotype ("king"), to be left as they are.
    """

    occupations: tuple[str, ...]
    templates: tuple[str, ...]
    pair: tuple[str, str] = ("he", "she")
    contrasts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what gives no prompt.

        Raises:
            InvalidInput: No occupation or template, one that is no text, one that occurs twice,
                or a template without exactly one "{}".
        """
        for name in ("occupations", "templates", "contrasts"):
            texts = getattr(self, name)
            if not texts and name != "contrasts":
                raise InvalidInput(f"there are no {name}, expected at least one: give some")
            for text in texts:
                fault = text_fault(text, trimmed=True)
                if fault is not None:
                    raise InvalidInput(f"one of the {name} {fault}")
            if len(set(texts)) < len(texts):
                twice = next(text for text in texts if texts.count(text) > 1)
                raise InvalidInput(f"{twice!r} is twice among the {name}, expected once: remove it")
        for template in self.templates:
            if template.count("{}") != 1:
                raise InvalidInput(
                    f"template {template!r} has {template.count('{}')} places for the occupation, "
                    'expected exactly one "{}"'
                )

    @property
    def prompts(self) -> list[str]:
        """All prompts, those of one occupation next to one another."""
        return [
            template.replace("{}", one) for one in self.occupations for template in self.templates
        ]

    @property
    def contrasting(self) -> Occupations:
        """The same templates with the contrasts in place of occupations."""
        return replace(self, occupations=self.contrasts, contrasts=())

    def split(self, every: int = HELD_OUT) -> tuple[Occupations, Occupations]:
        """Split off every n-th occupation, template and contrast.

        Args:
            every: n; 0 splits nothing off.

        Returns:
            (edited, held out); without a split the two are equal.

        Raises:
            InvalidInput: `every` is 1 or negative, or there are fewer occupations or templates.
        """
        if every == 0:
            return self, self
        least = min(len(self.occupations), len(self.templates))
        if every < 2 or least < every:
            raise InvalidInput(
                f"every {every}. of {len(self.occupations)} occupations and {len(self.templates)} "
                "templates cannot be held out, expected 2 or more and at most their number: "
                "give more of them, or hold out none with 0"
            )
        return self._part(every, held_out=False), self._part(every, held_out=True)

    def _part(self, every: int, *, held_out: bool) -> Occupations:
        def chosen(texts: Sequence[str]) -> tuple[str, ...]:
            last = every - 1
            return tuple(t for n, t in enumerate(texts) if (n % every == last) == held_out)

        names = ("occupations", "templates", "contrasts")
        return replace(self, **{name: chosen(getattr(self, name)) for name in names})


@cache
def shipped_occupations() -> Occupations:
    """Return the occupations, templates and contrasts that ship with emend, in English."""
    return _of_object(json.loads(SHIPPED.read_text(encoding="utf-8")), SHIPPED)


def read_occupations(path: str | Path, templates: str | Path | None = None) -> Occupations:
    """Read occupations from a file, with the templates and contrasts that ship, or a file's.

    The file is text with one occupation a line, a JSON list of them, a JSON object with the fields
    of `Occupations`, or a relation of LRE (arXiv 2308.09124; ``occupation_gender.json``), whose
    subjects are plural nouns: their final "s" is dropped.

    Args:
        path: The file.
        templates: A text file with one template a line.

    Raises:
        BrokenFile: It is none of these.
        InvalidInput: It cannot be read, or what it holds gives no prompts.
        MissingFile: There is no such file.
    """
    path = Path(path)
    text = _text(path, "occupations")
    found = _parsed(text, path) if text.lstrip()[:1] in ("{", "[") else _lines(text)
    if isinstance(found, list):
        found = {"occupations": found}
    own = _of_object(found, path)
    if templates is not None:
        own = replace(own, templates=tuple(_lines(_text(Path(templates), "templates"))))
    return own


def _text(path: Path, what: str) -> str:
    if not path.exists():
        raise MissingFile(f"there is no file {path}: check the path given for {what}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidInput(f"cannot read {path} ({reason}): expected a file of {what}") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in split_lines(text) if line.strip()]


def _parsed(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BrokenFile(
            f"{path} is not JSON ({error}): correct it, or write one a line"
        ) from error


def _of_object(found: Any, path: Path) -> Occupations:
    """Make occupations of a JSON object; those that ship fill in what it lacks."""
    given = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if "samples" in given:
        samples = cast("list[Any]", given["samples"])
        given = {"occupations": [_singular(one) for one in samples]}
    names = given.get("occupations")
    if not isinstance(names, list):
        raise BrokenFile(
            f"{path} has no list of occupations, expected one a line, a JSON list, or an object "
            'with "occupations" (or "samples" with subjects, as LRE has them)'
        )
    usual = None if path == SHIPPED else shipped_occupations()

    def texts(name: str) -> tuple[str, ...]:
        value = given.get(name, getattr(usual, name, ()))
        return tuple(cast("Sequence[str]", value))

    return Occupations(
        texts("occupations"),
        texts("templates"),
        cast("tuple[str, str]", tuple(given.get("pair", ("he", "she")))),
        texts("contrasts"),
    )


def _singular(sample: object) -> object:
    """Return the subject of a sample of LRE without its plural "s"."""
    subject: object = (
        cast("dict[str, object]", sample).get("subject") if isinstance(sample, dict) else None
    )
    if isinstance(subject, str) and subject.endswith("s") and not subject.endswith("ss"):
        return subject[:-1]
    return subject
