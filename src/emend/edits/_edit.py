"""The records that everything else is about: `Edit`, `Probe`, and `MultiHop` questions."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import cast

from emend._validate import (
    Fault,
    check_text,
    checked_parts,
    choice_fault,
    name_fault,
    refuse,
    shown,
    text_fault,
)
from emend.errors import InvalidInput

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rephrase": ("rephrase", "after_context"),
        "portability": ("subject_alias", "reverse_relation", "one_hop"),
        "locality": ("relation_specificity", "neighborhood", "forgetfulness", "distracting"),
    }
)
"""Groups of probes by family: rephrase (must change), portability (should follow), locality (must
not change)."""

_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Probe:
    """A question with its accepted answers.

    Attributes:
        group: One of the groups in `GROUPS`, e.g. "neighborhood".
        prompt: The full text to be continued, without `{}`.
        answers: The accepted answers, at least one; for locality, those of the unedited model.

    Raises:
        InvalidInput: The group is unknown, or the prompt or an answer is empty.
    """

    group: str
    prompt: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        refuse("probe group", group_fault(self.group))
        check_text("probe prompt", self.prompt)
        object.__setattr__(self, "answers", _texts("probe answers", self.answers))


@dataclass(frozen=True)
class Edit:
    """One requested change of a model's knowledge.

    Attributes:
        prompt: The statement up to the answer, with exactly one `{}` in place of the subject:
            "{} was born in".
        subject: The person or thing that the statement is about.
        target: The text that the model must generate. A space is put before it where the script
            and context require one; see `emend.edits.joining`.
        original: The model's present answer, if known.
        id: The edit's name in patches and records; by default a hash of prompt, subject, target.
        relation: The name of the relation, if the data has relations.
        probes: Questions to ask before and after.
        language: The language of prompt, subject and target, as a tag of BCP 47 ("zh", "pt-BR").
        translations: The same edit in other languages: edits with a language, each with its own
            prompt, subject, target and probes. They are made and taken out together with this
            one, and their ids derive from its id ("edit-7/zh").
        translation_of: The id of the edit that this one is a translation of; set by that edit.

    Raises:
        InvalidInput: A field cannot be used; the message names it and what was expected.
    """

    prompt: str
    subject: str
    target: str
    original: str | None = None
    id: str = ""
    relation: str | None = None
    probes: tuple[Probe, ...] = ()
    language: str | None = None
    translations: tuple[Edit, ...] = ()
    translation_of: str | None = None

    def __post_init__(self) -> None:
        refuse("prompt", prompt_fault(self.prompt))
        refuse("subject", name_fault(self.subject))
        check_text("target", self.target)
        if self.original is not None:
            check_text("original", self.original)
        if self.relation is not None:
            check_text("relation", self.relation)
        if self.language is not None:
            refuse("language", language_fault(self.language))
        if self.translation_of is not None:
            refuse("translation_of", name_fault(self.translation_of))
        object.__setattr__(
            self, "probes", checked_parts("probes", self.probes, Probe, "emend.Probe objects")
        )
        translations = checked_parts("translations", self.translations, Edit, "emend.Edit objects")
        object.__setattr__(self, "translations", translations)
        if self.id != "":
            refuse("id", name_fault(self.id))
        else:
            object.__setattr__(self, "id", _default_id(self))
        if translations:
            _check_translations(self)
            named = [
                replace(one, id=f"{self.id}/{one.language}", translation_of=self.id)
                for one in translations
            ]
            object.__setattr__(self, "translations", tuple(named))

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        before, _, after = self.prompt.partition("{}")
        return before + self.subject + after

    @property
    def subject_span(self) -> tuple[int, int]:
        """Start and end of the subject in `text`, in characters."""
        start = self.prompt.index("{}")
        return start, start + len(self.subject)

    def probes_of(self, name: str) -> tuple[Probe, ...]:
        """Return the probes of a family ("rephrase", "portability", "locality") or of one group."""
        groups = GROUPS.get(name, (name,))
        return tuple(probe for probe in self.probes if probe.group in groups)


@dataclass(frozen=True)
class SingleHop:
    """One fact of a chain, after the edits.

    Attributes:
        question: A whole sentence that asks for it.
        cloze: The statement up to the answer.
        answers: The accepted answers, the usual one first.
        edited: Whether one of the edits changes it.
    """

    question: str
    cloze: str
    answers: tuple[str, ...]
    edited: bool

    def __post_init__(self) -> None:
        check_text("question of a hop", self.question)
        check_text("cloze of a hop", self.cloze)
        _texts("answers of a hop", self.answers)


@dataclass(frozen=True)
class MultiHop:
    """A question over several facts, some of them edited: the answer must follow the edits.

    Attributes:
        id: The instance's name in results.
        edits: The edits, at least one.
        questions: The question in several wordings, at least one.
        answers: The accepted answers after the edits, the usual one first.
        old_answers: The accepted answers before them.
        hops: The facts that lead to the new answer, in order.

    Raises:
        InvalidInput: A part is missing.
    """

    id: str
    edits: tuple[Edit, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    old_answers: tuple[str, ...]
    hops: tuple[SingleHop, ...]

    def __post_init__(self) -> None:
        check_text("id", self.id, trimmed=True)
        for name in ("edits", "questions", "hops"):
            if not getattr(self, name):
                raise InvalidInput(f"multi-hop instance {self.id} has no {name}, expected some")
        for question in self.questions:
            check_text("question", question)
        _texts("answers", self.answers)
        _texts("old answers", self.old_answers)


def normalised(text: str) -> str:
    """Return the form in which texts of edits are compared: NFKC, case-folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_fault(prompt: object) -> Fault | None:
    """Explain why a value is no prompt with exactly one `{}`; None if it is."""
    fault = text_fault(prompt)
    if fault is not None:
        return fault
    places = cast(str, prompt).count("{}")
    if places == 0:
        remedy = "write {} in place of the subject"
        return Fault(f"{shown(prompt, 60)} has no {{}}", "exactly one", remedy)
    if places > 1:
        remedy = "write the subject out in the other places"
        return Fault(f"{shown(prompt, 60)} has {places} {{}}", "exactly one", remedy)
    return None


def group_fault(group: object) -> Fault | None:
    """Explain why a value is no group of probes; None if it is."""
    return choice_fault(group, [name for family in GROUPS.values() for name in family])


def language_fault(language: object) -> Fault | None:
    """Explain why a value is no language tag; None if it is."""
    if isinstance(language, str) and _LANGUAGE.fullmatch(language):
        return None
    return Fault(f"is {shown(language)}", "a tag of BCP 47", "write it as 'zh' or 'pt-BR'")


def _texts(field: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(f"{field} is {shown(values)}, expected a list of texts")
    texts = tuple(cast("Iterable[str]", values))
    if not texts:
        raise InvalidInput(f"{field} is empty, expected at least one")
    for text in texts:
        check_text(field, text)
    return texts


def _default_id(edit: Edit) -> str:
    own: list[object] = [edit.prompt, edit.subject, edit.target]
    own += [[one.language, one.prompt, one.subject, one.target] for one in edit.translations]
    content = json.dumps(own, ensure_ascii=False)
    return "edit-" + hashlib.sha256(content.encode()).hexdigest()[:10]


def _check_translations(edit: Edit) -> None:
    if edit.translation_of is not None:
        raise InvalidInput(
            f"a translation of {edit.translation_of!r} has translations, expected none: "
            "give them to the edit itself"
        )
    earlier = [edit]
    for one in edit.translations:
        refuse(f"translation {shown(one.text, 60)}", _translation_fault(one, earlier))
        earlier.append(one)


def _translation_fault(one: Edit, earlier: list[Edit]) -> Fault | None:
    """Explain why an edit cannot be one more translation after `earlier`; None if it can."""
    if one.language is None:
        return Fault("has no language", "one", "add it as 'zh' or 'pt-BR'")
    if one.translations:
        return Fault("has translations", "none", "give them to the edit itself")
    # A translation that was checked before has the id that its edit gave it.
    if one.translation_of is None and one.id != _default_id(one):
        return Fault(f"has the id {one.id!r}", "none", "leave it out: the edit's own names it")
    if one.language.casefold() in {(each.language or "").casefold() for each in earlier}:
        remedy = "make another wording a probe (rephrase), or an edit of its own"
        return Fault(f"is a second one in {one.language!r}", "one for each language", remedy)
    if normalised(one.text) in {normalised(each.text) for each in earlier}:
        return Fault("has the text of another", "a text of its own", "leave it out")
    if one.relation is not None and _about(one) in map(_about, earlier):
        # Their targets, in two languages, would be two targets of one statement.
        found = "has subject and relation of another"
        return Fault(found, "one of them to differ", "leave the relation out")
    return None


def _about(edit: Edit) -> tuple[str, str]:
    return normalised(edit.subject), normalised(edit.relation or "")
