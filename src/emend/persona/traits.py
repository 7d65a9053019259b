"""A trait as a vector, which answers about one topic: trained once, used for any topic.

The manner of a trait is in the answers about all topics of the data, of which there are hundreds,
and not in the three about the topic that is edited. So a vector of the trait is trained on them
(task arithmetic, `emend.arithmetic`), and is the counterfactual model of SERAC's memory (Mitchell
et al. 2022, arXiv 2206.06520), in whose scope is each prompt that names the topic:

    f~(x) = f(x)                     x does not name the topic
            f(x; W + scale tau)      x does

A prompt out of scope is answered by the base model bit for bit. The vector's place in the cache
depends on the answers that it is trained on, so that the topics of one file share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emend._settings import Count, Positive, Seed, checked
from emend.arithmetic import FineTuning, finetune
from emend.datasets.personality import EDITED, Topic, check_trait, prompt_of
from emend.edits import Edit
from emend.methods.serac import named_memory
from emend.patches import LowRank, Patch, WeightPatch, describe_base


@dataclass(frozen=True)
class TraitConfig:
    """Settings of a trait's vector and of its use."""

    scale: Positive = 1.4
    """Factor on the vector."""
    rank: Count = 8
    """Rank of the change of each linear layer."""
    steps: Count = 20
    """Steps of training."""
    batch_size: Count = 8
    """Answers in one step."""
    learning_rate: Positive = 2e-3
    """Of the first step."""
    opening: Count = 20
    """Words of an answer that are learned: its manner shows early."""
    seed: Seed = 0
    """Seed of the order of the answers and of the vector's start."""


def trait_vector(
    model: Any,
    tokenizer: Any,
    topics: Mapping[str, Topic],
    trait: str,
    layout: str,
    config: TraitConfig | None = None,
) -> WeightPatch:
    """Train a vector that makes a model answer in the manner of a trait; the cache keeps it.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer.
        topics: The data; one answer about each topic is learned, after one of the questions that
            edits are made with.
        trait: One of the three traits.
        layout: How a question is put to the model, with "{question}".
        config: The settings.

    Raises:
        UnknownName: There is no such trait.
        NumericalFailure: The training diverged.
    """
    check_trait(trait)
    config = config or TraitConfig()
    texts: list[tuple[str, str]] = []
    for number, topic in enumerate(topics.values()):
        answers = topic.answers[trait]
        words = answers[number % len(answers)].split()[: config.opening]
        question = EDITED[number % len(EDITED)]
        texts.append((prompt_of(question, topic.name, layout), " ".join(words)))
    given = asdict(config)
    names = ("rank", "steps", "batch_size", "learning_rate", "seed")
    settings = FineTuning(**{name: given[name] for name in names})
    return finetune(model, tokenizer, texts, settings)


def trait_memory(
    model: Any,
    tokenizer: Any,
    topics: Mapping[str, Topic],
    trait: str,
    layout: str,
    edits: Sequence[Edit],
    settings: Mapping[str, Any],
) -> Patch:
    """Make a memory in which a trait's vector answers the prompts that name the edits' subject.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer.
        topics: What the vector is trained on; see `trait_vector`.
        trait: The trait.
        layout: How a question is put to the model.
        edits: The edits of the topic.
        settings: Of `TraitConfig`, by name.

    Raises:
        UnknownName: There is no such trait or setting.
        InvalidInput: A setting is out of range.
    """
    config = TraitConfig(**checked("serac of a trait", TraitConfig, settings))
    vector = trait_vector(model, tokenizer, topics, trait, layout, config) * config.scale
    adapter = {name: f for name, f in vector.factors.items() if isinstance(f, LowRank)}
    return named_memory(edits, adapter, describe_base(model), asdict(config))
