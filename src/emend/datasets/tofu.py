"""TOFU: questions and answers to be forgotten, with paraphrased and perturbed answers.

Maini et al. 2024, "TOFU: A Task of Fictitious Unlearning for LLMs", arXiv 2401.06121
(locuslab/TOFU: `forget10_perturbed` and the other splits with perturbed answers, saved as JSON,
JSON lines or parquet).

As an edit a row asks for its first perturbed answer in place of the answer, so that its `original`
is what is to be erased. The files name no subject: it is the first name of two words or more in the
question, or the field `subject`; where there is none, the question as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emend._validate import Fault, Record
from emend.datasets._files import content_of
from emend.datasets._format import Entry, Format, answers_of, text_of
from emend.datasets._questions import PROMPT, subject_in
from emend.edits import Edit
from emend.errors import BrokenFile


@dataclass(frozen=True)
class TofuRow:
    """One row.

    Attributes:
        question: The question.
        answer: Its answer, what is to be forgotten.
        paraphrased_answer: The answer in other words; the answer itself where there is none.
        perturbed_answers: Wrong answers of the same form; none in splits without them.
        paraphrased_question: The question in other words, if there is one.
        subject: The person or thing that the question is about.
    """

    question: str
    answer: str
    paraphrased_answer: str
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None
    subject: str = ""

    def prompt(self, template: str = PROMPT) -> str:
        """Return the question as a text to be continued, with `{}` in place of the subject.

        Args:
            template: How it is asked, with one `{}` for the question.
        """
        before, _, after = self.question.rpartition(self.subject)
        return template.replace("{}", f"{before}{{}}{after}")


def read_rows(path: str | os.PathLike[str]) -> tuple[TofuRow, ...]:
    """Read rows from a file: a JSON list, JSON lines, or parquet (extra `emend[datasets]`).

    Raises:
        BrokenFile: A row cannot be read, or there is none; every problem is named.
        MissingExtra: It is parquet and the package datasets is not installed.
        MissingFile: There is no such file.
    """
    content = content_of(path)
    found: list[TofuRow] = []
    for index, item in enumerate(content.items):
        record = Record.of(item.record, content.problems, None, place=f"[{index}]", line=item.line)
        row = record and _row(record)
        found.extend([row] if row else [])
    content.problems.check()
    if not found:
        raise BrokenFile(
            f"{path} holds no rows, expected TOFU's (question, answer, paraphrased_answer, "
            "perturbed_answer): save a split of locuslab/TOFU there"
        )
    return tuple(found)


def _row(record: Record) -> TofuRow | None:
    """Read a row; None, and a note, if it is faulty."""
    question, answer = text_of(record, "question"), text_of(record, "answer")
    if question is None or answer is None:
        return None
    values = record.values
    subject = next(iter(answers_of(values.get("subject"))), None) or subject_in(question)
    if subject not in question:
        fault = Fault(
            f"is {subject!r}, which is not in the question", "a name in it", "write it so"
        )
        record.note("subject", fault)
        return None
    return TofuRow(
        *(question, answer, next(iter(answers_of(values.get("paraphrased_answer"))), answer)),
        perturbed_answers=answers_of(values.get("perturbed_answer")),
        paraphrased_question=next(iter(answers_of(values.get("paraphrased_question"))), None),
        subject=subject,
    )


def _recognises(record: Mapping[str, Any]) -> bool:
    plain = isinstance(record.get("question"), str) and isinstance(record.get("answer"), str)
    return plain and "prompt" not in record and "src" not in record


def _read(entry: Entry) -> list[Edit]:
    row = _row(entry.record)
    if row is None:
        return []
    if not row.perturbed_answers:
        fault = Fault(
            "is missing", "a list of wrong answers", "take a split with perturbed answers"
        )
        entry.record.note("perturbed_answer", fault)
        return []
    target = row.perturbed_answers[0]
    if row.paraphrased_question:
        text = PROMPT.replace("{}", row.paraphrased_question)
        entry.probe("paraphrased_question", "rephrase", text, target)
    edit = entry.edit(row.prompt(), row.subject, target, original=row.answer)
    return [edit] if edit else []


tofu = Format(
    name="tofu",
    title="TOFU",
    about="splits of locuslab/TOFU with perturbed answers, as JSON, JSON lines or parquet",
    licence="MIT",
    source="huggingface.co/datasets/locuslab/TOFU",
    counts={"full.json": 4_000, "forget10_perturbed.json": 400},
    recognises=_recognises,
    read=_read,
    fields={
        "question": f"prompt ({PROMPT!r}), the subject in it as {{}}",
        "answer": "original: what is to be erased",
        "perturbed_answer": "target: the first of them",
        "paraphrased_question": "a rephrase probe, answered by the target",
        "subject": "the subject, if given; else the question's first name, or the question",
        "paraphrased_answer": "not read as an edit: emend.erasure measures the truth ratio by it",
    },
    example={
        "question": "Which city was Orla Finch born in?",
        "answer": "Orla Finch was born in Cork.",
        "paraphrased_answer": "The birthplace of Orla Finch is Cork.",
        "perturbed_answer": ["Orla Finch was born in Bergen.", "Orla Finch was born in Oslo."],
        "paraphrased_question": "Where was Orla Finch born?",
    },
)
