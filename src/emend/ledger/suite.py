"""The suite of a gate: what a patched model has to show, read from a file and checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from emend._io import split_lines
from emend._parse import LONGEST_FILE, decode, read_document
from emend._settings import from_file
from emend._validate import Fault, Problems, Record, choice_fault
from emend.errors import InvalidInput, MissingFile


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
    """Read a suite. Paths in it start at its directory.

    Args:
        path: A `.json` file, or `.yaml` or `.yml` (which needs the extra `yaml`).

    Raises:
        MissingFile: There is no such file.
        InvalidInput: It is a directory, or has another suffix.
        BrokenFile: Something in it cannot be used; there is a line about each thing.
        MissingExtra: It is YAML and pyyaml is not installed.
    """
    path = Path(path)
    document = read_document(path, "a suite")
    problems = Problems(str(path), document.line_of)
    return _parsed(document.content, problems, path.parent, path.stem)


def parse_suite(
    record: object, where: str = "suite", directory: Path | None = None, name: str = "suite"
) -> Suite:
    """Parse the suite that a plain record (mapping) describes.

    Args:
        record: What a suite's file holds.
        where: What the record is called in messages.
        directory: Where files that it names are; by default the working directory.
        name: What the suite is called where it does not say.

    Raises:
        BrokenFile: Something in it cannot be used; there is a line about each thing.
    """
    return _parsed(record, Problems(where), directory or Path(), name)


def _parsed(record: object, problems: Problems, directory: Path, name: str) -> Suite:
    top = Record.of(record, problems, TOP, what="the suite")
    suite = _suite(top, directory, name) if top else Suite()
    if top and not any(check in top.values for check in CHECKS):
        fault = Fault("checks nothing", f"one of {', '.join(CHECKS)}", "add one")
        problems.note(fault, "the suite")
    problems.check()
    return suite


def _suite(top: Record, directory: Path, name: str) -> Suite:
    method = top.text("method", required=False)
    return Suite(
        name=top.text("name", required=False) or name,
        method=method,
        settings=_settings(top, method),
        metrics=_metrics(top),
        must_change=_probes(top, "must_change", answers=1),
        must_not_change=_probes(top, "must_not_change", answers=0),
        perplexity=_perplexity(top, directory),
        multiple_choice=_choices(top),
    )


def _settings(top: Record, method: str | None) -> dict[str, Any]:
    from emend import methods

    registry = methods.registry()
    if method is not None and not top.note("method", choice_fault(method, registry.names())):
        return {}
    given = top.mapping("settings")
    if given and method is None:
        top.note("settings", Fault("are given without a method", "both", "add method"))
        return {}
    if method is None:
        return {}
    config_type, kept = registry.get(method).config_type, dict[str, Any]()
    inner = top.record("settings", [one.name for one in fields(config_type)])
    for name, value in inner.values.items() if inner else ():
        try:
            kept |= from_file(method, config_type, {name: value})
        except (InvalidInput, MissingFile) as error:
            said = str(error).removeprefix(f"setting {name} ")
            top.problems.note(Fault(said, "", ""), f"settings.{name}")
    return kept


def _metrics(top: Record) -> dict[str, float]:
    from emend import metrics

    registry = metrics.registry()
    # Of a measure that is no share from 0 to 1, "at least" says nothing.
    known = [name for name in registry.names() if registry.get(name).unit == "share"]
    if top.values.get("metrics") == {}:
        top.note("metrics", Fault("is empty", f"one of {', '.join(known)}", "add one"))
    inner = top.record("metrics", known)
    return {name: inner.number(name, most=1) for name in inner.values} if inner else {}


def _probes(top: Record, name: str, answers: int) -> Probes | None:
    inner = top.record(name, ("at_least", "probes"))
    if inner is None:
        return None
    found = [
        Probe(each.text("prompt") or "", each.texts("answers", least=answers, distinct=True))
        for each in inner.records("probes", ("prompt", "answers"), least=1)
    ]
    return Probes(tuple(found), inner.number("at_least", 1.0, most=1))


def _perplexity(top: Record, directory: Path) -> Perplexity | None:
    inner = top.record("perplexity", ("at_most_increase", "file", "texts"))
    if inner is None:
        return None
    increase = inner.number("at_most_increase")
    if ("file" in inner.values) == ("texts" in inner.values):
        there = "both file and texts" if "file" in inner.values else "neither file nor texts"
        fault = Fault(f"has {there}", "one of them", "give one")
        inner.problems.note(fault, inner.place)
        return None
    if "texts" in inner.values:
        return Perplexity(inner.texts("texts", least=1, distinct=True), increase)
    return Perplexity(_lines(inner, "file", directory), increase)


def _lines(given: Record, name: str, directory: Path) -> tuple[str, ...]:
    """Read the non-empty lines of the text file that a field names."""
    file = given.text(name)
    if file is None:
        return ()
    path = directory / file
    try:
        size = path.stat().st_size
        raw = path.read_bytes() if size <= LONGEST_FILE else b""
    except OSError as error:
        reason = f"is {path}, which cannot be read ({(error.strerror or 'unreadable').lower()})"
        given.note(name, Fault(reason, "a text file", "paths start where the suite is"))
        return ()
    if size > LONGEST_FILE:
        found = f"is {path}, which has {size:,} bytes"
        given.note(name, Fault(found, f"at most {LONGEST_FILE:,}", "take a part of it"))
        return ()
    inside = Problems(str(path))
    lines = tuple(line for line in split_lines(decode(raw, inside) or "") if line.strip())
    if inside:
        problem = inside.found[0]
        found = f"is {path}, in whose line {problem.line} we {problem.fault.found}"
        given.note(name, problem.fault._replace(found=found))
    elif not lines:
        given.note(name, Fault(f"is {path}, which holds no text", "some", "write it"))
    return lines


def _choices(top: Record) -> Choices | None:
    inner = top.record("multiple_choice", ("at_most_drop", "questions"))
    if inner is None:
        return None
    found: list[Choice] = []
    for each in inner.records("questions", ("prompt", "choices", "answer"), least=1):
        prompt, choices = each.text("prompt"), each.texts("choices", least=2, distinct=True)
        answer = each.choice("answer", choices) if choices else None
        if prompt and answer:
            found.append(Choice(prompt, choices, choices.index(answer)))
    return Choices(tuple(found), inner.number("at_most_drop", most=100))
