"""DINM: tune one toxic layer until the model answers unsafe prompts safely.

Wang et al. 2024, "Detoxifying Large Language Models via Knowledge Editing", arXiv 2403.14472.

    l* = argmax_l || h_l(Y_safe) - h_l(Y_unsafe) ||_2                                   (locate)
    minimise over Delta at l*:   w L_e + L_c                                            (tune)
        L_e = -log p(Y_safe | X; W + Delta)
        L_c = KL( p(. | X_c, Y_c; W) || p(. | X_c, Y_c; W + Delta) )

    paper      here                                 what
    X          edit.text                            the adversarial prompt
    Y_safe     edit.target                          the safe answer
    Y_unsafe   edit.original                        the unsafe answer; else what the model answers
    X_c, Y_c   edit.probes_of("locality")           an unrelated prompt and its answer
    h_l        `toxic_distances`                    output of block l, mean over the answer
    W          the down-projection of block l*
    w          1 / hold (0.1)                       Adam's steps depend on the ratio alone

Deviations:

- **L_c is differentiated.** The published code (zjunlp/EasyEdit, `dinm_main.py`) computes it inside
  ``torch.no_grad()``: it changes the loss that is printed and no step, so that nothing is preserved
  there. ``hold=0`` gives that behaviour.
- h_l is read where the model writes the answer after the prompt, as a mean over its tokens; the
  published code reads the two answers alone, padded to one length, and compares token by token.
- All edits are tuned together, in batches, and share the layer with the largest mean distance; the
  published code tunes and evaluates one edit at a time.
- Of edits without locality probes, texts that the unedited model samples are preserved.
- The published code appends a sentence that asks for safe answers to every prompt, in tuning and in
  use. Here a prompt is what the edit says; write the sentence into it if it is there in use.
- The change is trained in float32 next to the weight and the model itself is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, NotNegative, Positive, Seed
from emend.editing import Session
from emend.editing.contexts import sample_templates
from emend.editing.preservation import PreservedBatch, preserved_batch
from emend.editing.rows import Row
from emend.editing.training import TrainingSettings, answer_batches, train
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.locate import block_states
from emend.methods._method import method
from emend.models import ModelView, generate, join_targets
from emend.models.forward import evaluating
from emend.models.hooks import changing, frozen
from emend.models.positions import prompt_tokens, text_tokens
from emend.models.start import front_ids
from emend.patches import Dense, WeightPatch

BATCH = 32
"""Edits in one step."""

ROWS = 8
"""Preserved rows in one step: all of their positions are compared over the whole vocabulary."""

ANSWER = 24
"""Tokens of the model's own answer, where an edit does not give the unsafe one."""

OWN = ((24, 16),)
"""Length and number of the sampled texts that are preserved where edits bring no unrelated ones."""


@method(
    title="DINM: locate the toxic layer and tune it towards safe answers",
    paper="Wang et al. 2024, arXiv 2403.14472",
    when="unsafe or rude answers to many prompts, from one or a few examples of safe ones",
    avoid="to change a fact; where one edit must be taken out alone",
    continues="sequential",
)
def dinm(
    session: Session,
    *,
    layer: int | None = None,
    steps: Count = 10,
    learning_rate: Positive = 1e-3,
    hold: NotNegative = 10.0,
    seed: Seed = 0,
) -> WeightPatch:
    """Tune the change of one down-projection on all edits together.

    Args:
        session: The edits and the engine.
        layer: Layer to tune; by default the toxic one, located as published.
        steps: Passes over all edits, as published.
        learning_rate: Step size of Adam (published: 5e-4 for GPT-2 XL, 1e-5 for Mistral; by 5e-4
            SmolLM2 was tuned away from six rude remarks and not from ten).
        hold: Factor on the KL divergence of unrelated answers, by that on safe ones (published:
            1 and 0.1, but without effect).
        seed: Seed of the texts that are sampled where edits bring no unrelated answers.
    """
    view, tokenizer = session.view, session.tokenizer
    with evaluating(session.model), frozen(session.model):
        if layer is None:
            distances = toxic_distances(view, tokenizer, session.edits)
            layer = max(view.editable, key=lambda number: float(distances[number]))
            session.fill(layer=layer)
        (layer,) = view.numbered([layer])
        module = view.down_projection(layer)
        batches = answer_batches(view, tokenizer, session.edits, layer, BATCH)
        preserved = _preserved(session, layer, seed) if hold else []
        shape = (view.hidden_size, view.intermediate_size(layer))
        delta = torch.zeros(shape, device=view.device(layer), requires_grad=True)
        settings = TrainingSettings(steps, learning_rate, hold=hold)
        train(
            *(view, [delta], batches, preserved, settings),
            *(lambda: changing(module, delta),),
            label="tuning the toxic layer",
        )
    return session.patch({layer: Dense(delta.detach())})


def toxic_distances(view: ModelView, tokenizer: Any, edits: Sequence[Edit]) -> Tensor:
    """Measure at each layer how far the safe answers' states are from the unsafe ones'.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: E edits. An edit's `original` is the unsafe answer; where it has none, the model's
            own greedy answer is.

    Returns:
        (layers,) float64: the mean over edits of the distance || h_l(safe) - h_l(unsafe) ||_2.

    Raises:
        NumericalFailure: A state is not finite.
    """
    asked = [edit.text for edit in edits if edit.original is None]
    own = iter(generate(view.model, tokenizer, asked, max_new_tokens=ANSWER) if asked else ())
    total = torch.zeros(view.num_layers, dtype=torch.float64)
    for edit in progress(edits, "locating the toxic layer"):
        unsafe = next(own) if edit.original is None else edit.original
        safe = _answer_states(view, tokenizer, edit.text, edit.target)
        total += (safe - _answer_states(view, tokenizer, edit.text, unsafe)).norm(dim=-1)
    if not bool(total.isfinite().all()):
        raise NumericalFailure(
            "states of the model are not finite, expected numbers to locate the toxic layer by: "
            "load the model in float32, or check its weights"
        )
    return total / len(edits)


def _answer_states(view: ModelView, tokenizer: Any, prompt: str, answer: str) -> Tensor:
    """Return (layers, hidden_size) float64: the mean state where the answer is written.

    That is from the prompt's last token to the answer's last; of an empty answer the former alone.
    """
    if answer.strip():
        before, after = join_targets(tokenizer, [prompt], [answer])[0]
    else:
        before, after = prompt_tokens(tokenizer, [prompt])[0], []
    states = block_states(view, [*before, *after])
    return torch.stack([each[len(before) - 1 :].double().mean(0).cpu() for each in states])


def _preserved(session: Session, layer: int, seed: int) -> list[PreservedBatch]:
    """Capture the unrelated answers of the edits, or else texts that the model samples."""
    tokenizer = session.tokenizer
    probes = dict.fromkeys(probe for edit in session.edits for probe in edit.probes_of("locality"))
    prompts, answers = [one.prompt for one in probes], [one.answers[0] for one in probes]
    rows = [
        Row((*before, *after), len(before) - 1)
        for before, after in join_targets(tokenizer, prompts, answers)
    ]
    if not rows:
        sampled = sample_templates(session.model, tokenizer, seed=seed, lengths=OWN)[1:]
        texts = [text.removesuffix(". {}") for text in sampled]
        front = front_ids(tokenizer)
        rows = [Row((*front, *ids), 0) for ids in text_tokens(tokenizer, texts)]
    parts = [rows[first : first + ROWS] for first in range(0, len(rows), ROWS)]
    return [preserved_batch(session.view, part, layer) for part in parts]
