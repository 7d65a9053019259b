"""MQuAKE: multi-hop questions whose answers follow from counterfactual or temporal edits.

Zhong et al. 2023, "MQuAKE: Assessing Knowledge Editing in Language Models via Multi-Hop
Questions", arXiv 2305.14795. Its own files are read (MQuAKE-CF, -CF-3k, -CF-3k-v2, -T, and files
of the same records by others): a JSON list of records with `requested_rewrite`, `questions`,
`new_answer`, `new_single_hops`. Each rewrite is an edit of its own.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from emend.edits import Edit, MultiHop, Probe, SingleHop
from emend.errors import BrokenFile, EmendError, InvalidInput, MissingFile

QUESTION = "Question: {} Answer:"


def mquake(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[Edit]:
    """The edits of all records, each different one once.

    Args:
        limit: How many edits, drawn by `seed`; all of them in the file's order by default.
        seed: Seed of the draw.
        path: The JSON file.

    Raises:
        InvalidInput: No path is given, or a directory.
        MissingFile: There is no such file.
        BrokenFile: It does not hold MQuAKE's records; every problem is named.
    """
    edits = {edit.id: edit for one in multi_hop(path=path) for edit in one.edits}
    return _drawn(list(edits.values()), limit, seed)


def multi_hop(
    *, limit: int | None = None, seed: int = 0, path: str | os.PathLike[str] | None = None
) -> list[MultiHop]:
    """The records as multi-hop instances; the arguments and errors are those of `mquake`."""
    file = _checked(path)
    found: list[MultiHop] = []
    problems: list[str] = []
    for number, record in enumerate(_records(file)):
        try:
            found.append(_instance(record))
        except (EmendError, KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            problems.append(f"{file}: record {number}: {reason}")
    if problems:
        raise BrokenFile(f"{file} holds {len(problems)} records that are not MQuAKE's", problems)
    return _drawn(found, limit, seed)


def _checked(path: str | os.PathLike[str] | None) -> Path:
    if path is None:
        raise InvalidInput(
            "MQuAKE does not ship with emend, expected the path of one of its files, such as "
            "MQuAKE-CF-3k-v2.json: give it"
        )
    file = Path(path)
    if file.is_dir():
        raise InvalidInput(f"{file} is a directory, expected one of MQuAKE's JSON files: name it")
    if not file.exists():
        raise MissingFile(f"there is no file {file}: give one of MQuAKE's JSON files")
    return file


def _records(file: Path) -> list[object]:
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise BrokenFile(f"{file} is not JSON ({reason}): fetch it again") from None
    if not isinstance(records, list) or not records:
        raise BrokenFile(f"{file} holds no list of records, expected MQuAKE's: fetch it again")
    return cast("list[object]", records)


def _drawn(found: list[Any], limit: int | None, seed: int) -> list[Any]:
    if limit is None or limit >= len(found):
        return found
    chosen = random.Random(f"mquake-{seed}").sample(range(len(found)), limit)
    return [found[index] for index in sorted(chosen)]


def _instance(record: Any) -> MultiHop:
    edits = tuple(_edit(one) for one in record["requested_rewrite"])
    changed = {edit.text for edit in edits}
    return MultiHop(
        id=f"mquake-{record['case_id']}",
        edits=edits,
        questions=tuple(record["questions"]),
        answers=_answers(record, "new_answer"),
        old_answers=_answers(record, "answer"),
        hops=tuple(
            SingleHop(
                one["question"], one["cloze"], _answers(one, "answer"), one["cloze"] in changed
            )
            for one in record["new_single_hops"]
        ),
    )


def _edit(record: Mapping[str, Any]) -> Edit:
    target, question = record["target_new"]["str"], record.get("question")
    original = record.get("target_true") or {}
    probe = Probe("rephrase", QUESTION.format(question), (target,)) if question else None
    return Edit(
        record["prompt"],
        record["subject"].strip(),
        target,
        original=original.get("str"),
        relation=record.get("relation_id"),
        probes=(probe,) if probe else (),
    )


def _answers(record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The answer, its fuller form (in MQuAKE-T), then its aliases; each once, none empty."""
    extended = record.get(f"{name}_extended", ())
    listed = [record[name], *record.get(f"{name}_alias", ()), *extended]
    return tuple(dict.fromkeys(text for text in listed if text.strip()))
