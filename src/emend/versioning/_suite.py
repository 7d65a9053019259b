"""The suite of a gate: what a patched model has to show, read from a file and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from emend._settings import from_file
from emend.errors import InvalidInput, MissingFile
from emend.versioning._rules_file import Problems, load_file
from emend.versioning._suite_parts import Fields


@dataclass(frozen=True)
class Probe:
    """A prompt of the user's own.

    Attributes:
        prompt: The full text to be continued.
        answers: The accepted answers; may be empty where the answer has to stay.
    """

    prompt: str
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probes:
    """Prompts of the user's own, and the share of them that has to hold, from 0 to 1."""

    probes: tuple[Probe, ...]
    at_least: float = 1.0


@dataclass(frozen=True)
class Perplexity:
    """Running texts, and by what share their perplexity may rise (0.05 is five percent)."""

    texts: tuple[str, ...]
    at_most_increase: float


@dataclass(frozen=True)
class Choice:
    """A prompt, the texts that may follow it, and the index of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Choices:
    """Multiple-choice questions, and how many points (of 100) the share of right ones may drop."""

    questions: tuple[Choice, ...]
    at_most_drop: float


@dataclass(frozen=True)
class Suite:
    """What a patched model has to show.

    Attributes:
        name: What it is called in the ledger and in reports.
        method: Name of the method to build with, or None where the suite does not say.
        settings: Settings of that method.
        metrics: The least value of measures of the active edits, by name; from 0 to 1.
        must_change: Prompts whose answers have to be given.
        must_not_change: Prompts whose answers have to stay those of the base.
        perplexity: Of general text.
        multiple_choice: General questions.
    """

    name: str = "suite"
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    must_change: Probes | None = None
    must_not_change: Probes | None = None
    perplexity: Perplexity | None = None
    multiple_choice: Choices | None = None


CHECKS = ("metrics", "must_change", "must_not_change", "perplexity", "multiple_choice")
TOP = ("name", "method", "settings", *CHECKS)


def read_suite(path: str | os.PathLike[str]) -> Suite:
    """Read a suite. Files that it names are looked for beside it.

    Args:
        path: A `.json` file, or `.yaml` or `.yml` (which needs the extra `yaml`).

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or has another suffix.
        BrokenFile: Something in it cannot be used; there is a line about each thing.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    path = Path(path)
    return parse_suite(load_file(path, "a suite"), str(path), path.parent, path.stem)


def parse_suite(
    record: object, where: str = "suite", directory: Path | None = None, name: str = "suite"
) -> Suite:
    """The suite that a plain record (mapping) describes.

    Args:
        record: What a suite's file holds.
        where: What the record is called in messages.
        directory: Where files that it names are; by default the working directory.
        name: What the suite is called where it does not say.

    Raises:
        BrokenFile: Something in it cannot be used; there is a line about each thing.
    """
    problems = Problems(where)
    top = Fields.of("the suite", record, TOP, problems)
    suite = _suite(top, directory or Path(), name) if top else Suite()
    if top and not any(check in top.values for check in CHECKS):
        problems.add("the suite", f"checks nothing, expected one of {', '.join(CHECKS)}: add one")
    problems.check()
    return suite


def _suite(top: Fields, directory: Path, name: str) -> Suite:
    method = top.text("method", None)
    return Suite(
        name=top.text("name", name) or name,
        method=method,
        settings=_settings(top, method),
        metrics=_metrics(top),
        must_change=_probes(top, "must_change", answers=1),
        must_not_change=_probes(top, "must_not_change", answers=0),
        perplexity=_perplexity(top, directory),
        multiple_choice=_choices(top),
    )


def _settings(top: Fields, method: str | None) -> dict[str, Any]:
    from emend import methods

    registry = methods.registry()
    if method is not None and not top.known("method", method, registry.names()):
        return {}
    given = top.mapping("settings")
    if given and method is None:
        top.problems.add("settings", "are given without a method, expected both: add method")
        return {}
    if method is None:
        return {}
    config_type, kept = registry.get(method).config_type, dict[str, Any]()
    names = [one.name for one in fields(config_type)]
    for name, value in given.items():
        if not top.known(f"settings.{name}", name, names):
            continue
        try:
            kept |= from_file(method, config_type, {name: value})
        except (InvalidInput, MissingFile) as error:
            top.problems.add("settings", str(error))
    return kept


def _metrics(top: Fields) -> dict[str, float]:
    from emend import metrics

    registry = metrics.registry()
    # Of a measure that is no share from 0 to 1, "at least" says nothing.
    known = [name for name in registry.names() if registry.get(name).unit == "share"]
    if top.values.get("metrics") == {}:
        top.problems.add("metrics", f"is empty, expected one of {', '.join(known)}: add one")
    inner = top.inner("metrics", tuple(known))
    return {name: inner.number(name, None, 1.0) for name in inner.values} if inner else {}


def _probes(top: Fields, name: str, answers: int) -> Probes | None:
    inner = top.inner(name, ("at_least", "probes"))
    if inner is None:
        return None
    found: list[Probe] = []
    for each in inner.objects("probes", ("prompt", "answers")):
        prompt = each.text("prompt") or ""
        found.append(Probe(prompt, each.texts("answers", least=answers)))
    return Probes(tuple(found), inner.number("at_least", 1.0, 1.0))


def _perplexity(top: Fields, directory: Path) -> Perplexity | None:
    inner = top.inner("perplexity", ("at_most_increase", "file", "texts"))
    if inner is None:
        return None
    increase = inner.number("at_most_increase", None)
    if ("file" in inner.values) == ("texts" in inner.values):
        inner.problems.add(inner.place, "expected either file or texts: give one of them")
        return None
    if "texts" in inner.values:
        return Perplexity(inner.texts("texts", least=1), increase)
    return Perplexity(inner.lines("file", directory), increase)


def _choices(top: Fields) -> Choices | None:
    inner = top.inner("multiple_choice", ("at_most_drop", "questions"))
    if inner is None:
        return None
    found: list[Choice] = []
    for each in inner.objects("questions", ("prompt", "choices", "answer")):
        prompt, choices = each.text("prompt") or "", each.texts("choices", least=2)
        answer = each.text("answer")
        if answer and choices and each.known("answer", answer, choices):
            found.append(Choice(prompt, choices, choices.index(answer)))
    return Choices(tuple(found), inner.number("at_most_drop", None, 100.0))
