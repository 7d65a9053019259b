"""What a dataset with files is made of: a `Format`, whose function reads an `Entry` as edits."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from emend._brief import brief
from emend._validate import Fault, Problems, Record, shown, text_fault
from emend.edits import Edit, MultiHop, Probe, normalised
from emend.errors import InvalidInput

GROUP_NAMES: Mapping[str, str] = {
    "subject_aliasing": "subject_alias",
    "subject_replace": "subject_alias",
    "synonym": "subject_alias",
    "reasoning": "one_hop",
    "compositionality_i": "one_hop",
    "compositionality_ii": "one_hop",
    "reverse": "reverse_relation",
    "inverse_relation": "reverse_relation",
    "reversed_relation": "reverse_relation",
    "relation_specifity": "relation_specificity",
    "other_attribution": "relation_specificity",
    "neighbourhood": "neighborhood",
    "distract_neighbor": "distracting",
    "distracting_neighbor": "distracting",
    "logical_generalization": "logical_generalization",
    **{name: name for name in ("subject_alias", "reverse_relation", "one_hop", "rephrase")},
    **{name: name for name in ("relation_specificity", "neighborhood", "forgetfulness")},
    "distracting": "distracting",
}
"""Groups of probes by the datasets' own spelling (in lower case, with underscores)."""

QUESTION_LAYOUT = "Question: {question} Answer:"
"""How a question that wants an answer of some sentences is put to a model."""


@dataclass(frozen=True)
class Score:
    """A mean over edits of what one measure records.

    Attributes:
        measure: Its name, such as "locality".
        protocol: How an answer is judged, such as "teacher_forced".
        group: The group of probes; None for the mean over the groups that an edit has.
    """

    measure: str
    protocol: str
    group: str | None = None


@dataclass(frozen=True)
class HarmonicMean:
    """The harmonic mean of scores that come before it."""

    of: tuple[str, ...]


PublishedScore: TypeAlias = "Score | HarmonicMean"


@brief
@dataclass(frozen=True)
class Format:
    """A published form of records, or emend's own; each is also a dataset, read from a file.

    Attributes:
        name: The name of its module.
        title: Its usual name.
        about: One line: its origin, and the files that have it.
        recognises: Returns whether a record is of this form, by its fields.
        read: Returns the edits of a record; none if it is faulty, which it notes.
        fields: What each field becomes; fields that are not listed are not read.
        example: A record, invented.
        multi_hop: Returns the multi-hop instance of a record, if the format has them; None, and a
            note, if it is faulty.
        licence: Its licence, as its publishers state it.
        source: The address at which its files are published.
        counts: Number of records by file, as published.
        published: The dataset's own scores by their usual names, made of what emend's measures
            record about its edits.
        cases: The name of the measure of `emend.metrics` whose cases the records are, where the
            dataset's own scores need more than edits ("multi_hop", "ripple").
    """

    name: str
    title: str
    about: str
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Entry], list[Edit]]
    fields: Mapping[str, str]
    example: Mapping[str, Any]
    multi_hop: Callable[[Record], MultiHop | None] | None = None
    licence: str = ""
    source: str = ""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
    published: Mapping[str, PublishedScore] = dataclasses.field(
        default_factory=dict[str, PublishedScore]
    )
    cases: str = ""


class Entry:
    """One record of a published file while it is read.

    Args:
        record: Its fields; faults are noted, and leave the record out.
        left_out: Collects probes that cannot be asked; the edit is read without them.
        form: The name of the format, from which ids are made.
    """

    def __init__(self, record: Record, left_out: Problems, form: str) -> None:
        self.record = record
        self.form = form
        self.left_out = left_out
        self._probes: list[Probe] = []

    def text(self, name: str) -> str | None:
        """Read a required text, without white space around it."""
        return text_of(self.record, name)

    def probe(self, field: str, group: str, prompt: object, answers: object) -> None:
        """Add a probe; if it cannot be asked, note why it is left out.

        Args:
            field: Its place in the record, for messages.
            group: Its group, as in `emend.edits.GROUPS`.
            prompt: The question.
            answers: The accepted answers; see `answers_of`.
        """
        accepted = answers_of(answers)
        fault = text_fault(prompt)
        if fault is None and not accepted:
            fault = Fault("has no answer", "at least one", "")
        if self._note(field, fault):
            self._probes.append(Probe(group, cast(str, prompt).strip(" "), accepted))

    def family(self, name: str, subject: str | None) -> None:
        """Add the probes of an object of groups of questions (`portability`, `locality`), if any.

        Each group holds one object, or a list of them, with `prompt` and `ground_truth`; in
        EasyEdit's form each of these may be a list.
        """
        groups = self.record.values.get(name)
        if groups is None or not isinstance(groups, Mapping):
            self._note(name, Fault("is no object", "groups of questions", "") if groups else None)
            return
        for spelled, questions in cast("Mapping[str, object]", groups).items():
            group = GROUP_NAMES.get("_".join(re.findall(r"\w+", spelled.casefold())))
            if not self._note(f"{name}.{spelled}", None if group else _unknown_group(spelled)):
                continue
            for field, prompt, answers in _questions(f"{name}.{spelled}", questions):
                self.probe_of(field, str(group), prompt, answers, subject)

    def probe_of(
        self, field: str, group: str, prompt: object, answers: object, subject: str | None
    ) -> None:
        """Add a probe as `probe` does; a logical generalisation is resolved by its answer.

        It is a reverse relation if the subject answers it, else one hop.
        """
        if group == "logical_generalization":
            reverse = subject and normalised(subject) in map(normalised, answers_of(answers))
            group = "reverse_relation" if reverse else "one_hop"
        self.probe(field, group, prompt, answers)

    def edit(
        self,
        prompt: str | None,
        subject: str | None,
        target: str | None,
        *,
        original: object = None,
        relation: object = None,
    ) -> Edit | None:
        """Make the edit with the probes added so far; None, and a note, if it cannot be made."""
        if prompt is None or subject is None or target is None:
            return None
        template = template_of(prompt, subject)
        if template is None:
            found = f"is {shown(subject)}, which does not occur in the prompt {shown(prompt, 80)}"
            self.record.note("subject", Fault(found, "the prompt to name it", "write it so there"))
            return None
        former = next(iter(answers_of(original)), None)
        related = next(iter(answers_of(relation)), None)
        case = next(iter(answers_of(self.record.values.get("case_id"))), None)
        id = "" if case is None else f"{self.form}-{case}"
        try:
            return Edit(*template, target, former, id, related, tuple(self._probes))
        except InvalidInput as error:
            self.record.note("the edit", Fault(f"cannot be made: {error}", "", ""))
            return None

    def _note(self, field: str, fault: Fault | None) -> bool:
        return self.left_out.note(fault, self.record.at(field), self.record.line)


def text_of(record: Record, name: str) -> str | None:
    """Read a required text, without white space around it; a number as its digits."""
    value = record.values.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    text = record.text(name)
    return None if text is None else text.strip()


def answers_of(value: object) -> tuple[str, ...]:
    """Return the accepted answers in a value, each once, without white space around them.

    A text is one answer, a list holds several; a list of lists (the aliases of each answer) is
    flattened, and empty texts are no answers.
    """
    if isinstance(value, str):
        return (value.strip(),) if value.strip() else ()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (str(value),)
    if isinstance(value, (list, tuple)):
        found = (answer for part in cast("list[object]", value) for answer in answers_of(part))
        return tuple(dict.fromkeys(found))
    return ()


def template_of(prompt: str, subject: str) -> tuple[str, str] | None:
    """Replace the subject in a prompt by `{}`; None if the prompt does not contain it.

    Of several places the last is taken, where the model has read most of the prompt. Part of a
    longer word is no place, in scripts that separate words. If only the case differs, the subject
    is spelled as in the prompt.

    Returns:
        The prompt with `{}`, without spaces at its end, and the subject.
    """
    prompt, subject = prompt.rstrip(" "), subject.strip()
    if "{}" in prompt:
        return prompt, subject
    for flags in (0, re.IGNORECASE) if subject else ():
        spans = [found.span() for found in re.finditer(re.escape(subject), prompt, flags)]
        for start, end in reversed(spans):
            before, after = prompt[max(start - 1, 0) : start], prompt[end : end + 1]
            if not _one_word(before, prompt[start]) and not _one_word(prompt[end - 1], after):
                return prompt[:start] + "{}" + prompt[end:], prompt[start:end]
    return None


def _one_word(left: str, right: str) -> bool:
    """Return whether two adjacent characters are in one word: letters with case, or digits."""
    return all(one.isdigit() or one.lower() != one.upper() for one in (left, right)) and bool(
        left and right
    )


def listed(value: object) -> list[object]:
    """Return a list unchanged, None as an empty list, anything else as a list of one."""
    if value is None:
        return []
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _questions(field: str, value: object) -> Iterable[tuple[str, object, object]]:
    """Yield the place, prompt and answers of each question of a group."""
    for index, one in enumerate(listed(value)):
        place = f"{field}[{index}]" if isinstance(value, list) else field
        if not isinstance(one, Mapping):
            yield place, None, None
            continue
        question = cast("Mapping[str, object]", one)
        prompts, answers = question.get("prompt"), question.get("ground_truth")
        if not isinstance(prompts, list):
            yield place, prompts, answers
            continue
        for number, prompt in enumerate(cast("list[object]", prompts)):
            each = cast("list[object]", answers) if isinstance(answers, list) else []
            yield f"{place}.prompt[{number}]", prompt, each[number] if number < len(each) else None


def _unknown_group(name: str) -> Fault:
    known = "subject_alias, reverse_relation, one_hop, relation_specificity, neighborhood, "
    return Fault(f"{shown(name)} is an unknown group", f"{known}forgetfulness, distracting", "")


def drawn(found: list[Any], limit: int | None, seed: str) -> list[Any]:
    """Draw `limit` of the items, in their order; all of them if there are no more."""
    if limit is None or limit >= len(found):
        return found
    chosen = random.Random(seed).sample(range(len(found)), limit)
    return [found[index] for index in sorted(chosen)]
