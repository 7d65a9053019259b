"""Training a hypernetwork on edits: each step edits, and judges the edits by other texts.

The edited model is never built. A hypernetwork makes the factors of a change, and a hook adds to
each row of a batch what the change of its own edit adds; so one forward and backward pass trains
on a whole batch of edits that do not affect each other, and the gradient reaches the network
through the factors alone.
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
from emend.editing.gradients import target_places
from emend.editing.rows import Row
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._training import (
    Progress,
    backward,
    mlp_shapes,
    read_tensors,
    target_logits,
    target_rows,
    training_on,
    write_tensors,
)
from emend.methods.hypernetwork._even import (
    Objective,
    evenness,
    mean_log_probs,
    originals,
    rows_to_read,
    symmetric_divergence,
)
from emend.methods.hypernetwork._network import (
    Factors,
    Hypernetwork,
    NetworkSettings,
    edited,
    networks,
    read_edits_for,
    save_network,
)
from emend.models import ModelView, model_fingerprint, tokens_fingerprint
from emend.models.forward import target_nll
from emend.patches import describe_base

CHECKPOINT = "checkpoint.safetensors"
"""The network and its optimiser after the last validation; only for resuming."""
LOCALITY_TEXTS, VALIDATED_TEXTS = 2, 4
"""Locality texts drawn for each edit of a step, and of a validation."""


@dataclass(frozen=True)
class Episode:
    """E edits and the texts that their changes are judged by.

    Attributes:
        edits: The edits.
        rows: (E) the edits themselves; for "even" (2E), see `_even.rows_to_read`.
        asked: Prompts with the target: each edit's own and a rewording.
        asked_of: For each of them the number of its edit.
        locality: Locality texts with the answers of before.
        locality_of: For each of them the number of the edit that must not move it.
    """

    edits: tuple[Edit, ...]
    rows: list[Row]
    asked: list[Row]
    asked_of: list[int]
    locality: list[Row]
    locality_of: list[int]


def draw_episode(
    tokenizer: Any,
    edits: Sequence[Edit],
    locality_texts: int,
    generator: random.Random,
    objective: Objective = "target",
) -> Episode:
    """Draw the texts of some edits.

    An edit without rephrase probes is asked in its own words only. One without locality probes
    must not move the other edits of the step and their answers of before. For "even" the asked
    texts are all edits with their targets and then with their originals.
    """
    asked = [(number, edit.text, edit.target) for number, edit in enumerate(edits)]
    if objective == "even":
        asked += [
            (n, e.text, o) for n, (e, o) in enumerate(zip(edits, originals(edits), strict=True))
        ]
    locality: list[tuple[int, str, str]] = []
    for number, edit in enumerate(edits):
        rephrased = edit.probes_of("rephrase")
        if rephrased and objective == "target":
            asked.append((number, generator.choice(rephrased).prompt, edit.target))
        texts = [(probe.prompt, probe.answers[0]) for probe in edit.probes_of("locality")]
        if not texts:
            others = [other for other in edits if other.subject != edit.subject]
            texts = [(other.text, other.original or other.target) for other in others]
        chosen = generator.sample(texts, min(locality_texts, len(texts)))
        locality += [(number, prompt, answer) for prompt, answer in chosen]
    return Episode(
        tuple(edits),
        rows_to_read(tokenizer, edits, objective),
        target_rows(tokenizer, *_texts(asked)),
        [number for number, _, _ in asked],
        target_rows(tokenizer, *_texts(locality)),
        [number for number, _, _ in locality],
    )


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

    The best network so far is in the directory all the time, and a checkpoint next to it, so
    that a kill at any moment loses at most the steps since the last validation.

    Args:
        method: Name of a hypernetwork: "mend", "ke", "malmen".
        model: The model whose edits it learns; it is not changed.
        tokenizer: Its tokenizer.
        training: Edits to train on, with rephrase and locality probes where there are any.
        validation: Edits to stop by; none of them should share a subject with the training's.
        directory: Where the network is written to.
        settings: Settings of the network; None for its defaults.
        report: Called after each validation.

    Returns:
        The validation of the network that was saved.

    Raises:
        InvalidInput: No edits, or the directory holds a training of another model, of other edits
            or with other settings.
        NumericalFailure: The loss is not finite.
    """
    settings = settings or networks().get(method).settings_type()
    with training_on(model, tokenizer, training, validation):
        edits = tuple(training), tuple(validation)
        run = _Training(method, model, tokenizer, edits, Path(directory), settings)
        return run.run(report)


class _Training:
    """One training with its network, optimiser and best score."""

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
        """Train until the last step, or until the score no longer rises."""
        training, validation = self.edits
        every, last = self.settings.validate_every, self.settings.steps
        losses: list[float] = []
        for step in progress(range(self.step, last), f"training {self.method}"):
            losses.append(self._train(step, training))
            if (step + 1) % every and step + 1 != last:
                continue
            found = self._validate(validation, step + 1, sum(losses) / len(losses))
            losses = []
            self.network.validated(found.reliability)
            self._save(found)
            if report is not None:
                report(found)
            if self.bad >= self.settings.patience:
                break
        assert self.best is not None
        return self.best

    def _train(self, step: int, training: Sequence[Edit]) -> float:
        generator = random.Random(f"{self.settings.seed}-{step}")  # resumes without a state
        edits = generator.sample(list(training), min(self.settings.batch_size, len(training)))
        episode = self._episode(edits, LOCALITY_TEXTS, generator)
        with torch.enable_grad():
            loss = backward(self.optimizer, self.network.objective(*self._losses(episode)))
            self.network.after_gradient()
            self.optimizer.step()
        self.network.after_step()
        return loss

    def _episode(
        self, edits: Sequence[Edit], locality_texts: int, generator: random.Random
    ) -> Episode:
        objective = self.settings.objective
        return draw_episode(self.tokenizer, edits, locality_texts, generator, objective)

    def _losses(self, episode: Episode) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the edits, NLL or divergence, and the mean KL of locality texts.

        The NLL is that of the targets after the edits.
        """
        after, before = self._logits(episode, observe=True)
        places, tokens, weights = target_places([*episode.asked, *episode.locality])
        asked = places[0] < len(episode.asked)
        if self.settings.objective == "even":
            edited = symmetric_divergence(mean_log_probs(after[asked], episode.asked)).mean()
        else:
            nll = target_nll(after[asked], tokens[asked], weights[asked])
            edited = nll.sum() / len(episode.asked)
        new, old = after[~asked].log_softmax(-1), before.log_softmax(-1)
        divergence = (old.exp() * (old - new)).sum(-1)  # (M,)
        moved = (divergence * weights[~asked].to(divergence)).sum() / max(len(episode.locality), 1)
        return edited, moved

    def _logits(self, episode: Episode, *, observe: bool) -> tuple[Tensor, Tensor]:
        """Return logits of the edited model at all targets, of the base model at locality texts."""
        reading = read_edits_for(
            self.network, self.view, self.tokenizer, episode.edits, episode.rows
        )
        if observe:
            self.network.observe(reading)
        factors = self.network(reading)
        with torch.no_grad():
            before = self._scored(episode.locality, episode.locality_of, {})
        owners = [*episode.asked_of, *episode.locality_of]
        after = self._scored([*episode.asked, *episode.locality], owners, factors)
        return after, before

    def _scored(
        self, rows: Sequence[Row], owners: Sequence[int], factors: Mapping[str, Factors]
    ) -> Tensor:
        """Return the logits of rows, each with the change of its own edit; see `target_logits`."""
        owner = torch.tensor(owners, dtype=torch.long)
        return target_logits(
            self.view, rows, lambda members: edited(self.view, factors, owner[list(members)])
        )

    @torch.no_grad()
    def _validate(self, edits: Sequence[Edit], step: int, loss: float) -> Progress:
        own: list[float] = []
        reworded: list[float] = []
        locality: list[float] = []
        size = self.settings.batch_size
        for start in range(0, len(edits), size):
            generator = random.Random(f"validation-{start}")
            drawn = edits[start : start + size]
            episode = self._episode(drawn, VALIDATED_TEXTS, generator)
            after, before = self._logits(episode, observe=False)
            rows, tokens, _ = target_places([*episode.asked, *episode.locality])
            asked = rows[0] < len(episode.asked)
            expected = torch.cat([tokens[asked], before.argmax(-1).cpu()])
            right = _all_of(rows[0], after.argmax(-1).cpu() == expected)
            count = len(episode.edits)
            if self.settings.objective == "even":
                own += evenness(mean_log_probs(after[asked], episode.asked))
            else:
                own += right[:count]
                reworded += right[count : len(episode.asked)]
            locality += right[len(episode.asked) :]
        shares = [sum(each) / len(each) if each else 1.0 for each in (own, reworded, locality)]
        return Progress(step, loss, *shares)

    def _save(self, found: Progress) -> None:
        """Write the checkpoint, and the network where it is the best so far."""
        self.step = found.step
        self.bad += 1
        if self.best is None or (found.score, -found.loss) > (self.best.score, -self.best.loss):
            self.best, self.bad = found, 0
            save_network(self.directory, self.method, self.network, self.base, found)
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, held in self.optimizer.state_dict()["state"].items():
            for name, value in held.items():
                tensors[f"optimizer.{number}.{name}"] = torch.as_tensor(value)
        progressed = {"step": self.step, "bad": self.bad, "best": vars(self.best)}
        header = {"key": self._key(), "progress": progressed}
        write_tensors(self.directory / CHECKPOINT, tensors, header)

    def _resume(self) -> None:
        """Go on from the directory's checkpoint, if there is one.

        Raises:
            InvalidInput: It is of another training.
        """
        path = self.directory / CHECKPOINT
        if not path.is_file():
            return
        tensors, header = read_tensors(path)
        if header["key"] != self._key():
            raise InvalidInput(
                f"{self.directory} holds a training of another model, of other edits or with "
                "other settings: give the same to continue it, or another directory"
            )
        weights: dict[str, Tensor] = {}
        held: dict[int, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            kind, _, name = full.partition(".")
            if kind == "network":
                weights[name] = value
            else:
                number, _, part = name.partition(".")
                held.setdefault(int(number), {})[part] = value
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": held})
        found = header["progress"]
        self.step, self.bad, self.best = found["step"], found["bad"], Progress(**found["best"])

    def _key(self) -> str:
        """Identify the training; how many steps it makes may differ when it is continued."""
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


def edited_shapes(view: ModelView, layers: Sequence[int] | None) -> dict[str, tuple[int, int]]:
    """Return the MLP matrices of some blocks, by default of the last third, at least three.

    Raises:
        InvalidInput: There is no such block.
    """
    if layers is None:
        layers = view.editable_from(view.num_layers - max(3, round(view.num_layers / 3)))
    return mlp_shapes(view, layers)


def _texts(asked: Sequence[tuple[int, str, str]]) -> tuple[list[str], list[str]]:
    return [prompt for _, prompt, _ in asked], [answer for _, _, answer in asked]


def _all_of(rows: Tensor, right: Tensor) -> list[bool]:
    """Return for each row whether all of its places are right."""
    count = int(rows.max()) + 1
    wrong = torch.zeros(count).index_add(0, rows, (~right).float())
    return (wrong == 0).tolist()
