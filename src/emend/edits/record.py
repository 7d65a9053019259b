"""Convert between `Edit` and the plain record (mapping) that files hold."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from emend._validate import Fault, Problems, Record, name_fault
from emend.edits._edit import Edit, Probe, group_fault, language_fault, prompt_fault
from emend.errors import BrokenFile, InvalidInput

FIELDS = tuple(field.name for field in fields(Edit))
_PROBE = tuple(field.name for field in fields(Probe))
_TRANSLATION = ("language", "prompt", "subject", "target", "original", "relation", "probes")


def edit_to_record(edit: Edit) -> dict[str, Any]:
    """Return the plain record of an edit, without fields that are not set."""
    record: dict[str, Any] = {"id": edit.id}
    record.update((name, getattr(edit, name)) for name in ("prompt", "subject", "target"))
    for name in ("original", "relation"):
        if getattr(edit, name) is not None:
            record[name] = getattr(edit, name)
    if edit.probes:
        record["probes"] = [
            {"group": probe.group, "prompt": probe.prompt, "answers": list(probe.answers)}
            for probe in edit.probes
        ]
    if edit.language is not None:
        record["language"] = edit.language
    if edit.translation_of is not None:
        record["translation_of"] = edit.translation_of
    if edit.translations:
        record["translations"] = [_translation_record(each) for each in edit.translations]
    return record


def _translation_record(edit: Edit) -> dict[str, Any]:
    """Return the record of a translation, whose ids are derived again when it is read."""
    record = edit_to_record(edit)
    return {name: record[name] for name in _TRANSLATION if name in record}


def edit_from_record(record: object) -> Edit:
    """Read an edit from a plain record.

    Raises:
        BrokenFile: Fields are missing, unknown or cannot be used; `problems` names all of them.
    """
    problems = Problems("the record")
    edit = parse_edit(record, problems)
    if edit is None:
        raise BrokenFile("; ".join(problem.said for problem in problems.found))
    return edit


def parse_edit(
    value: object, problems: Problems, *, place: str = "", line: int | None = None
) -> Edit | None:
    """Read an edit; on errors note each problem and return None.

    Args:
        value: The record.
        problems: Collects the problems.
        place: The record's place in the file, for messages.
        line: The line on which it begins, if known.
    """
    before = len(problems)
    record = Record.of(value, problems, FIELDS, what="the edit", place=place, line=line)
    return None if record is None else _edit(record, before)


def _edit(record: Record, before: int, *, translation: bool = False) -> Edit | None:
    """Read an edit; None if more than `before` problems were noted."""
    prompt = record.text("prompt", prompt_fault)
    subject = record.text("subject", name_fault)
    target = record.text("target")
    original, relation = (record.text(name, required=False) for name in ("original", "relation"))
    given = record.text("id", name_fault, required=False)
    probes = tuple(_probes(record))
    language = record.text("language", language_fault, required=translation)
    of = record.text("translation_of", name_fault, required=False)
    translations = [
        _edit(each, len(record.problems), translation=True)
        for each in record.records("translations", _TRANSLATION)
    ]
    if len(record.problems) > before or prompt is None or subject is None or target is None:
        return None
    parts = tuple(each for each in translations if each is not None)
    rest = (original, given or "", relation, probes, language, parts, of)
    try:
        return Edit(prompt, subject, target, *rest)
    except InvalidInput as error:  # of what only the translations together show
        fault = Fault(f"cannot be used: {error}", "", "")
        record.problems.note(fault, record.place or "the edit", record.line)
    return None


def _probes(record: Record) -> list[Probe]:
    found: list[Probe] = []
    for each in record.records("probes", _PROBE):
        group, prompt = each.text("group", group_fault), each.text("prompt")
        answers = each.texts("answers", least=1)
        if group and prompt and answers:
            found.append(Probe(group, prompt, answers))
    return found
