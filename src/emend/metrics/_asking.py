"""Which measure asks what about which edit; the model is asked each different question once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from emend import models
from emend._registry import Registry
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.metrics._metric import Answer, Metric, Question, Record

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

ORDER = ("reliability", "generalization", "portability", "locality", "fluency", "efficiency")


class Item(NamedTuple):
    """One question of one measure about one edit."""

    edit: Edit
    metric: Metric
    question: Question


def registry() -> Registry[Metric]:
    """Return the measures there are, by name; third parties add to the group ``emend.metrics``."""
    return Registry("metric", ["emend.metrics"], "emend.metrics", of="emend.metrics._metric:Metric")


def chosen(names: Iterable[str] | None) -> list[Metric]:
    """Find the measures of these names, in the customary order; for None those by default.

    Raises:
        UnknownName: There is no such measure.
        InvalidInput: The list of names is empty.
    """
    known = registry()
    if names is None:
        names = [name for name in known.names() if known.get(name).by_default]
    wanted = list(dict.fromkeys(names))
    if not wanted:
        raise InvalidInput(
            "no metrics are named, expected at least one: leave it out for those by default"
        )
    ranked = [*(name for name in ORDER if name in wanted), *(n for n in wanted if n not in ORDER)]
    return [known.get(name) for name in ranked]


def items_of(edits: Iterable[Edit], metrics: Sequence[Metric]) -> list[Item]:
    """List every question of every measure, edit by edit."""
    return [Item(e, metric, q) for e in edits for metric in metrics for q in metric.ask(e)]


def records_of(
    items: Iterable[Item],
    before: Mapping[Question, Answer],
    after: Mapping[Question, Answer],
    schedule: str,
) -> list[Record]:
    """Make one plain record per item; see :class:`~emend.metrics.Report`."""
    return [_record(item, before[item.question], after[item.question], schedule) for item in items]


def _record(item: Item, before: Answer, after: Answer, schedule: str) -> Record:
    question = item.question
    outcomes = item.metric.judge(question, before, after)
    return {
        "edit": item.edit.id,
        "language": item.edit.language,
        "metric": item.metric.name,
        "group": question.group,
        "schedule": schedule,
        "prompt": question.prompt,
        "answers": list(question.answers),
        "rival": question.rival,
        "text_before": before.text,
        "text_after": after.text,
        "protocols": {name: {"before": old, "after": new} for name, (old, new) in outcomes.items()},
    }


_BUCKETS = (2, 4, 8, 16, 32, 64, 128, 256)


def ask(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Iterable[Question],
    *,
    batch_size: int,
) -> dict[Question, Answer]:
    """Ask the model, in the state that it is in.

    Each (prompt, answer) is scored once and each prompt continued once per length, however many
    questions share them.
    """
    questions = list(dict.fromkeys(questions))
    lengths = _lengths(tokenizer, questions)
    has_scores = not isinstance(model, models.Endpoint)  # it gives no probabilities
    asked: dict[str, tuple[dict[str, None], dict[int, None]]] = {}
    for question in questions:
        targets, wanted = asked.setdefault(question.prompt, ({}, {}))
        targets.update(dict.fromkeys(_candidates(question) if has_scores else ()))
        wanted[lengths[question]] = None
    inquiries = [models.Inquiry(p, tuple(targets), tuple(w)) for p, (targets, w) in asked.items()]
    found = models.inquire(model, tokenizer, inquiries, batch_size=batch_size)
    replies = dict(zip(asked, found, strict=True))
    return {
        question: Answer(
            text=replies[question.prompt].texts[lengths[question]],
            scores={
                answer: replies[question.prompt].scores[answer]
                for answer in (_candidates(question) if has_scores else ())
            },
        )
        for question in questions
    }


def _candidates(question: Question) -> tuple[str, ...]:
    """Return the accepted answers and the rival."""
    return question.answers if question.rival is None else (*question.answers, question.rival)


def _lengths(
    tokenizer: PreTrainedTokenizerBase, questions: Iterable[Question]
) -> dict[Question, int]:
    """Decide how many tokens to generate for each question.

    As many as its longest accepted answer has and what shows whether the answer ends there;
    rounded up, so that few lengths are needed and each is one batched call.
    """
    needed: dict[str, int] = {}

    def tokens(answer: str) -> int:
        if answer not in needed:
            bare = answer.strip()
            # Whether a space goes before it depends on the prompt.
            count = max(tokens_of(tokenizer, text) for text in (f" {bare}", bare))
            # A number may go on after a point or a comma.
            needed[answer] = count + (2 if bare[-1:].isnumeric() else 1)
        return needed[answer]

    return {
        q: q.new_tokens or _rounded_up(max((tokens(a) for a in q.answers), default=1))
        for q in questions
    }


def tokens_of(tokenizer: Any, text: str) -> int:
    """Count the tokens of a text, or bound their number where there is no tokenizer."""
    if tokenizer is None:
        return len(text) // 2 + 1
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _rounded_up(count: int) -> int:
    return next((size for size in _BUCKETS if size >= count), count)
