"""Between an `Edit` and the plain record (mapping) that files hold."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from emend._validate import Problems, Record, name_fault
from emend.edits._edit import Edit, Probe, group_fault, prompt_fault
from emend.errors import BrokenFile

FIELDS = tuple(field.name for field in fields(Edit))
_PROBE = tuple(field.name for field in fields(Probe))


def edit_to_record(edit: Edit) -> dict[str, Any]:
    """The plain record of an edit, in the order of its fields; what is not set is left out."""
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
    return record


def edit_from_record(record: object) -> Edit:
    """The edit a plain record describes.

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
    """The edit of a record; None, and a problem noted for each thing wrong with it.

    Args:
        value: What stands there.
        problems: Where to note what is wrong.
        place: Where the record stands in what is read.
        line: The line on which it begins, where known.
    """
    before = len(problems)
    record = Record.of(value, problems, FIELDS, what="the edit", place=place, line=line)
    if record is None:
        return None
    prompt = record.text("prompt", prompt_fault)
    subject = record.text("subject", name_fault)
    target = record.text("target")
    original, relation = (record.text(name, required=False) for name in ("original", "relation"))
    given = record.text("id", name_fault, required=False)
    probes = tuple(_probes(record))
    if len(problems) > before or prompt is None or subject is None or target is None:
        return None
    return Edit(prompt, subject, target, original, given or "", relation, probes)


def _probes(record: Record) -> list[Probe]:
    found: list[Probe] = []
    for each in record.records("probes", _PROBE):
        group, prompt = each.text("group", group_fault), each.text("prompt")
        answers = each.texts("answers", least=1)
        if group and prompt and answers:
            found.append(Probe(group, prompt, answers))
    return found
