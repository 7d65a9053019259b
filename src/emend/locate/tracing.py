"""Causal tracing: which hidden states bring an answer back that noise at the subject took away.

Meng et al. 2022, "Locating and Editing Factual Associations in GPT", arXiv 2202.05262, section 2.

    total effect     TE = P[o] - P*[o]
    indirect effect  IE = P*, clean h_t^l [o] - P*[o]

    paper       here        what
    P[o]        clean       probability of the answer after the prompt
    P*[o]       disturbed   the same with noise at the embeddings of the subject's tokens
    h_i^(l)     "state"     output of block l at token i, restored to what it is without noise
    m, a        "mlp", "attention": output of a block's MLP or attention, restored in a window of
                layers around l (published: 10), because one alone moves little
                "severed_mlp", "severed_attention": a state is restored while the MLPs (or
                attentions) of later blocks put out at that token what they do with the noise
    3 sigma     noise       in standard deviations of the embeddings of the subjects' tokens

The noise is drawn as the authors draw it (NumPy's generator 1, anew for every prompt), and P* is
the mean over the draws. Of an answer of several tokens the first is asked about.

Exact and cheap: see `_prompt` and `_effects`. Tokens before the subject have no effect, since
noise does not reach them; they are not run at all.

What an effect means is a question of its own: that a state brings the answer back does not make
its layer the best one to edit (Hase et al. 2023, arXiv 2301.04213).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emend._brief import brief
from emend.errors import InvalidInput, UnknownName
from emend.locate._effects import approximated, restored_parts, restored_states, windows
from emend.locate._prompt import Prompt, Run, opened
from emend.locate.facts import Asked, asked
from emend.models import ModelView
from emend.models.forward import evaluating, fused
from emend.models.hooks import frozen

KINDS = ("state", "mlp", "attention", "severed_mlp", "severed_attention")
"""What can be restored, and how."""


@dataclass(frozen=True)
class Settings:
    """How a trace is made.

    Attributes:
        kinds: What is restored, some of `KINDS`.
        window: Layers whose MLP or attention outputs are restored together.
        draws: How many times noise is drawn.
        noise: Its size, in standard deviations of the embeddings of the subject's tokens.
        deviation: That standard deviation, where it is known; None measures it.
        seed: Of the noise.
        approximate: Whether effects are estimated by gradients (attribution patching).
        batch_size: How many rows are run at once (at least as many as the model has blocks).

    Raises:
        InvalidInput: A number below its least.
        UnknownName: There is no such kind.
    """

    kinds: tuple[str, ...] = ("state",)
    window: int = 10
    draws: int = 10
    noise: float = 3.0
    deviation: float | None = None
    seed: int = 1
    approximate: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        if isinstance(self.kinds, str):
            raise InvalidInput(
                f"kinds is {self.kinds!r}, expected a tuple such as ({self.kinds!r},)"
            )
        for name in ("window", "draws", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.noise <= 0 or (self.deviation is not None and self.deviation <= 0):
            raise InvalidInput(
                f"noise of {self.noise} times {self.deviation or 'the'} standard deviation "
                "disturbs nothing, expected more than 0"
            )
        if not self.kinds:
            raise InvalidInput(f"no kinds are given, expected some of {', '.join(KINDS)}")
        for kind in self.kinds:
            if kind not in KINDS:
                raise UnknownName("kind of restoration", kind, KINDS)

    @property
    def sites(self) -> tuple[str, ...]:
        """The parts of the blocks whose outputs are needed."""
        text = " ".join(self.kinds)
        return tuple(site for site in ("mlp", "attention") if site in text)


@brief
@dataclass(frozen=True)
class Trace:
    """The effects of restoring each token in each layer, for one prompt.

    Attributes:
        prompt: The text.
        subject: The subject's name.
        answer: The answer's first token, as text.
        said: What the model says by itself, as text.
        tokens: The prompt's T tokens, as text.
        first: The subject's first token.
        last: Its last token.
        clean: P(answer), from 0 to 1.
        disturbed: P(answer) with noise at the subject, the mean over draws.
        deviation: Standard deviation of the embeddings of the subject's tokens.
        effects: (T, layers) indirect effects by kind, float32 (float64 of a float64 model) on
            the CPU.
        settings: How they were made.
    """

    prompt: str
    subject: str
    answer: str
    said: str
    tokens: tuple[str, ...]
    first: int
    last: int
    clean: float
    disturbed: float
    deviation: float
    effects: Mapping[str, Tensor]
    settings: Settings

    @property
    def total(self) -> float:
        """The total effect, clean - disturbed."""
        return self.clean - self.disturbed

    @property
    def caveat(self) -> str | None:
        """One line where the map means nothing: noise took nothing away. Else None."""
        if self.total > 0:
            return None
        chances = f"{100 * self.clean:.3g}% to {100 * self.disturbed:.3g}%"
        other = "" if self.answer == self.said else "trace an answer that the model gives, or "
        return (
            f"noise at the subject does not lower P({self.answer.strip()!r}) ({chances}), so that "
            "there is nothing to bring back and the map means nothing: "
            f"{other}change noise, draws or seed"
        )

    def peak(self, kind: str) -> tuple[int, int]:
        """Find (token, layer) of the largest effect; of equal ones the first."""
        effects = self.effects[kind]
        return divmod(int(effects.argmax()), effects.shape[1])

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, for JSON."""
        names = ("prompt", "subject", "answer", "said", "first", "last", "clean", "disturbed")
        settings = self.settings
        return {
            **{name: getattr(self, name) for name in names},
            "tokens": list(self.tokens),
            "total": self.total,
            "caveat": self.caveat,
            "deviation": self.deviation,
            "approximate": settings.approximate,
            "noise": settings.noise,
            "draws": settings.draws,
            "seed": settings.seed,
            "window": settings.window,
            "effects": {kind: effects.tolist() for kind, effects in self.effects.items()},
        }


def trace(
    model: nn.Module,
    tokenizer: Any,
    prompt: str,
    subject: str,
    answer: str | None = None,
    **settings: Any,
) -> Trace:
    """Trace which hidden states carry an answer.

    Args:
        model: A causal language model. It is not changed.
        tokenizer: Its tokenizer, a fast one.
        prompt: With a ``{}`` where the subject goes, or with the subject in it.
        subject: What the prompt is about.
        answer: What is asked about; by default what the model says. Its first token counts.
        settings: The fields of `Settings`.

    Returns:
        The effects by kind, token and layer; see `Trace.caveat` for where they mean nothing.

    Raises:
        InvalidInput: A setting out of range, or a prompt that the model cannot read.
        NumericalFailure: What the model puts out is not finite.
        SubjectNotFound: The subject is not in the prompt.
        UnknownName: There is no such kind of restoration.
        UnsupportedModel: The model's blocks have no MLP, or cannot be run apart from it.
    """
    chosen = settings_of(settings)
    view = ModelView(model)
    question = asked(view, tokenizer, prompt, subject, answer)
    found = traced(view, tokenizer, question, chosen)
    if answer is not None and found.answer != found.said:
        warnings.warn(
            f"the model says {found.said!r} and not {found.answer!r}, which is traced all the "
            f"same: P({found.answer!r}) is {found.clean:.3g}",
            stacklevel=2,
        )
    if found.caveat:
        warnings.warn(found.caveat, stacklevel=2)
    return found


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Make the settings from their names.

    Raises:
        UnknownName: There is no such setting.
    """
    known = Settings.__dataclass_fields__
    for name in given:
        if name not in known:
            raise UnknownName("setting", name, known)
    return Settings(**given)


def embedded(view: ModelView, question: Asked) -> Tensor:
    """Embed the subject's tokens, (n, size)."""
    ids = torch.tensor(question.ids[question.first : question.last + 1])
    with torch.no_grad():
        return view.embeddings(ids.to(next(view.embeddings.parameters()).device)).float()


def subject_effect(
    model: nn.Module, tokenizer: Any, prompt: str, subject: str, **settings: Any
) -> tuple[float, float]:
    """Measure what noise at a subject takes from the probability of the model's answer.

    The total effect alone, without what `trace` restores: some draws in one pass.

    Args:
        model: A causal language model. It is not changed.
        tokenizer: Its tokenizer, a fast one.
        prompt: As for `trace`.
        subject: As for `trace`.
        settings: noise, draws, deviation and seed of `Settings`.

    Returns:
        P(answer's first token) from 0 to 1 without noise, and the mean with it.

    Raises:
        EmendError: As `trace`.
    """
    chosen = settings_of(settings)
    view = ModelView(model)
    question = asked(view, tokenizer, prompt, subject, None)
    _, noise = _noise(view, question, chosen)
    with evaluating(model), frozen(model), fused(model), torch.no_grad():
        prompt_run, run = opened(view, question.ids, question.first, noise, ())
        states = prompt_run.clean.states[-1]
        token = int(view.logits(states[0, prompt_run.last]).argmax())
        disturbed = prompt_run.chances(run.states[-1], token)
        return float(prompt_run.chances(states, token)), float(disturbed.mean())


def _noise(view: ModelView, question: Asked, settings: Settings) -> tuple[float, Tensor]:
    """Draw noise (draws, n, size) for the subject's embeddings; also return their deviation."""
    subject = embedded(view, question)
    deviation = float(subject.std()) if settings.deviation is None else settings.deviation
    generator = np.random.RandomState(settings.seed)  # as published, so that draws are the same
    drawn = generator.randn(settings.draws, *subject.shape)
    return deviation, torch.from_numpy(settings.noise * deviation * drawn)


def traced(view: ModelView, tokenizer: Any, question: Asked, settings: Settings) -> Trace:
    """Trace one question; see `trace`."""
    deviation, noise = _noise(view, question, settings)
    model = view.model
    with evaluating(model), frozen(model), fused(model), torch.no_grad():
        prompt, run = opened(view, question.ids, question.first, noise, settings.sites)
        logits = view.logits(prompt.clean.states[-1][0, prompt.last])
        said = int(logits.argmax())
        token = said if question.answer is None else question.answer
        clean = float(prompt.chances(prompt.clean.states[-1], token))
        disturbed = prompt.chances(run.states[-1], token)
        effects = _effects(prompt, run, token, disturbed.cpu(), len(question.ids), settings)
    return Trace(
        prompt=question.prompt,
        subject=question.subject,
        answer=str(tokenizer.decode([token])),
        said=str(tokenizer.decode([said])),
        tokens=question.words,
        first=question.first,
        last=question.last,
        clean=clean,
        disturbed=float(disturbed.mean()),
        deviation=deviation,
        effects=effects,
        settings=settings,
    )


def _effects(
    prompt: Prompt, run: Run, token: int, disturbed: Tensor, length: int, settings: Settings
) -> dict[str, Tensor]:
    """Compute the effects of each kind, (T, layers)."""
    if settings.approximate:
        return approximated(prompt, run, token, length, settings.kinds, settings.window)
    size = max(1, settings.batch_size // prompt.view.num_layers)
    chunks = [slice(i, i + size) for i in range(0, len(disturbed), size)]
    found: dict[str, Tensor] = {}
    for kind in settings.kinds:
        effects = disturbed.new_zeros(length, prompt.view.num_layers)
        for column in range(prompt.first, prompt.last + 1):
            parts = [
                _restored(prompt, run.select(chunk), column, token, kind, settings.window)
                for chunk in chunks
            ]
            change = torch.cat(parts, dim=1).cpu() - disturbed  # (layers, D)
            effects[column - prompt.last + length - 1] = change.mean(1)
        found[kind] = effects
    return found


def _restored(prompt: Prompt, run: Run, column: int, token: int, kind: str, window: int) -> Tensor:
    if kind in ("mlp", "attention"):
        spans = windows(prompt.view.num_layers, window)
        return restored_parts(prompt, run, column, token, kind, spans)
    severed = kind.removeprefix("severed_") if kind != "state" else None
    return restored_states(prompt, run, column, token, severed)
