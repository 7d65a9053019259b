"""Training a hypernetwork on edits: each step edits, and judges the edits by other texts.

The edited model is never built. What a hypernetwork makes are factors of a change, and a hook
adds what the change adds, to each row of a batch that of its own edit; so one forward and
backward pass trains on a whole batch of edits that stand apart, and the gradient reaches the
network through the factors alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend._progress import progress
from emend.editing.gradients import forward_at, target_places
from emend.editing.packing import pack
from emend.editing.rows import Row
from emend.edits import Edit
from emend.errors import InvalidInput, NumericalFailure
from emend.methods.hypernetwork._episodes import Episode, draw_episode
from emend.methods.hypernetwork._network import Factors, Hypernetwork, NetworkSettings
from emend.methods.hypernetwork._reading import edited, edited_shapes, read_edits_for
from emend.methods.hypernetwork._state import (
    load_checkpoint,
    networks,
    save_checkpoint,
    save_network,
)
from emend.models import ModelView, base, ensure_start, model_fingerprint, tokens_fingerprint
from emend.models.forward import evaluating, target_nll
from emend.models.hooks import frozen
from emend.models.positions import pad
from emend.patches import describe_base


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps made.
        loss: Mean loss of the steps since the last validation.
        reliability: Share of validation edits whose every target token is the most likely one,
            in the edit's own words (teacher-forced).
        generalization: The same in a rewording.
        locality: Share of locality texts of which every answer token is as likely first after
            the edit as before.
    """

    step: int
    loss: float
    reliability: float
    generalization: float
    locality: float

    @property
    def figure(self) -> float:
        """What decides which weights are kept: the harmonic mean of the three shares."""
        shares = (self.reliability, self.generalization, self.locality)
        return 0.0 if min(shares) <= 0 else len(shares) / sum(1 / share for share in shares)


def train(
    method: str,
    model: Any,
    tokenizer: Any,
    training: Sequence[Edit],
    validation: Sequence[Edit],
    directory: str | Path,
    settings: NetworkSettings | None = None,
    *,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train a hypernetwork, resuming where a training into the same directory ended.

    The best network so far stands in the directory all the time, and a checkpoint beside it;
    each is one file, written aside and renamed, so that a kill at any moment loses at most the
    steps since the last validation.

    Args:
        method: Name of a hypernetwork: "mend", "ke", "malmen".
        model: The model whose edits it shall learn; it is not changed.
        tokenizer: Its tokenizer.
        training: Edits to train on, with rephrase and locality probes where there are any.
        validation: Edits to stop by; none of them should share a subject with the training's.
        directory: Where the network is written to.
        settings: Settings of the network; None for its defaults.
        report: Called after each validation.

    Returns:
        The validation of the network that was kept.

    Raises:
        InvalidInput: No edits, or the directory holds a training of another model, of other edits
            or with other settings.
        NumericalFailure: The loss is not finite.
    """
    kind = networks().get(method)
    settings = settings or kind.settings_type()
    if not training or not validation:
        raise InvalidInput(
            f"{len(training)} edits to train on and {len(validation)} to validate on, "
            "expected at least one of each: give more edits"
        )
    with base(model), evaluating(model), frozen(model):
        edits = tuple(training), tuple(validation)
        run = _Training(method, model, tokenizer, edits, Path(directory), settings)
        return run.run(report)


class _Training:
    """One training with its network, optimiser and best figure."""

    def __init__(
        self,
        method: str,
        model: Any,
        tokenizer: Any,
        edits: tuple[Sequence[Edit], Sequence[Edit]],
        directory: Path,
        settings: NetworkSettings,
    ) -> None:
        self.view, self.tokenizer, self.edits = ModelView(model), tokenizer, edits
        ensure_start(model, tokenizer)
        self.method, self.directory, self.settings = method, directory, settings
        shapes = edited_shapes(self.view, settings.layers)
        weight: Any = self.view.embeddings.weight
        self.network: Hypernetwork = networks().get(method)(shapes, int(weight.shape[1]), settings)
        self.optimizer = self.network.optimizer()
        self.base = describe_base(model)
        self.step, self.bad = 0, 0
        self.best: Progress | None = None
        self._resume()

    def run(self, report: Callable[[Progress], None] | None) -> Progress:
        training, validation = self.edits
        every = self.settings.validate_every
        losses: list[float] = []
        last = self.settings.steps
        for step in progress(range(self.step, last), f"training {self.method}"):
            losses.append(self._train(step, training))
            if (step + 1) % every and step + 1 != last:
                continue
            found = self._validate(validation, step + 1, sum(losses) / len(losses))
            losses = []
            self.network.validated(found.reliability)
            self._keep(found)
            if report is not None:
                report(found)
            if self.bad >= self.settings.patience:
                break
        assert self.best is not None
        return self.best

    def _train(self, step: int, training: Sequence[Edit]) -> float:
        generator = random.Random(f"{self.settings.seed}-{step}")  # resumes without a state
        edits = generator.sample(list(training), min(self.settings.batch_size, len(training)))
        episode = draw_episode(self.tokenizer, edits, self.settings.kept_texts, generator)
        with torch.enable_grad():
            told, moved = self._losses(episode, observe=True)
            loss = self.network.objective(told, moved)
            if not bool(loss.isfinite()):
                raise NumericalFailure(
                    f"the loss is {float(loss)} at step {step}, expected a finite number: "
                    "lower learning_rate, or load the model in float32"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.network.after_gradient()
            self.optimizer.step()
        self.network.after_step()
        return float(loss.detach())

    def _losses(self, episode: Episode, *, observe: bool) -> tuple[Tensor, Tensor]:
        """Mean loss of the targets after the edits, and mean divergence of what shall stay."""
        after, before = self._logits(episode, observe=observe)
        places, tokens, weights = target_places([*episode.asked, *episode.kept])
        asked = places[0] < len(episode.asked)
        nll = target_nll(after[asked], tokens[asked], weights[asked])
        told = nll.sum() / len(episode.asked)
        new, old = after[~asked].log_softmax(-1), before.log_softmax(-1)
        divergence = (old.exp() * (old - new)).sum(-1)  # (M,)
        moved = (divergence * weights[~asked].to(divergence)).sum() / max(len(episode.kept), 1)
        return told, moved

    def _logits(self, episode: Episode, *, observe: bool) -> tuple[Tensor, Tensor]:
        """Of the edited model at all targets, and of the base model at those that shall stay."""
        reading = read_edits_for(
            self.network, self.view, self.tokenizer, episode.edits, episode.rows
        )
        if observe:
            self.network.observe(reading)
        factors = self.network(reading)
        with torch.no_grad():
            before = self._scored(episode.kept, episode.kept_of, {})
        owners = [*episode.asked_of, *episode.kept_of]
        after = self._scored([*episode.asked, *episode.kept], owners, factors)
        return after, before

    def _scored(
        self, rows: Sequence[Row], owners: Sequence[int], factors: Mapping[str, Factors]
    ) -> Tensor:
        """Logits (M, vocabulary) where the rows' targets are predicted, in the rows' order."""
        found: list[Tensor] = [torch.empty(0, self.view.vocabulary)] * len(rows)
        for members in pack([len(row.ids) for row in rows]):
            chosen = [rows[number] for number in members]
            places, _, _ = target_places(chosen)
            batch = pad([row.ids for row in chosen])
            with edited(self.view, factors, torch.tensor([owners[n] for n in members])):
                logits = forward_at(self.view, batch, *places).float()
            split = logits.split([len(row.targets) for row in chosen])
            for number, part in zip(members, split, strict=True):
                found[number] = part
        return torch.cat(found) if found else torch.empty(0, self.view.vocabulary)

    @torch.no_grad()
    def _validate(self, edits: Sequence[Edit], step: int, loss: float) -> Progress:
        own: list[bool] = []
        reworded: list[bool] = []
        kept: list[bool] = []
        size = self.settings.batch_size
        for start in range(0, len(edits), size):
            generator = random.Random(f"validation-{start}")
            episode = draw_episode(self.tokenizer, edits[start : start + size], 4, generator)
            after, before = self._logits(episode, observe=False)
            rows, tokens, _ = target_places([*episode.asked, *episode.kept])
            asked = rows[0] < len(episode.asked)
            expected = torch.cat([tokens[asked], before.argmax(-1).cpu()])
            right = _all_of(rows[0], after.argmax(-1).cpu() == expected)
            count = len(episode.edits)
            own += right[:count]
            reworded += right[count : len(episode.asked)]
            kept += right[len(episode.asked) :]
        shares = [sum(each) / len(each) if each else 1.0 for each in (own, reworded, kept)]
        return Progress(step, loss, *shares)

    def _keep(self, found: Progress) -> None:
        """Write the checkpoint, and the network where it is the best so far."""
        self.step = found.step
        self.bad += 1
        if self.best is None or (found.figure, -found.loss) > (self.best.figure, -self.best.loss):
            self.best, self.bad = found, 0
            save_network(self.directory, self.method, self.network, self.base, vars(found))
        progressed = {"step": self.step, "bad": self.bad, "best": vars(self.best)}
        save_checkpoint(self.directory, self.network, self.optimizer, self._key(), progressed)

    def _resume(self) -> None:
        found = load_checkpoint(self.directory, self.network, self.optimizer, self._key())
        if found is not None:
            self.step, self.bad = found["step"], found["bad"]
            self.best = Progress(**found["best"])

    def _key(self) -> str:
        """What must be the same for a training to be continued; how many steps may differ."""
        described = self.network.describe()
        settings = {
            name: value
            for name, value in described["settings"].items()
            if name not in ("steps", "patience")
        }
        return _identity.key(
            "hypernetwork training",
            model=model_fingerprint(self.view.model),
            tokenizer=tokens_fingerprint(self.view.model, self.tokenizer),
            method=self.method,
            network={**described, "settings": settings},
            edits=self.edits,
        )


def _all_of(rows: Tensor, right: Tensor) -> list[bool]:
    """For each row whether all of its places are right."""
    count = int(rows.max()) + 1
    wrong = torch.zeros(count).index_add(0, rows, (~right).float())
    return (wrong == 0).tolist()
