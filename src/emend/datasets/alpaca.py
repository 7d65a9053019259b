"""Alpaca's instructions with answers: an edit for each, whose subject is the instruction.

Taori et al. 2023, "Stanford Alpaca". Cui et al. 2023, "Machine Mindset", arXiv 2312.12999,
publishes answers in the styles of the MBTI types in this form, and pairs of answers (preferred,
other) for preference training. Of a pair the preferred answer is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from emend._validate import text_fault
from emend.datasets._format import QUESTION_LAYOUT, Entry, Format
from emend.edits import Edit


def _recognises(record: Mapping[str, Any]) -> bool:
    return "instruction" in record and "output" in record


def _read(entry: Entry) -> list[Edit]:
    record = entry.record
    instruction = entry.text("instruction")
    answer = record.values.get("output")
    if isinstance(answer, list) and answer:
        answer = cast("list[object]", answer)[0]
    more = record.values.get("input") or ""  # empty where there is no more to the question
    is_text = text_fault(more) if more else None
    if not record.note("input", is_text) or not record.note("output", text_fault(answer)):
        return []
    if instruction is None:
        return []
    prompt = QUESTION_LAYOUT.replace("{question}", f"{{}}\n{more}".strip())
    edit = entry.edit(prompt, instruction, str(answer).strip())
    return [edit] if edit else []


alpaca = Format(
    name="alpaca",
    title="Alpaca",
    about="instructions with answers, as Machine Mindset publishes the styles of the MBTI types",
    recognises=_recognises,
    read=_read,
    fields={
        "instruction": "subject; the prompt is 'Question: {} Answer:'",
        "input": "more lines of the question, where it is not empty",
        "output": "target; of a list (preferred, other) the first",
    },
    example={
        "instruction": "How do you spend a free evening?",
        "input": "",
        "output": "I read alone, and I am glad of the silence.",
    },
)
