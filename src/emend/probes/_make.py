"""Make probes for edits that have none, with the answers of the unedited model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from emend import models
from emend.edits import Edit, Probe, normalised, states_answer
from emend.edits.answers import is_name, same_answer
from emend.models.forward import longest_text
from emend.probes._asking import CONFIDENT, NEW_TOKENS, Asker, kind_by_model
from emend.probes._data import (
    Relation,
    chat_about,
    chat_form,
    filled,
    general_prompts,
    kinds_of,
    names_of,
    question_form,
    relation_of,
    relations,
    rephrasings,
    same_name,
)
from emend.probes._languages import ENGLISH, Language, language_of, languages

NEIGHBOURS, FACTS, OLD_FACTS = 15, 8, 3
"""The largest number of probes of each kind."""

_NEIGHBOURS_ASKED, _FACTS_ASKED, _OLD_FACTS_ASKED = 18, 10, 4
_SAME_PHRASE = 3  # neighbours with one phrase as their answer, such as "a group of"


@dataclass
class _Plan:
    """The questions that may be asked about one edit.

    Attributes:
        edit: The edit.
        relation: Its relation, if the prompt's words show one.
        kinds: Kinds of its subject.
        question: Its question form; used only if the unedited model answers it.
        rephrased: Other forms of its statement, which the unedited model is not asked.
        facts: Prompts of the subject's other facts.
        neighbours: Its prompt with other subjects.
        old: The old object, as the unedited model generates it; "" if it is no name.
        old_facts: Prompts of the old object's facts.
    """

    edit: Edit
    relation: Relation | None
    kinds: tuple[str, ...]
    question: str | None
    rephrased: list[str]
    facts: list[str]
    neighbours: list[str]
    old: str = ""
    old_facts: list[str] = field(default_factory=list)

    def prompts(self) -> list[str]:
        """Return all prompts for the unedited model except the question form."""
        return [*self.facts, *self.neighbours, *self.old_facts]


def make(
    model: nn.Module, tokenizer: Any, edit: Edit, *, batch_size: int = 48
) -> tuple[Probe, ...]:
    """Make probes for an edit from the edit and its model alone.

    Args:
        model: The causal language model; patches attached to it do not act.
        tokenizer: Its tokenizer.
        edit: The edit; its own probes are ignored.
        batch_size: Prompts in one forward pass.

    Returns:
        Probes of the groups `rephrase` (the edit's statement in other forms, answered by its
        target), `neighborhood` (its prompt with other subjects of the same kind),
        `relation_specificity` (the subject's other facts) and `forgetfulness` (facts of the old
        object); the answers of the last three are those of the unedited model. A group is empty
        if the model knows no answers. In Chinese, Japanese, Spanish and Arabic there are none of
        the old object, and neighbours only for countries, cities and similar kinds; in languages
        other than these and English there are no probes at all.
    """
    with models.base(model):
        return made_for(Asker(model, tokenizer, batch_size), [edit])[0]


def rephrase(edit: Edit, tokenizer: Any) -> tuple[str, ...]:
    """Write an edit's statement in other words, by its relation's wordings; no model is asked.

    Args:
        edit: The edit; its own probes are ignored.
        tokenizer: The model's, for its chat template; None for no chat.

    Returns:
        Texts that the edit's answer continues: up to three wordings (or the statement after a few
        words, where its relation is unknown), a question, and a chat that begins to answer.
        None in languages that emend has no wordings for.
    """
    tag = language_of(edit)
    if tag == ENGLISH:
        relation = relation_of(edit.prompt, edit.subject)
        chat = chat_form(edit, relation, tokenizer)
        texts = [*rephrasings(edit, relation), question_form(edit, relation), chat]
        return tuple(text for text in texts if text)
    language = languages().get(tag)
    if language is None:
        return ()
    chat = chat_about(edit, language.chat.replace("{}", edit.subject), tokenizer)
    fronts = [front.replace("{}", edit.text) for front in language.fronts]
    return (*fronts, *([chat] if chat else []))


def made_for(
    asker: Asker, edits: Sequence[Edit], others: Iterable[Edit] = ()
) -> list[tuple[Probe, ...]]:
    """Make the probes of several edits, asking each different prompt once.

    Args:
        asker: The unedited model.
        edits: The edits.
        others: Edits made together with them, whose subjects are no neighbours.
    """
    subjects = {normalised(edit.subject) for edit in (*edits, *others)}
    plans = [_plan(asker, edit, subjects) for edit in edits]
    asker.ask(edit.text for edit in edits if edit.original is None)
    for plan in plans:
        plan.old = _old_object(asker, plan.edit)
        plan.old_facts = _old_facts(plan, subjects)
    asker.expect({plan.question: plan.old for plan in plans if plan.question and plan.old})
    asker.ask(prompt for plan in plans for prompt in plan.prompts())
    return [_probes(asker, plan) for plan in plans]


def _plan(asker: Asker, edit: Edit, subjects: set[str]) -> _Plan:
    tag = language_of(edit)
    if tag != ENGLISH:
        return _plan_in(languages().get(tag), asker, edit, subjects)
    relation = relation_of(edit.prompt, edit.subject)
    kinds = _kinds(asker, edit, relation)
    chat = chat_form(edit, relation, asker.tokenizer)
    names = [
        name
        for name in names_of(kinds, 2 * _NEIGHBOURS_ASKED)
        if normalised(name) not in subjects
        and not same_name(name, edit.subject)
        and _is_written(asker.tokenizer, name)
    ]
    return _Plan(
        edit,
        relation,
        kinds,
        question_form(edit, relation),
        [*rephrasings(edit, relation), *([chat] if chat and _fits(asker, chat) else [])],
        _fact_prompts(edit.subject, kinds, relation, _FACTS_ASKED),
        [filled(edit.prompt, name) for name in names[:_NEIGHBOURS_ASKED]],
    )


def _plan_in(language: Language | None, asker: Asker, edit: Edit, subjects: set[str]) -> _Plan:
    """Plan the probes in a language other than English; none if it is unknown."""
    if language is None:
        return _Plan(edit, None, (), None, [], [], [])
    chat = chat_about(edit, language.chat.replace("{}", edit.subject), asker.tokenizer)
    rephrased = [front.replace("{}", edit.text) for front in language.fronts]
    names = [name for name in language.names_like(edit.subject) if normalised(name) not in subjects]
    return _Plan(
        edit,
        None,
        (),
        None,
        [*rephrased, *([chat] if chat and _fits(asker, chat) else [])],
        [prompt.replace("{}", edit.subject) for prompt in language.general],
        [edit.prompt.replace("{}", name) for name in names[:_NEIGHBOURS_ASKED]],
    )


def _kinds(asker: Asker, edit: Edit, relation: Relation | None) -> tuple[str, ...]:
    """Return the kinds of an edit's subject: by its name and relation, or else by the model."""
    known = kinds_of(edit.subject)
    if relation is None:
        return known or kind_by_model(asker, edit.subject)
    return tuple(kind for kind in relation.kinds if kind in known) or known or relation.kinds


def _fact_prompts(
    name: str, kinds: tuple[str, ...], relation: Relation | None, most: int
) -> list[str]:
    """Return prompts about a name: general ones, and of relations that do not depend on the edit's.

    These are relations of its kinds; if the name is in no list, those that fit all possible kinds.
    """
    family = None if relation is None else relation.family
    listed = bool(kinds_of(name))
    of_kind = [
        filled(one.prompts[0], name)
        for one in relations()
        if one.family != family
        and kinds
        and (set(one.kinds) & set(kinds) if listed else set(one.kinds) >= set(kinds))
    ]
    general = [filled(prompt, name) for prompt in general_prompts()]
    return [*of_kind[: most - len(general) // 2], *general][:most]


def _old_object(asker: Asker, edit: Edit) -> str:
    """Return the object that the edit replaces: as given, or as the unedited model generates it."""
    if language_of(edit) != ENGLISH:
        return ""  # emend can ask for its facts in English only
    old = edit.original or asker.answer(edit.text)
    old = old.strip()
    named = any(word[:1].isupper() for word in old.split())
    return old if (named or kinds_of(old)) and not same_answer(old, edit.target) else ""


def _old_facts(plan: _Plan, subjects: set[str]) -> list[str]:
    if not plan.old or normalised(plan.old) in subjects:
        return []
    return _fact_prompts(plan.old, kinds_of(plan.old), None, _OLD_FACTS_ASKED)


def _probes(asker: Asker, plan: _Plan) -> tuple[Probe, ...]:
    edit = plan.edit
    rephrased = list(plan.rephrased)
    if plan.question and states_answer(asker.known(plan.question) or "", [plan.old]):
        rephrased.append(plan.question)
    probes = [Probe("rephrase", prompt, (edit.target,)) for prompt in rephrased]
    near = _neighbours(asker, plan)
    facts = [
        prompt
        for prompt in _known(asker, plan.facts)
        if not (plan.old and _mentions(asker, prompt, plan.old))
        and not normalised(prompt + asker.text(prompt)).startswith(normalised(edit.text))
    ][:FACTS]
    old = [
        prompt
        for prompt in _known(asker, plan.old_facts)
        if not _mentions(asker, prompt, edit.subject)
    ][:OLD_FACTS]
    taken = {edit.text, *rephrased}
    for group, prompts in (
        ("neighborhood", near),
        ("relation_specificity", facts),
        ("forgetfulness", old),
    ):
        for prompt in prompts:
            if prompt not in taken:
                taken.add(prompt)
                probes.append(Probe(group, prompt, (asker.answer(prompt),)))
    return tuple(probes)


def _neighbours(asker: Asker, plan: _Plan) -> list[str]:
    """Return neighbours' prompts: those that share the old object, then names, then phrases."""
    known = _known(asker, plan.neighbours)
    sharing = [p for p in known if plan.old and states_answer(asker.text(p), [plan.old])]
    names = [prompt for prompt in known if is_name(asker.answer(prompt))]
    phrases: dict[str, list[str]] = {}
    for prompt in known:
        phrases.setdefault(normalised(asker.answer(prompt)), []).append(prompt)
    some = [prompt for same in phrases.values() for prompt in same[:_SAME_PHRASE]]
    return list(dict.fromkeys([*sharing[: NEIGHBOURS // 2], *names, *some]))[:NEIGHBOURS]


def _known(asker: Asker, prompts: Iterable[str]) -> list[str]:
    """Return the prompts that the model answers confidently, the most confident first."""
    known = [
        prompt
        for prompt in prompts
        if asker.answer(prompt) and asker.confidence(prompt) >= CONFIDENT
    ]
    return sorted(known, key=asker.confidence, reverse=True)


def _mentions(asker: Asker, prompt: str, name: str) -> bool:
    """Return whether the text generated after a prompt contains a name."""
    return normalised(name) in normalised(asker.text(prompt))


def _fits(asker: Asker, prompt: str) -> bool:
    """Return whether a prompt and its continuation fit into the model's context."""
    longest = longest_text(asker.model)
    if longest is None or asker.tokenizer is None:
        return True
    return len(asker.tokenizer(prompt)["input_ids"]) + 2 * NEW_TOKENS <= longest


def _is_written(tokenizer: Any, name: str) -> bool:
    """Return whether a tokenizer splits a name into more than single letters."""
    if tokenizer is None:
        return True
    return 2 * len(tokenizer(f" {name}", add_special_tokens=False)["input_ids"]) <= len(name) + 3
