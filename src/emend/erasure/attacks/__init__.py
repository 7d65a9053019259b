"""Attacks on an erasure: ways to get an answer out of a model that should no longer hold it.

An attack may name at most B candidates (its budget); it succeeds if the secret's answer is one of
them (Patil et al. 2024, arXiv 2309.17410). One file each, found by its name:

    head_projection     the most probable tokens of several layers, through the head (states)
    probability_delta   the tokens that rise or fall most from layer to layer (states)
    rephrasing          sampled answers to the statement in other words
    greedy              the words of one greedy continuation
    sampling            sampled continuations
    relearning          fine-tune on half of the secrets for a few steps, ask for the other half

Answers of several tokens are attacked by positions where an attack names tokens: each token is to
be found with the answer's tokens before it given, and all of them must be. So B holds for each
position, which favours the attack: without that help it would have to guess the prefix too.
"""

from __future__ import annotations

from emend._registry import Registry
from emend.erasure.attacks._attack import Attack, Attempt, Case, Given

__all__ = ["Attack", "Attempt", "Case", "Given", "registry"]


def registry() -> Registry[Attack]:
    """Return the registry of attacks: those of this package, and those of installed others."""
    return Registry(
        "attack",
        ["emend.erasure.attacks"],
        "emend.attacks",
        of="emend.erasure.attacks._attack:Attack",
    )
