"""Multi-hop questions after edits: MQuAKE's measures, whatever method made the edits.

Zhong et al. 2023, "MQuAKE", arXiv 2305.14795, section 3.3: multi-hop accuracy (an answer to any of
an instance's three questions is right), edit-wise and instance-wise success, with the edits of
1, 100, ... instances in the model at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from emend import models
from emend._progress import progress
from emend.edits import Edit, MultiHop
from emend.errors import InvalidInput
from emend.metrics._hop_records import HopReport, record_of
from emend.metrics._settings import versions
from emend.patches import Patch, describe_base

if TYPE_CHECKING:
    from torch import nn

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
        edits_at_once: Instances are taken together as long as their edits are at most so many
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
    """Instances in their order, in groups that have at most so many edits together."""
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
    """The edits of instances, those of one statement once."""
    edits = [edit for one in instances for edit in one.edits]
    return list({(edit.text, edit.target): edit for edit in edits}.values())


def prompts_of(instance: MultiHop) -> list[str]:
    """The instance's questions as they are put to the model."""
    return [QUESTION.format(question) for question in instance.questions]


def _said(
    model: Any, tokenizer: Any, group: Sequence[MultiHop], batch_size: int, new_tokens: int
) -> dict[str, str]:
    """What follows each prompt that the group's measures need."""
    prompts = [prompt for one in group for prompt in prompts_of(one)]
    prompts += [edit.text for one in group for edit in one.edits]
    prompts += [hop.cloze for one in group for hop in one.hops]
    different = list(dict.fromkeys(prompts))
    texts = models.generate(
        model, tokenizer, different, max_new_tokens=new_tokens, batch_size=batch_size, stop="\n"
    )
    return dict(zip(different, texts, strict=True))
