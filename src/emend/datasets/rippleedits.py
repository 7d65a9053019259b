"""RippleEdits: an edit, and what should and should not follow from it.

Cohen et al. 2023, "Evaluating the Ripple Effects of Knowledge Editing in Language Models",
arXiv 2307.12976. A record states its fact as one sentence without naming the parts: "The gender of
Jallal is fakaleiti.". Subject and target are therefore located in it:

- the target is the answer of a query for the same entity that ends the sentence; else it begins
  where the sentences of the new and the original fact differ; else after the last " is ";
- the subject is the longest run of words that the statement shares with most queries about other
  relations of the entity, without words of the templates ("The name of the ... is") at its ends;
  without such queries, what follows "of" or "by".
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from emend._validate import Fault, Problems, Record
from emend._warn import warn
from emend.datasets._files import content_of
from emend.datasets._format import Entry, Format, answers_of, drawn, listed
from emend.edits import Edit
from emend.errors import BrokenFile

CRITERIA: Mapping[str, str] = {
    "Logical_Generalization": "logical_generalization",
    "Compositionality_I": "one_hop",
    "Compositionality_II": "one_hop",
    "Subject_Aliasing": "subject_alias",
    "Relation_Specificity": "relation_specificity",
    "Relation_Specifity": "relation_specificity",
    "Forgetfulness": "forgetfulness",
}
"""The criteria and the groups of their probes; the second spelling of one is the README's."""

_TEMPLATE_WORDS = frozenset(
    "the a an name names of is are was by in which that who whose to for with on has have follows "
    "followed associated country".split()
)


@dataclass(frozen=True)
class Query:
    """A question, and the answers that it must name.

    Attributes:
        prompt: The text to continue.
        answers: Of each required answer, all its names.
    """

    prompt: str
    answers: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class RippleTest:
    """One test of a criterion.

    Attributes:
        criterion: Its published name, such as "Compositionality_I".
        queries: Questions to the edited model.
        needed: Whether "any" or "all" of them must be answered (the published OR and AND).
        conditions: Questions that the unedited model must answer, else the test does not count.
    """

    criterion: str
    queries: tuple[Query, ...]
    needed: Literal["any", "all"]
    conditions: tuple[Query, ...]


@dataclass(frozen=True)
class RippleCase:
    """An edit and its tests."""

    edit: Edit
    tests: tuple[RippleTest, ...]


def load_cases(
    path: str | os.PathLike[str], *, limit: int | None = None, seed: int = 0
) -> list[RippleCase]:
    """Read the edits of a RippleEdits file that have tests, with their tests.

    A record whose fact cannot be taken apart is left out, with a warning that counts them.

    Args:
        path: The file.
        limit: The largest number of cases, drawn by `seed`.
        seed: Seed of the draw.

    Raises:
        BrokenFile: The file is of another form, or no record can be read.
        MissingFile: There is no such file.
    """
    content = content_of(path)
    left_out = Problems(content.problems.source)
    found: list[RippleCase] = []
    for index, item in enumerate(content.items):
        place = f"[{index}]"
        record = Record.of(item.record, content.problems, None, place=place, line=item.line)
        edits = _read(Entry(record, left_out, "rippleedits")) if record else []
        tests = ripple_tests(record.values) if record else []
        found.extend(RippleCase(edit, tuple(tests)) for edit in edits if tests)
    if not found:
        content.problems.check()
        raise BrokenFile(f"{path} holds no cases, expected RippleEdits' records: fetch it again")
    if len(content.problems):
        warn(f"{len(content.problems)} records of {path} are left out: {content.problems.found[0]}")
    return drawn(found, limit, f"rippleedits-{seed}")


def ripple_tests(record: Mapping[str, Any]) -> list[RippleTest]:
    """Return the tests of a record; queries without prompt or answers are left out."""
    found: list[RippleTest] = []
    for criterion in CRITERIA:
        for test in _objects(record.get(criterion)):
            queries = _queries(test.get("test_queries"))
            needed = "all" if str(test.get("test_condition")).upper() == "AND" else "any"
            conditions = _queries(test.get("condition_queries"))
            if queries:
                name = "Relation_Specificity" if criterion.startswith("Relation") else criterion
                found.append(RippleTest(name, queries, needed, conditions))
    return found


def _queries(value: object) -> tuple[Query, ...]:
    found: list[Query] = []
    for query in _objects(value):
        answers = tuple(filter(None, map(_names, _objects(query.get("answers")))))
        prompt = query.get("prompt")
        if isinstance(prompt, str) and prompt.strip() and answers:
            found.append(Query(prompt.strip(), answers))
    return tuple(found)


def _names(answer: Mapping[str, Any]) -> tuple[str, ...]:
    return answers_of([answer.get("value"), answer.get("aliases")])


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    yield from (cast("Mapping[str, Any]", one) for one in listed(value) if isinstance(one, Mapping))


def _all_queries(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the criterion, the place and the object of each test query."""
    for criterion in CRITERIA:
        for number, test in enumerate(_objects(record.get(criterion))):
            for index, query in enumerate(_objects(test.get("test_queries"))):
                yield criterion, f"{criterion}[{number}].test_queries[{index}]", query


def _read(entry: Entry) -> list[Edit]:
    edit = entry.record.record("edit", None, required=True)
    sentence = None if edit is None else edit.text("prompt")
    if edit is None or sentence is None:
        return []
    statement = sentence.strip().removesuffix(".")
    asked = list(_all_queries(entry.record.values))
    queries = [query for _, _, query in asked]
    original = edit.values.get("original_fact")
    former = cast("Mapping[str, Any]", original) if isinstance(original, Mapping) else {}
    earlier = str(former.get("prompt") or "").strip().removesuffix(".")
    start = _target_start(statement, earlier, edit.values, queries)
    subject = _subject(statement[:start], _others(edit.values, asked))
    if not statement[start:].strip() or not subject:
        part = "subject" if statement[start:].strip() else "target"
        found = f"is {sentence!r}, in which no {part} can be located"
        edit.note("prompt", Fault(found, "a statement that names both", "leave the record out"))
        return []
    for criterion, place, query in asked:
        prompt, names = query.get("prompt"), [*map(_names, _objects(query.get("answers")))]
        entry.probe_of(place, CRITERIA[criterion], prompt, names, subject)
    made = entry.edit(
        *(statement[:start].rstrip(), subject, statement[start:].strip()),
        original=earlier[start:].strip() if earlier[:start] == statement[:start] else None,
        relation=edit.values.get("relation"),
    )
    return [made] if made else []


def _target_start(
    statement: str, earlier: str, edit: Mapping[str, Any], queries: Sequence[Mapping[str, Any]]
) -> int:
    """Return where the target begins in a statement; its length where it cannot be located."""
    target = edit.get("target_id")
    for query in queries:
        if target not in listed(query.get("target_ids")):
            continue
        for name in (name for one in _objects(query.get("answers")) for name in _names(one)):
            if statement.endswith(f" {name}"):
                return len(statement) - len(name)
    if earlier:
        shared = next(
            (n for n, (a, b) in enumerate(zip(statement, earlier, strict=False)) if a != b),
            min(len(statement), len(earlier)),
        )
        return statement.rfind(" ", 0, shared) + 1
    found = statement.rfind(" is ")
    return len(statement) if found < 0 else found + len(" is ")


def _others(
    edit: Mapping[str, Any], asked: Sequence[tuple[str, str, Mapping[str, Any]]]
) -> list[str]:
    """Return prompts that name the edited entity as the edit does, about other relations."""
    return [
        str(query.get("prompt"))
        for criterion, _, query in asked
        if query.get("subject_id") == edit.get("subject_id")
        and query.get("relation") != edit.get("relation")
        and criterion != "Subject_Aliasing"
    ]


def _subject(statement: str, prompts: Sequence[str]) -> str:
    """Return the name in a statement that prompts share with it; "" where there is none."""
    words = re.findall(r"\S+", statement)
    spans = [
        (start, end) for start in range(len(words)) for end in range(start + 1, len(words) + 1)
    ]
    names = {_trimmed(words[start:end]) for start, end in spans}
    held = {name: sum(f" {name} " in f" {prompt} " for prompt in prompts) for name in names if name}
    enough = max(held.values(), default=0)
    shared = [name for name, count in held.items() if count == enough]
    if not enough:
        return _by_template(statement)
    return max(shared, key=lambda name: (len(name), name))


def _by_template(statement: str) -> str:
    """Return the subject of the commonest template, "The ... of SUBJECT is"."""
    found = re.search(r"\b(?:of|by|which) (?P<name>[^a-z].*?)(?: is(?: .*)?)?$", statement.strip())
    return _trimmed(found["name"].split()) if found else ""


def _trimmed(words: Sequence[str]) -> str:
    """Join words without words of the templates at either end."""
    kept = list(words)
    while kept and kept[0].casefold() in _TEMPLATE_WORDS:
        kept.pop(0)
    while kept and kept[-1].casefold() in _TEMPLATE_WORDS:
        kept.pop()
    return " ".join(kept)


def _recognises(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("edit"), Mapping) and any(name in record for name in CRITERIA)


rippleedits = Format(
    name="rippleedits",
    title="RippleEdits",
    about="recent.json, random.json and popular.json",
    licence="MIT",
    source="github.com/edenbiran/RippleEdits",
    counts={"recent.json": 1_948, "random.json": 1_922, "popular.json": 885},
    cases="ripple",
    recognises=_recognises,
    read=_read,
    fields={
        "edit.prompt": "prompt, subject and target: the sentence is taken apart",
        "edit.original_fact.prompt": "original: its end, where it begins as the new fact does",
        "edit.relation": "relation",
        "Logical_Generalization": "reverse_relation probes where the subject answers them, "
        "else one_hop",
        "Compositionality_I, Compositionality_II": "one_hop probes",
        "Subject_Aliasing": "subject_alias probes",
        "Relation_Specificity, Forgetfulness": "probes of these groups",
        "test_condition, condition_queries": "not in the probes; `ripple_tests` returns them",
    },
    example={
        "example_type": "popular",
        "edit": {
            "prompt": "The name of the spouse of Al Roe is Kim Poe.",
            "subject_id": "Q5",
            "relation": "SPOUSE",
            "target_id": "Q6",
            "original_fact": {
                "prompt": "The name of the spouse of Al Roe is Jo Fay.",
                "subject_id": "Q5",
                "relation": "SPOUSE",
                "target_id": "Q7",
            },
        },
        "Relation_Specificity": [
            {
                "test_queries": [
                    {
                        "prompt": "The gender of Al Roe is",
                        "answers": [{"value": "male", "aliases": ["man"]}],
                        "query_type": "regular",
                        "subject_id": "Q5",
                        "relation": "SEX_OR_GENDER",
                        "target_ids": ["Q8"],
                    }
                ],
                "test_condition": "OR",
                "condition_queries": [],
            }
        ],
    },
)
