"""`Edit` and `Probe`: the two records everything else is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from emend._validate import Fault, check_text, choice_fault, name_fault, refuse, shown, text_fault
from emend.errors import InvalidInput

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "rephrase": ("rephrase",),
        "portability": ("subject_alias", "reverse_relation", "one_hop"),
        "locality": ("relation_specificity", "neighborhood", "forgetfulness", "distracting"),
    }
)
"""Which groups of probes each family holds: what must change (rephrase), what should follow
(portability), what must stay (locality)."""


@dataclass(frozen=True)
class Probe:
    """A question with its accepted answers.

    Attributes:
        group: One of the groups in `GROUPS`, e.g. "neighborhood".
        prompt: The full text to be continued; no `{}`, nothing is filled in.
        answers: The accepted answers, at least one. For locality they are the answers of before.

    Raises:
        InvalidInput: The group is not known, the prompt is empty or an answer is.
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
    """One requested change of what a model says.

    Attributes:
        prompt: The statement up to the answer, with exactly one `{}` where the subject stands:
            "{} was born in".
        subject: Whom or what the statement is about.
        target: What the model must generate. A space goes before it where such texts have one;
            see `emend.edits.joining`.
        original: What the model says now, where known.
        id: Names the edit in patches and records; by default made from prompt, subject, target.
        relation: The name of the relation, where the data has relations.
        probes: Questions to ask before and after.

    Raises:
        InvalidInput: A field cannot be used; the message names it and says what was expected.
    """

    prompt: str
    subject: str
    target: str
    original: str | None = None
    id: str = ""
    relation: str | None = None
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        refuse("prompt", prompt_fault(self.prompt))
        refuse("subject", name_fault(self.subject))
        check_text("target", self.target)
        if self.original is not None:
            check_text("original", self.original)
        if self.relation is not None:
            check_text("relation", self.relation)
        if self.id != "":
            refuse("id", name_fault(self.id))
        else:
            object.__setattr__(self, "id", self._default_id())
        object.__setattr__(self, "probes", _probes(self.probes))

    def _default_id(self) -> str:
        content = json.dumps([self.prompt, self.subject, self.target], ensure_ascii=False)
        return "edit-" + hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def text(self) -> str:
        """The prompt with the subject filled in."""
        before, _, after = self.prompt.partition("{}")
        return before + self.subject + after

    @property
    def subject_span(self) -> tuple[int, int]:
        """Where the subject begins and ends in `text`, in characters."""
        start = self.prompt.index("{}")
        return start, start + len(self.subject)

    def probes_of(self, name: str) -> tuple[Probe, ...]:
        """The probes of a family ("rephrase", "portability", "locality") or of one group."""
        groups = GROUPS.get(name, (name,))
        return tuple(probe for probe in self.probes if probe.group in groups)


def prompt_fault(prompt: object) -> Fault | None:
    """Say why a value is no prompt with exactly one place for the subject, if it is not."""
    fault = text_fault(prompt)
    if fault is not None:
        return fault
    places = cast(str, prompt).count("{}")
    if places == 0:
        remedy = "write {} where the subject stands"
        return Fault(f"{shown(prompt, 60)} has no {{}}", "exactly one", remedy)
    if places > 1:
        remedy = "write the subject out in the other places"
        return Fault(f"{shown(prompt, 60)} has {places} {{}}", "exactly one", remedy)
    return None


def group_fault(group: object) -> Fault | None:
    """Say why a value is no group of probes, if it is not."""
    return choice_fault(group, [name for family in GROUPS.values() for name in family])


def _texts(field: str, values: object) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(f"{field} is {shown(values)}, expected a list of texts")
    texts = tuple(cast("Iterable[str]", values))
    if not texts:
        raise InvalidInput(f"{field} is empty, expected at least one: leave the probe out")
    for text in texts:
        check_text(field, text)
    return texts


def _probes(values: object) -> tuple[Probe, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise InvalidInput(f"probes is {shown(values)}, expected a list of probes")
    probes = tuple(cast("Iterable[Probe]", values))
    for probe in probes:
        if not isinstance(probe, Probe):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput(f"probes holds {shown(probe)}, expected emend.Probe objects")
    return probes
