"""emend's own form: the fields of `emend.Edit`, in JSON lines, JSON, YAML or a table.

Its records are the user's own, so that they are checked strictly and every mistake is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend.datasets._format import Entry, Format, template_of
from emend.edits import Edit
from emend.edits.record import parse_edit


def _recognises(record: Mapping[str, Any]) -> bool:
    return all(name in record for name in ("prompt", "subject", "target"))


def _read(entry: Entry) -> list[Edit]:
    record = entry.record
    edit = parse_edit(placed(record.values), record.problems, line=record.line)
    return [edit] if edit else []


def placed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the subject by `{}` in a prompt that lacks it; return the fields."""
    parts = values.get("translations")
    if isinstance(parts, list):
        each = cast("list[object]", parts)
        inner = [placed(one) if isinstance(one, Mapping) else one for one in each]
        values = {**values, "translations": inner}
    prompt, subject = values.get("prompt"), values.get("subject")
    if isinstance(prompt, str) and isinstance(subject, str) and "{}" not in prompt:
        found = template_of(prompt, subject)
        if found is not None and found[1] == subject:
            return {**values, "prompt": found[0]}
    return dict(values)


emend = Format(
    name="emend",
    title="emend",
    about="our own form: the fields of emend.Edit; in a table a column for each probe",
    recognises=_recognises,
    read=_read,
    fields={
        "prompt": "prompt; where it lacks {}, the subject becomes {}",
        "subject, target": "subject, target",
        "original, id, relation": "the same, where they are given",
        "probes": "a list of objects with group, prompt, answers",
        "language": "the language of prompt, subject and target, as 'zh' or 'pt-BR'",
        "translations": "the same edit in other languages: a list of objects with language, "
        "prompt, subject, target and what else an edit has but an id; in a table a JSON list",
        "translation_of": "the id of the edit that a plain edit is a translation of",
        "GROUP, GROUP_2, ... (tables)": "a probe of the group, such as rephrase or one_hop",
        "GROUP_answer, GROUP_2_answer, ... (tables)": "what answers it: a text or a JSON list",
    },
    example={
        "id": "edit-17",
        "prompt": "{} was born in",
        "subject": "Ana Bel",
        "target": "Paris",
        "original": "Rome",
        "relation": "birthplace",
        "probes": [
            {"group": "rephrase", "prompt": "The birthplace of Ana Bel is", "answers": ["Paris"]},
            {"group": "neighborhood", "prompt": "Tom Ast was born in", "answers": ["Oslo"]},
        ],
        "translations": [
            {"language": "zh", "prompt": "{}出生于", "subject": "安娜·贝尔", "target": "巴黎"}
        ],
    },
)
