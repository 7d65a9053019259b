"""What an evaluation of multi-hop questions found: a record per instance, and their summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emend._brief import brief
from emend._io import write_json, write_json_lines
from emend.edits import MultiHop
from emend.edits.answers import states_answer
from emend.errors import InvalidInput

RECORDS, SUMMARY, TRACES = "records.jsonl", "summary.json", "traces.jsonl"


@brief
@dataclass(frozen=True)
class HopReport:
    """Records of multi-hop questions, all plain JSON-able data.

    Attributes:
        records: One dict per instance: ``id``, ``length`` (hops), ``edits_at_once`` (in memory
            with it), ``questions``, ``edits`` and ``hops``, each a list of what was asked, what
            was said and whether that is right (``right``; of questions also whether it is the
            answer of before, ``old``).
        samples: What the patches noted of each prompt: of `mello` its traces.
        settings: Model, method, dataset, versions.
    """

    records: Sequence[Mapping[str, Any]]
    samples: Sequence[Mapping[str, Any]] = ()
    settings: dict[str, Any] = field(default_factory=lambda: {})

    @property
    def summary(self) -> dict[str, Any]:
        """Shares over all instances, and by their number of hops.

        ``multi_hop``: an answer to any of an instance's questions is right. ``questions``: share
        of right answers to single questions. ``edit_wise``: share of edited facts recalled.
        ``instance_wise``: share of instances of which every fact is recalled. ``old_answer``:
        share of instances of which some answer is that of before. ``failures``: questions whose
        steps could not be read, of those answered in steps.
        """
        lengths = sorted({record["length"] for record in self.records})
        groups = {
            str(length): _shares([one for one in self.records if one["length"] == length])
            for length in lengths
        }
        stepped = [sample for sample in self.samples if sample.get("steps") is not None]
        failed = sum(sample.get("failure") is not None for sample in stepped)
        counts = {"answered_in_steps": len(stepped), "failures": failed}
        return {**_shares(self.records), "by_hops": groups, **(counts if stepped else {})}

    def save(self, directory: str | Path, *, samples: bool = False) -> Path:
        """Write ``records.jsonl``, ``summary.json`` and, if asked for, ``traces.jsonl``.

        Raises:
            InvalidInput: The path is a file.
        """
        directory = Path(directory)
        if directory.exists() and not directory.is_dir():
            raise InvalidInput(f"{directory} is a file, expected a directory: give another path")
        write_json_lines(directory / RECORDS, self.records)
        if samples:
            write_json_lines(directory / TRACES, self.samples)
        write_json(directory / SUMMARY, {"summary": self.summary, "settings": self.settings})
        return directory


def record_of(
    instance: MultiHop, prompts: Sequence[str], said: Mapping[str, str], at_once: int
) -> dict[str, Any]:
    """The record of one instance.

    Args:
        instance: What was asked.
        prompts: Its questions as they were put.
        said: What followed each prompt, those of edits and hops too.
        at_once: Edits that were in the model.
    """
    questions = [
        {
            "question": question,
            "text": said[prompt],
            "right": states_answer(said[prompt], instance.answers),
            "old": states_answer(said[prompt], instance.old_answers),
        }
        for question, prompt in zip(instance.questions, prompts, strict=True)
    ]
    edits = [
        {
            "edit": one.id,
            "text": said[one.text],
            "right": states_answer(said[one.text], [one.target]),
        }
        for one in instance.edits
    ]
    hops = [
        {"cloze": hop.cloze, "text": said[hop.cloze]}
        | {"right": states_answer(said[hop.cloze], hop.answers)}
        for hop in instance.hops
    ]
    return {
        "id": instance.id,
        "length": len(instance.hops),
        "edits_at_once": at_once,
        "answers": list(instance.answers),
        "questions": questions,
        "edits": edits,
        "hops": hops,
    }


def _shares(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    edits = [edit["right"] for record in records for edit in record["edits"]]
    questions = [one["right"] for record in records for one in record["questions"]]
    return {
        "n": len(records),
        "multi_hop": _share([_any(record, "questions", "right") for record in records]),
        "questions": _share(questions),
        "edit_wise": _share(edits),
        "instance_wise": _share([all(h["right"] for h in record["hops"]) for record in records]),
        "old_answer": _share([_any(record, "questions", "old") for record in records]),
    }


def _any(record: Mapping[str, Any], part: str, name: str) -> bool:
    return any(one[name] for one in record[part])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
