"""Ask a model about a topic before and after an edit, and compare the two.

before = interview(model, tokenizer, topic, trait, others)
with patch.applied(model):
after = interview(model, tokenizer, topic, trait, others)
result = compare(before, after, judge)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from emend._brief import brief
from emend.datasets.personality import TRAITS, Topic, check_trait
from emend.errors import InvalidInput
from emend.metrics import Classifier, label_index
from emend.metrics.fluency import ngram_entropy
from emend.models import generate, score, target_log_probs
from emend.persona.editing import Asking, asking_for
from emend.persona.judging import EndpointJudge
from emend.persona.measures import (
    DULL,
    accuracy,
    cross_entropy,
    drawdown,
    editing_success,
    mean_log_prob,
)

NEW_TOKENS = 60
"""Tokens of an answer, as published; it ends at the first line break."""


@brief
@dataclass(frozen=True)
class Interview:
    """What a model says of a topic and of some others.

    Attributes:
        trait: The trait that is edited.
        own: Greedy answers to the held-out questions about the topic.
        others: Greedy answers to the same questions about the other topics.
        same: Mean token log-probability of the topic's answers of the trait.
        rival: The same of its answers of the two other traits.
        log_probs: Of one answer about each other topic, (tokens, vocabulary).
    """

    trait: str
    own: tuple[str, ...]
    others: tuple[str, ...]
    same: float
    rival: float
    log_probs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Comparison:
    """The measures of one edited personality; shares from 0 to 1.

    Attributes:
        editing_success: ES.
        drawdown: DD, in nats.
        accuracy: Share of answers about the topic in which the judge finds the trait, after.
        accuracy_before: The same before.
        others: Share of answers about other topics in which it finds the trait, after.
        others_before: The same before.
        unchanged: Share of answers about other topics that are the same text as before.
        tpei: TPEI in nats; None for a judge without probabilities.
        pae: PAE, from -4 to 4; None for a judge that does not rate.
        repetitive: Share of answers about the topic of low n-gram entropy, after.
    """

    editing_success: float
    drawdown: float
    accuracy: float
    accuracy_before: float
    others: float
    others_before: float
    unchanged: float
    tpei: float | None
    pae: float | None
    repetitive: float

    def to_dict(self) -> dict[str, Any]:
        """Return the measures as JSON-able data."""
        return dataclasses.asdict(self)


def interview(
    model: Any,
    tokenizer: Any,
    topic: Topic,
    trait: str,
    others: Sequence[Topic],
    asking: Asking | None = None,
    *,
    new_tokens: int = NEW_TOKENS,
    other_questions: int | None = None,
    scored: int | None = None,
) -> Interview:
    """Ask a model, with whatever is attached to it, about a topic and some others.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        topic: The topic, with its answers.
        trait: The trait that is edited.
        others: Other topics, at least one.
        asking: The questions, by default those of `asking_for`; those held out are asked.
        new_tokens: Most tokens of an answer.
        other_questions: Questions about each other topic; by default all.
        scored: Answers of each trait whose log-probability is measured; by default all.

    Raises:
        InvalidInput: There is no other topic.
        UnknownName: There is no such trait.
    """
    check_trait(trait)
    if not others:
        raise InvalidInput("no other topics are given, expected one or more to compare with")
    asking = asking or asking_for(tokenizer)
    own = asking.prompts(topic.name)
    rest = [prompt for one in others for prompt in asking.prompts(one.name)[:other_questions]]
    texts = generate(model, tokenizer, [*own, *rest], max_new_tokens=new_tokens, stop="\n")
    spoken = [text.strip() for text in texts]
    same, rival = (
        mean_log_prob(score(model, tokenizer, [own[0]] * len(answers), answers))
        for answers in (topic.answers[trait][:scored], _rivals(topic, trait, scored))
    )
    prompts = [asking.prompts(one.name)[0] for one in others]
    answers = [one.answers[trait][0] for one in others]
    return Interview(
        trait,
        tuple(spoken[: len(own)]),
        tuple(spoken[len(own) :]),
        same,
        rival,
        tuple(target_log_probs(model, tokenizer, prompts, answers)),
    )


def _rivals(topic: Topic, trait: str, scored: int | None) -> list[str]:
    """Return the answers of the two other traits."""
    others = [other for other in TRAITS if other != trait]
    return [answer for other in others for answer in topic.answers[other][:scored]]


def compare(before: Interview, after: Interview, judge: Classifier) -> Comparison:
    """Measure what changed between two interviews with the same questions.

    An empty answer counts as an answer without the trait.

    Args:
        before: With the unedited model.
        after: With the edited one.
        judge: Finds the trait in an answer; see `load_judge`.
    """
    label = label_index(judge, after.trait)
    groups = [before.own, after.own, before.others, after.others]
    judged = [_judged(judge, texts) for texts in groups]
    shares = [accuracy(one, label) for one in judged]
    rates = isinstance(judge, EndpointJudge)
    own = cross_entropy(judged[0], label), cross_entropy(judged[1], label)
    pairs = list(zip(before.others, after.others, strict=True))
    return Comparison(
        editing_success(after.same, after.rival, before.same),
        drawdown(before.log_probs, after.log_probs),
        accuracy=shares[1],
        accuracy_before=shares[0],
        others=shares[3],
        others_before=shares[2],
        unchanged=fmean(old == new for old, new in pairs),
        tpei=None if rates else own[0] - own[1],
        pae=_rating_change(judge, before, after) if isinstance(judge, EndpointJudge) else None,
        repetitive=fmean(ngram_entropy(text) < DULL for text in after.own),
    )


def _judged(judge: Classifier, texts: Sequence[str]) -> Tensor:
    """Return (N, labels) probabilities; zeros for an empty answer, which shows no trait."""
    found = torch.zeros(len(texts), len(judge.labels))
    written = [number for number, text in enumerate(texts) if text.strip()]
    if written:
        found[written] = judge.probabilities([texts[number] for number in written])
    return found


def _rating_change(judge: EndpointJudge, before: Interview, after: Interview) -> float:
    """Compute PAE: the mean rating after the edit less that before."""
    old, new = (judge.ratings(one.own, one.trait) for one in (before, after))
    return fmean(new) - fmean(old)
