"""Multi-hop questions after edits: MQuAKE's measures, whatever method made the edits.

Zhong et al. 2023, "MQuAKE", arXiv 2305.14795, section 3.3: multi-hop accuracy (an answer to any of
an instance's three questions is right), edit-wise and instance-wise success, with the edits of
1, 100, ... instances in the model at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend import models
from emend._brief import brief
from emend._io import write_json, write_json_lines
from emend._progress import progress
from emend.edits import Edit, MultiHop
from emend.edits.answers import states_answer
from emend.errors import InvalidInput
from emend.metrics._report import results_directory, versions
from emend.patches import Patch, describe_base

if TYPE_CHECKING:
    from torch import nn

RECORDS, SUMMARY, TRACES = "records.jsonl", "summary.json", "traces.jsonl"


@brief
@dataclass(frozen=True)
class HopReport:
    """Records of multi-hop questions, all plain JSON-able data.

    Attributes:
        records: One dict per instance: ``id``, ``length`` (hops), ``edits_at_once`` (in memory
            with it), ``questions``, ``edits`` and ``hops``, each a list of what was asked, what
            was generated and whether that is right (``right``; of questions also whether it is the
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
        directory = results_directory(directory)
        write_json_lines(directory / RECORDS, self.records)
        if samples:
            write_json_lines(directory / TRACES, self.samples)
        write_json(directory / SUMMARY, {"summary": self.summary, "settings": self.settings})
        return directory


def record_of(
    instance: MultiHop, prompts: Sequence[str], said: Mapping[str, str], at_once: int
) -> dict[str, Any]:
    """Make the record of one instance.

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


QUESTION = "Question: {} Answer:"
"""How a question is put to the model."""


def evaluate_multi_hop(
    model: nn.Module,
    tokenizer: Any,
    instances: Sequence[MultiHop],
    make: Callable[[list[Edit]], Patch],
    *,
    edits_at_once: int | None = None,
    batch_size: int = 32,
    new_tokens: int = 16,
) -> HopReport:
    """Ask multi-hop questions with the edits of several instances in the model at once.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        instances: What is edited and what is asked.
        make: Makes a patch of edits.
        edits_at_once: Instances are taken together as long as they have at most this many edits
            (one alone may have more); None for all at once.
        batch_size: Prompts in one forward pass; the results do not depend on it.
        new_tokens: Tokens that an answer may have.

    Returns:
        Records and summary.

    Raises:
        InvalidInput: No instances, or a number below 1.
    """
    if not instances:
        raise InvalidInput("no instances are given, expected at least one: nothing to ask")
    for name, value in (("edits_at_once", edits_at_once), ("new_tokens", new_tokens)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is {value}, expected 1 or more: raise it")
    records: list[Any] = []
    samples: list[dict[str, Any]] = []
    groups = grouped(instances, edits_at_once)
    for group in progress(groups, "asking multi-hop questions", total=len(groups)):
        edits = edits_of(group)
        patch = make(edits)
        with patch.applied(model):
            said = _said(model, tokenizer, group, batch_size, new_tokens)
            samples += [one for each in models.attachments(model) for one in each.samples()]
        records += [record_of(one, prompts_of(one), said, len(edits)) for one in group]
    settings = {
        "model": describe_base(model),
        "edits_at_once": edits_at_once,
        "new_tokens": new_tokens,
        "versions": versions(),
    }
    return HopReport(records, samples, settings)


def grouped(instances: Sequence[MultiHop], most: int | None) -> list[list[MultiHop]]:
    """Group instances in their order, with at most `most` edits per group."""
    if most is None:
        return [list(instances)]
    groups: list[list[MultiHop]] = []
    for one in instances:
        if groups and len(edits_of([*groups[-1], one])) <= most:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def edits_of(instances: Sequence[MultiHop]) -> list[Edit]:
    """Collect the edits of instances, those of one statement once."""
    edits = [edit for one in instances for edit in one.edits]
    return list({(edit.text, edit.target): edit for edit in edits}.values())


def prompts_of(instance: MultiHop) -> list[str]:
    """Return the instance's questions as the model reads them."""
    return [QUESTION.format(question) for question in instance.questions]


def _said(
    model: Any, tokenizer: Any, group: Sequence[MultiHop], batch_size: int, new_tokens: int
) -> dict[str, str]:
    """Generate what follows each prompt that the group's measures need."""
    prompts = [prompt for one in group for prompt in prompts_of(one)]
    prompts += [edit.text for one in group for edit in one.edits]
    prompts += [hop.cloze for one in group for hop in one.hops]
    different = list(dict.fromkeys(prompts))
    texts = models.generate(
        model, tokenizer, different, max_new_tokens=new_tokens, batch_size=batch_size, stop="\n"
    )
    return dict(zip(different, texts, strict=True))
