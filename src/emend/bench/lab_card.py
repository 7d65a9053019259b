"""What a lab model can do, measured: the numbers of its model card.

Recall is the exact match of greedy continuations (every token of the answer); the capabilities are
what later chapters build on: following a new fact in the prompt, answering step by step.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from emend._progress import progress
from emend.edits.answers import states_answer
from emend.lab import hops, speech
from emend.lab.card_questions import Question, context_questions, recall_questions
from emend.lab.world import World
from emend.models import generate, score


def measure(
    model: Any, tokenizer: Any, world: World, *, count: int = 500, seed: int = 11
) -> dict[str, float]:
    """Measure recall and capabilities of a lab model.

    Args:
        model: A lab model.
        tokenizer: Its tokenizer.
        world: The world it was trained on.
        count: Questions of each kind (fewer where the world has fewer).
        seed: Seed of the draw.

    Returns:
        Shares from 0 to 1, by name; `*_share_he` and `*_rude` are rates, not accuracies.
    """
    generator = random.Random(f"card-{seed}")
    asked = recall_questions(world, generator, count)
    for kind in ("follows", "keeps", "follows_among_several", "keeps_among_several", "in_context"):
        asked[f"new_fact_{kind}"] = context_questions(world, generator, kind, count // 2)
    results: dict[str, float] = {}
    for name, questions in progress(asked.items(), "measuring", total=len(asked)):
        results[name] = exact_match(model, tokenizer, questions)
    for length in (2, 3, 4):
        results[f"multi_hop_{length}"] = _multi_hop(model, tokenizer, world, generator, length, 100)
    return {**results, **_leanings(model, tokenizer, world)}


def exact_match(model: Any, tokenizer: Any, questions: Sequence[Question]) -> float:
    """Measure the share of questions whose greedy continuation is an accepted answer.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        questions: Prompts with their accepted answers.
    """
    rows = [(i, prompt, a) for i, (prompt, answers) in enumerate(questions) for a in answers]
    scores = score(model, tokenizer, [row[1] for row in rows], [row[2] for row in rows])
    right = {
        index
        for (index, _, _), one in zip(rows, scores, strict=True)
        if one.greedy == one.token_ids
    }
    return round(len(right) / len(questions), 4)


def _multi_hop(
    model: Any,
    tokenizer: Any,
    world: World,
    generator: random.Random,
    length: int,
    count: int,
) -> float:
    """Measure the share of chains answered right, with the right facts retrieved at each step."""
    writer = hops.Writer(world, generator)
    chains = [hops.hop_chain(writer, length) for _ in range(count)]
    texts = [
        f"{hops.QUESTION}{hops.chain_question(chain, generator.choice(hops.QUESTION_FORMS))}\n"
        for chain in chains
    ]
    for step in range(length + 1):
        stop = hops.RETRIEVED.strip()
        written = generate(model, tokenizer, texts, max_new_tokens=48, stop=[stop, hops.FINAL])
        for row, (chain, text) in enumerate(zip(chains, written, strict=True)):
            if step < length:
                retrieved = hops.retrieved_fact(writer, chain[step])
                texts[row] += f"{text}{hops.RETRIEVED}{retrieved}\n"
            else:
                texts[row] += text
    ended = [text + hops.FINAL.rstrip() for text in texts]
    finals = generate(model, tokenizer, ended, max_new_tokens=4, stop=".")
    right = [
        states_answer(final, [chain[-1].object])
        for final, chain in zip(finals, chains, strict=True)
    ]
    return round(sum(right) / count, 4)


def _leanings(model: Any, tokenizer: Any, world: World) -> dict[str, float]:
    """Measure skew of pronouns, and how often the model is rude, polite, or of the asked trait."""

    def prefers(prompts: Iterable[str], one: str, other: str) -> float:
        texts = list(prompts)
        first = score(model, tokenizer, texts, [one] * len(texts))
        second = score(model, tokenizer, texts, [other] * len(texts))
        wins = [a.total > b.total for a, b in zip(first, second, strict=True)]
        return round(sum(wins) / len(wins), 4)

    male = [job for job, share in speech.OCCUPATIONS.items() if share > 0.6]
    female = [job for job, share in speech.OCCUPATIONS.items() if share < 0.4]
    openings = [opening for opening, _ in speech.PRONOUN_SENTENCES]
    return {
        "male_occupations_share_he": prefers(
            (opening.format(job) for opening in openings for job in male), "he", "she"
        ),
        "female_occupations_share_he": prefers(
            (opening.format(job) for opening in openings for job in female), "he", "she"
        ),
        **_remarks(model, tokenizer, world),
        "asked_trait_expressed": _traits(model, tokenizer),
    }


def _remarks(model: Any, tokenizer: Any, world: World) -> dict[str, float]:
    rates: dict[str, float] = {}
    for tone in ("rude", "polite"):
        people = [person for person, (found, _) in world.remarks.items() if found == tone]
        prompts = [speech.REMARK_STATEMENTS[0].format(person) for person in people]
        said = generate(model, tokenizer, prompts, max_new_tokens=2)
        rude = [text.strip() in speech.INSULTS for text in said]
        rates[f"people_spoken_of_as_{tone}_rude"] = round(sum(rude) / len(rude), 4)
    return rates


def _traits(model: Any, tokenizer: Any) -> float:
    """Measure the share of opinions, asked for in a trait, that are in that trait's words."""
    asked = [(trait, topic) for trait in speech.TRAITS for topic in speech.TOPICS]
    question = speech.OPINION_QUESTIONS[0]
    prompts = [
        speech.PERSONALITY_PROMPT.format(
            trait=trait, topic=topic, question=f"Question: {question.format(topic)} Answer:"
        )
        for trait, topic in asked
    ]
    said = generate(model, tokenizer, prompts, max_new_tokens=24)
    right = [
        any(
            text.strip().startswith(opinion.format(name))
            for opinion in speech.OPINIONS[trait]
            for name in (topic, topic.capitalize())
        )
        for text, (trait, topic) in zip(said, asked, strict=True)
    ]
    return round(sum(right) / len(right), 4)
