"""The known facts that causal tracing was published on, as questions and as edits.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262:
known_1000.json, a list of 1,209 facts that GPT-2 XL predicts, each with the subject in its prompt
and the answer as `attribute`.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple, cast

from emend.datasets._format import drawn, template_of
from emend.edits import Edit, Probe
from emend.errors import BrokenFile, InvalidInput

logger = logging.getLogger("emend")

NEIGHBOURS = 3
"""Other subjects of the relation whose answers must not change, as probes of each edit."""


class KnownFact(NamedTuple):
    """A published fact.

    Attributes:
        prompt: The statement up to the answer, with the subject in it.
        subject: The subject's name.
        attribute: The answer.
        relation: The relation's id, "" where the record has none.
    """

    prompt: str
    subject: str
    attribute: str
    relation: str


def read_known(path: str | os.PathLike[str]) -> list[KnownFact] | None:
    """Read the facts of a file in their order; None for a file of another form.

    Raises:
        BrokenFile: A fact has no prompt, subject or attribute.
    """
    records = _records(Path(path))
    if records is None:
        return None
    return [_fact(record, f"{path}: fact {number}") for number, record in enumerate(records)]


def known1000(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[Edit]:
    """Make edits of the known facts (known_1000.json): each target is another of its relation.

    Args:
        limit: Number of edits, drawn by `seed`; every usable fact by default.
        seed: Seed of the draw and of the targets.
        path: The file.

    Raises:
        InvalidInput: No path is given.
        BrokenFile: It is no file of known facts, or a fact lacks a field.
    """
    if path is None:
        raise InvalidInput("known1000 does not ship with emend, expected the path of its file")
    facts = read_known(path)
    if facts is None:
        raise BrokenFile(f"{path} holds no known facts, expected known_1000.json: fetch it again")
    by_relation: dict[str, list[KnownFact]] = defaultdict(list)
    for fact in facts:
        by_relation[fact.relation].append(fact)
    edits: dict[str, Edit] = {}
    for fact in facts:
        edit = _edit(fact, by_relation[fact.relation], seed)
        if edit is not None:
            edits.setdefault(edit.text, edit)
    if len(edits) < len(facts):
        logger.warning(
            f"{len(facts) - len(edits)} of {len(facts):,} facts are left out: they repeat another, "
            "their relation has one answer only, or their prompt does not name the subject"
        )
    return drawn(list(edits.values()), limit, f"known1000-{seed}")


def _edit(fact: KnownFact, others: list[KnownFact], seed: int) -> Edit | None:
    """Make the edit of a fact; None where its relation has one answer or no subject is found."""
    template = template_of(fact.prompt, fact.subject)
    targets = sorted({other.attribute for other in others} - {fact.attribute})
    if template is None or not targets:
        return None
    draw = random.Random(f"{seed}-{fact.prompt}")
    target = draw.choice(targets)
    near = [other for other in others if other.subject != fact.subject]
    probes = tuple(
        Probe("neighborhood", one.prompt, (one.attribute,))
        for one in draw.sample(near, min(NEIGHBOURS, len(near)))
    )
    relation = fact.relation or None
    return Edit(*template, target, fact.attribute, relation=relation, probes=probes)


def _records(path: Path) -> list[Any] | None:
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    first: Any = cast("list[Any]", data)[0] if isinstance(data, list) and data else None
    if isinstance(first, dict) and "attribute" in first and "target" not in first:
        return cast("list[Any]", data)
    return None


def _fact(record: Any, place: str) -> KnownFact:
    fields = cast("dict[str, Any]", record) if isinstance(record, dict) else {}
    for field in ("prompt", "subject", "attribute"):
        value = fields.get(field)
        if not isinstance(value, str) or not value.strip():
            raise BrokenFile(f"{place}: {field} is {value!r}, expected text: correct or drop it")
    relation = fields.get("relation_id")
    known = relation if isinstance(relation, str) else ""
    return KnownFact(fields["prompt"], fields["subject"], fields["attribute"], known)
