"""`erase`: make a patch that takes secrets out of a model, by one defence and one method."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from emend import methods, models
from emend.edits import states_answer
from emend.erasure.aims import RANK
from emend.erasure.attacking import known_by
from emend.erasure.attacks._layers import spread_layers
from emend.erasure.defences import RESPONSE, Setup, find_defence
from emend.erasure.secret import Secret, check_secrets
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.patches import WeightPatch

logger = logging.getLogger("emend")

PROTECTED = 5
"""Layers that are protected by default, as published: from half of the depth to the last one."""

OTHERS = 8
"""Other subjects for each secret whose values are held, of methods that can (docs/erasing.md)."""

NEW_TOKENS = 12
"""Greedy tokens in which the erased model is asked for a secret."""


@dataclass(frozen=True)
class Erased:
    """What became of one secret, at its own prompt; attacks ask in other ways.

    Attributes:
        secret: Its id.
        known: Whether the unedited model generated it; if not, there was nothing to erase.
        before: Probability of the answer before.
        after: The same with the patch; None where there was nothing to erase.
        generated: What the model with the patch generates after the prompt.
        is_gone: Whether that does not begin with the answer.
    """

    secret: str
    known: bool
    before: float
    after: float | None = None
    generated: str = ""
    is_gone: bool = False

    def describe(self) -> str:
        """State it in one line."""
        if not self.known or self.after is None:
            return f"{self.secret}: nothing to erase, the model does not know it"
        gone = "gone from the greedy answer" if self.is_gone else "STILL ANSWERED"
        chances = f"P(answer) {self.before:.2g} -> {self.after:.2g}"
        return f"{self.secret}: {gone}, {chances}, the model generates {self.generated.strip()!r}"


def erase(
    model: nn.Module,
    tokenizer: Any,
    secrets: Iterable[Secret],
    defence: str = "head_projection",
    method: str | methods.Method = "memit",
    *,
    protect: Sequence[int] | None = None,
    rank: int = RANK,
    response: str = RESPONSE,
    **settings: Any,
) -> WeightPatch:
    """Make a patch that erases secrets. The model itself is left as it is.

    The model is asked first: a secret that it does not generate is left out and reported, since
    there is nothing to erase. Whether an erasure held is what `emend.erasure.attack` shows.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        secrets: What to erase.
        defence: Its name; see `emend.erasure.DEFENCES`.
        method: A method that takes another loss: rome, memit, alphaedit, pmet, emmet or ft.
        protect: Layers whose lens head projection and max-entropy protect, none below the edited
            one; by default five from half of the depth to the last one. The last always is.
        rank: Rank that head projection moves the answer below.
        response: What empty response writes.
        settings: Settings of the method, or ``previous``. ``others`` (`memit`), the other subjects
            for each secret whose values are held, is 8 by default.

    Returns:
        The patch. What became of each secret is in ``patch.statistics["erasure"]``, and
        `erased_by` reads it.

    Raises:
        InvalidInput: There are no secrets, the model knows none of them, one lacks what the defence
            needs, a rank below 1, a protected layer below the edited one, or the method cannot.
        UnknownName: There is no such defence, method or setting.
    """
    chosen, found = find_defence(defence), check_secrets(secrets)
    if rank < 1:
        raise InvalidInput(f"rank is {rank}, expected at least 1: the answer is moved below it")
    setup = Setup(_protected(model, protect), rank, response)
    edits = chosen.edits(found, setup)  # refused before any work
    knew = known_by(model, tokenizer, found)
    known = [secret for secret, is_known in zip(found, knew, strict=True) if is_known]
    if not known:
        raise InvalidInput(
            f"nothing to erase: the model generates none of the {len(found)} answers, expected "
            "secrets that it knows; look at what it generates after their prompts"
        )
    chances = _chances(model, tokenizer, found)
    editor = methods.find(method)
    if "others" in editor.signature.own:
        settings.setdefault("others", OTHERS)
    patch = editor.edit(
        model,
        tokenizer,
        [edit for edit, is_known in zip(edits, knew, strict=True) if is_known],
        aim=chosen.aim(setup),
        **settings,
    )
    if not isinstance(patch, WeightPatch):
        raise InvalidInput(f"{patch.method} changes no weights, expected a method that does: rome")
    before = dict(zip((one.id for one in found), chances, strict=True))
    outcomes = _outcomes(model, tokenizer, patch, known, before)
    every = [outcomes.get(one.id) or Erased(one.id, False, before[one.id]) for one in found]
    _warn(every)
    note = {"defence": defence, "secrets": [asdict(one) for one in every]}
    return replace(patch, statistics={**patch.statistics, "erasure": note})


def erased_by(patch: WeightPatch) -> tuple[Erased, ...]:
    """Read what became of each secret from a patch that `erase` made.

    Raises:
        InvalidInput: It is no such patch.
    """
    note = patch.statistics.get("erasure")
    if note is None:
        raise InvalidInput("the patch holds no record of an erasure, expected one of emend.erase")
    return tuple(Erased(**one) for one in note["secrets"])


def _protected(model: nn.Module, given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the protected layers without the last one, ascending."""
    with models.base(model):
        view = ModelView(model)
    layers = spread_layers(view, PROTECTED, given)
    return tuple(layer for layer in layers if layer != view.num_layers - 1)


def _outcomes(
    model: nn.Module,
    tokenizer: Any,
    patch: WeightPatch,
    secrets: Sequence[Secret],
    before: dict[str, float],
) -> dict[str, Erased]:
    """Ask the model with the patch for each secret."""
    with models.base(model), patch.applied(model):
        after = _chances(model, tokenizer, secrets)
        prompts = [one.text for one in secrets]
        texts = models.generate(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS)
    return {
        one.id: Erased(
            *(one.id, True, before[one.id], chance, text),
            is_gone=not states_answer(text, [one.answer]),
        )
        for one, chance, text in zip(secrets, after, texts, strict=True)
    }


def _chances(model: nn.Module, tokenizer: Any, secrets: Sequence[Secret]) -> list[float]:
    """Return the probability of each answer after its prompt."""
    prompts, answers = [one.text for one in secrets], [one.answer for one in secrets]
    return [math.exp(one.total) for one in models.score(model, tokenizer, prompts, answers)]


def _warn(found: Sequence[Erased]) -> None:
    """Warn of secrets that were not there, and of those that are still answered."""
    unknown = [one.secret for one in found if not one.known]
    if unknown:
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        logger.warning(f"nothing to erase for {unknown[0]}{more}: the model does not know it")
    for one in found:
        if one.known and not one.is_gone:
            logger.warning(one.describe())
