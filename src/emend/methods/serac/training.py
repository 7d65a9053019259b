"""Training what SERAC answers with: the classifier of scope and the counterfactual model.

Mitchell et al. 2022, arXiv 2206.06520, section 3.2:

    L_cls = - mean over rewordings of log s - mean over other texts of log(1 - s)
    L_cf  = - mean log p_cf(target | the edit, a rewording)

Both losses have parameters of their own, so that they are trained one after the other: the
classifier's head on vectors that are made once, and the adapter of the counterfactual model on the
texts. A text that is in no edit's scope must not be in that of the nearest edit of its batch, which
is what decides when edits are many. Beyond the paper, what follows from an edit (its one-hop
probes) is trained on as an edit of its own, as it stands in a memory that holds the closure of its
edits.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, Positive, Seed
from emend.editing.gradients import forward_at, target_places
from emend.editing.packing import pack
from emend.editing.rows import Row
from emend.edits import Edit, Probe
from emend.errors import InvalidInput, NumericalFailure
from emend.methods.hypernetwork._network import Factors
from emend.methods.hypernetwork._reading import edited, edited_shapes
from emend.methods.hypernetwork._state import CARD, NETWORK, read_tensors, write_tensors
from emend.methods.hypernetwork._training import Progress
from emend.methods.serac._encoders import Encoder, Sentences, States, encoder_of
from emend.methods.serac._patch import LAYOUT, Judge, ScopePatch, laid_out, scopes
from emend.models import ModelView, base, ensure_start, join_targets, score
from emend.models.forward import evaluating, target_nll
from emend.models.hooks import frozen
from emend.models.positions import pad
from emend.patches import describe_base

NAME = "serac"
TEXTS = 4
"""Locality texts of an edit that the classifier is trained on."""


@dataclass(frozen=True)
class ScopeSettings:
    """Settings of the training."""

    encoder: str | None = None
    """Name of a sentence-transformers model; by default the base model's own states."""
    layer: int | None = None
    """Block whose down-projection's inputs are the states, and the last block's; by default the
    one three quarters up."""
    size: Count = 64
    """Length of the vectors that the classifier compares."""
    form: Literal["embedding", "cross"] = "embedding"
    """Whether edits and prompts are compared by their vectors, or the nearest are read together."""
    edits: Count = 300
    """Edits to train on, at most."""
    rank: Count = 8
    """Rank of the counterfactual model's difference from the base, in each MLP matrix."""
    steps: Count = 320
    """Steps of training the counterfactual model."""
    batch_size: Count = 8
    """Edits in such a step."""
    learning_rate: Positive = 2e-3
    """Its step size; published ones (1e-5) train whole models."""
    scope_steps: Count = 300
    """Steps of training the classifier, on 64 edits each."""
    scope_rate: Positive = 2e-3
    """Their step size."""
    seed: Seed = 0
    """Of first weights and draws."""


@dataclass(frozen=True)
class ScopeState:
    """What was trained.

    Attributes:
        tensors: As `ScopePatch` has them, but for the edits' vectors.
        details: As `ScopePatch` has them.
        base: The model that it was trained for.
    """

    tensors: Mapping[str, Tensor]
    details: Mapping[str, Any]
    base: Mapping[str, Any]


def train_scope(
    model: Any,
    tokenizer: Any,
    training: Sequence[Edit],
    validation: Sequence[Edit],
    directory: str | Path,
    settings: ScopeSettings | None = None,
    *,
    report: Callable[[Progress], None] | None = None,
) -> Progress:
    """Train a scope classifier and a counterfactual model for a model, and write them down.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer.
        training: Edits with rephrase and locality probes.
        validation: Edits to measure on, of other subjects.
        directory: Where the state is written to, whole or not at all.
        settings: None for the defaults.
        report: Called with what the validation edits say, before and after.

    Returns:
        The validation of what was written.

    Raises:
        InvalidInput: No edits, or none with rewordings.
        NumericalFailure: A loss is not finite.
    """
    settings = settings or ScopeSettings()
    if not training or not validation:
        raise InvalidInput(
            f"{len(training)} edits to train on and {len(validation)} to validate on, "
            "expected at least one of each: give more edits"
        )
    ensure_start(model, tokenizer)
    with base(model), evaluating(model), frozen(model):
        run = _Training(model, tokenizer, training, settings)
        run.train_classifier()
        run.set_threshold(validation)
        run.train_counterfactual()
        found = run.validated(validation)
        save_scope(Path(directory), run.state(), found)
    if report is not None:
        report(found)
    return found


def save_scope(directory: Path, state: ScopeState, found: Progress) -> None:
    """Write a state, aside and renamed; in bfloat16, which an answer does not show."""
    card = {
        "method": NAME,
        "base": dict(state.base),
        "details": dict(state.details),
        "validation": vars(found),
    }
    tensors = {name: tensor.bfloat16() for name, tensor in state.tensors.items()}
    write_tensors(directory / NETWORK, tensors, card, directory / CARD)


def load_scope(
    directory: Path, base: Mapping[str, Any], *, allow_other_base: bool = False
) -> ScopeState:
    """Read a state back.

    Args:
        directory: As `state_directory` finds it.
        base: What `describe_base` says of the model that shall be edited.
        allow_other_base: Whether a state trained for another model is taken.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: It is of another method, or was trained for another model.
    """
    tensors, card = read_tensors(directory / NETWORK, NAME, base, allow_other_base=allow_other_base)
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    return ScopeState(floats, card["details"], card["base"])


class _Training:
    """One training with its draws."""

    def __init__(
        self, model: Any, tokenizer: Any, training: Sequence[Edit], settings: ScopeSettings
    ) -> None:
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
        self.view = ModelView(model)
        self.random = random.Random(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        chosen = list(training)
        self.random.shuffle(chosen)
        chosen = chosen[: settings.edits]
        self.edits = [*chosen, *(one for edit in chosen for one in _following(edit))]
        self.encoder = self._encoder()
        self.tensors: dict[str, Tensor] = {}
        self.details: dict[str, Any] = {
            "encoder": self.encoder.description,
            "form": settings.form,
            "candidates": 4,
            "threshold": 0.5,
            "soft": False,
            "layout": LAYOUT,
        }

    def state(self) -> ScopeState:
        """What was trained so far."""
        return ScopeState(self.tensors, self.details, describe_base(self.model))

    def _encoder(self) -> Encoder:
        if self.settings.encoder is not None:
            return Sentences(self.settings.encoder)
        view, layer = self.view, self.settings.layer
        layer = min(round(0.75 * view.num_layers), view.num_layers - 1) if layer is None else layer
        chosen = {view.nearest_editable(n) for n in (*view.numbered([layer]), view.num_layers - 1)}
        return States([view.name_of(view.down_projection(n)) for n in sorted(chosen)])

    def train_classifier(self) -> None:
        """Train W on vectors of the edits, their rewordings and what is about other things."""
        inside = [_inside(edit) for edit in self.edits]
        outside = [_outside(edit, self.random) for edit in self.edits]
        own = self._encoded([edit.text for edit in self.edits])
        near = self._encoded([text for texts in inside for text in texts])
        far = self._encoded([text for texts in outside for text in texts])
        near_of = torch.tensor([n for n, texts in enumerate(inside) for _ in texts])
        far_of = torch.tensor([n for n, texts in enumerate(outside) for _ in texts])
        scale = 2.0 / self.settings.size**0.5
        shape = self.settings.size, own.shape[1]
        head = torch.randn(shape, generator=self.generator) * scale
        with torch.enable_grad():
            head.requires_grad_(True)
            optimizer = torch.optim.Adam([head], lr=self.settings.scope_rate)
            for _ in progress(range(self.settings.scope_steps), "training the classifier"):
                count = min(64, len(self.edits))
                drawn = torch.randperm(len(self.edits), generator=self.generator)[:count]
                loss = _scope_loss(
                    head, own[drawn], *_of(near, near_of, drawn), _of(far, far_of, drawn)[0]
                )
                _stepped(optimizer, loss)
        self.tensors["head"] = head.detach()
        if self.settings.form == "cross":
            self._train_cross(inside, outside, own)

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Vectors of texts, each different one made once."""
        different = list(dict.fromkeys(texts))
        vectors = self.encoder.encode(self.model, self.tokenizer, different)
        place = {text: number for number, text in enumerate(different)}
        return vectors[[place[text] for text in texts]]

    @torch.no_grad()
    def set_threshold(self, edits: Sequence[Edit]) -> None:
        """Take the threshold that tells best what is in the scope of validation edits.

        Published is 0.5; how near rewordings come that were not trained on decides.
        """
        asked = [(text, True) for edit in edits for text in _inside(edit)[1:]]
        asked += [(p.prompt, False) for edit in edits for p in edit.probes_of("locality")]
        if not any(inside for _, inside in asked) or all(inside for _, inside in asked):
            return
        vectors = self._encoded([edit.text for edit in edits])
        judge = Judge(self.encoder, self.tensors, self.details)
        texts = [text for text, _ in asked]
        found = judge.best(self.model, self.tokenizer, texts, edits, vectors)
        self.details["threshold"] = best_threshold(
            [share for (_, share), (_, inside) in zip(found, asked, strict=True) if inside],
            [share for (_, share), (_, inside) in zip(found, asked, strict=True) if not inside],
        )

    def _train_cross(
        self, inside: Sequence[Sequence[str]], outside: Sequence[Sequence[str]], own: Tensor
    ) -> None:
        """Train v and b on edits read together with a text in their scope, and with others."""
        distances = torch.cdist(own @ self.tensors["head"].T, own @ self.tensors["head"].T)
        distances.fill_diagonal_(float("inf"))
        nearest = distances.argmin(1).tolist()
        pairs: list[tuple[str, float]] = []
        for number, edit in enumerate(self.edits):
            pairs += [(laid_out(edit, text), 1.0) for text in inside[number]]
            pairs += [(laid_out(edit, text), 0.0) for text in outside[number]]
            pairs.append((laid_out(edit, self.edits[nearest[number]].text), 0.0))
        vectors = self._encoded([text for text, _ in pairs])
        wanted = torch.tensor([label for _, label in pairs])
        weight = torch.where(wanted > 0, 1 / wanted.sum(), 1 / (1 - wanted).sum())
        with torch.enable_grad():
            cross = torch.zeros(vectors.shape[1] + 1, requires_grad=True)
            optimizer = torch.optim.Adam([cross], lr=0.05)
            for _ in progress(range(self.settings.scope_steps), "training the cross form"):
                logits = vectors @ cross[:-1] + cross[-1]
                losses = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
                _stepped(optimizer, (losses * weight).sum())
        self.tensors["cross"] = cross.detach()

    def train_counterfactual(self) -> None:
        """Train the adapter to answer by the fact that stands before the prompt."""
        shapes = edited_shapes(self.view, self.view.editable)
        rank = self.settings.rank
        a = {
            name: torch.randn(rank, into, generator=self.generator) / into**0.5
            for name, (_, into) in shapes.items()
        }
        b = {name: torch.zeros(out, rank) for name, (out, _) in shapes.items()}
        weights = [*a.values(), *b.values()]
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            optimizer = torch.optim.Adam(weights, lr=self.settings.learning_rate)
            steps = self.settings.steps
            for step in progress(range(steps), "training the counterfactual model"):
                for group in optimizer.param_groups:  # falling evenly to a tenth
                    group["lr"] = self.settings.learning_rate * (1 - 0.9 * step / steps)
                factors = {name: Factors(a[name], b[name].T, None) for name in a}
                _stepped(optimizer, self._told(factors))
        for name in a:
            self.tensors[f"A.{name}"] = a[name].detach()
            self.tensors[f"B.{name}"] = b[name].detach()

    def _told(self, factors: Mapping[str, Factors]) -> Tensor:
        """Mean negative log-likelihood of the targets of some edits, each in some wording."""
        edits = self.random.sample(self.edits, min(self.settings.batch_size, len(self.edits)))
        read = [laid_out(edit, self.random.choice(_inside(edit))) for edit in edits]
        joined = join_targets(self.tokenizer, read, [edit.target for edit in edits])
        rows = [Row((*prompt, *target[:-1]), 0, tuple(target)) for prompt, target in joined]
        losses: list[Tensor] = []
        for members in pack([len(row.ids) for row in rows]):
            chosen = [rows[number] for number in members]
            places, tokens, weights = target_places(chosen)
            batch = pad([row.ids for row in chosen])
            with edited(self.view, factors, torch.zeros(len(chosen), dtype=torch.long)):
                logits = forward_at(self.view, batch, *places).float()
            losses.append(target_nll(logits, tokens, weights).sum())
        return torch.stack(losses).sum() / len(rows)

    @torch.no_grad()
    def validated(self, edits: Sequence[Edit]) -> Progress:
        """What the validation edits say with all of them in memory."""
        state = self.state()
        patch = scope_patch(state, self.model, self.tokenizer, tuple(edits), {})
        own = [(edit.text, edit.target) for edit in edits]
        reworded = [(text, edit.target) for edit in edits for text in _inside(edit)[1:]]
        kept = [(p.prompt, p.answers[0]) for edit in edits for p in edit.probes_of("locality")[:4]]
        before = _greedy(self.model, self.tokenizer, kept)
        with patch.applied(self.model):
            told = [_greedy(self.model, self.tokenizer, each) for each in (own, reworded)]
            after = _greedy(self.model, self.tokenizer, kept)
        reliable, general = [
            sum(one == wanted for one, wanted in each) / len(each) if each else 1.0 for each in told
        ]
        same = [one[0] == other[0] for one, other in zip(before, after, strict=True)]
        loss = float(self._told(self._factors()))
        kept_share = sum(same) / max(len(same), 1)
        return Progress(self.settings.steps, loss, reliable, general, kept_share)

    def _factors(self) -> dict[str, Factors]:
        names = [name[2:] for name in self.tensors if name.startswith("A.")]
        return {
            name: Factors(self.tensors[f"A.{name}"], self.tensors[f"B.{name}"].T, None)
            for name in names
        }


def scope_patch(
    state: ScopeState,
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: Mapping[str, Any],
    vectors: Tensor | None = None,
    **details: Any,
) -> ScopePatch:
    """The memory of some edits.

    Args:
        state: What was trained.
        model: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        config: Settings to keep with the patch.
        vectors: (n, size) of the first n edits, where they are known.
        details: What shall differ from the state's.
    """
    known = 0 if vectors is None else len(vectors)
    encoder = encoder_of(state.details["encoder"])
    new = encoder.encode(model, tokenizer, [edit.text for edit in edits[known:]])
    return ScopePatch(
        edits=edits,
        method=NAME,
        config=dict(config),
        base=state.base,
        tensors={**state.tensors, "vectors": new if vectors is None else torch.cat([vectors, new])},
        details={**state.details, **details},
    )


def best_threshold(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The threshold by which most of both kinds are told right, each kind counting the same.

    Between two shares it is their mean; of equally good ones the lowest is taken, so that of two
    kinds that are apart the middle of the gap is. It is kept from 0.05 to 0.95.
    """
    points = sorted({*inside, *outside, 0.0, 1.0})
    middles = [(low + high) / 2 for low, high in itertools.pairwise(points)]

    def told(threshold: float) -> float:
        right = sum(share > threshold for share in inside) / len(inside)
        return right + sum(share <= threshold for share in outside) / len(outside)

    return min(max(max(middles, key=told), 0.05), 0.95)


def _following(edit: Edit) -> list[Edit]:
    """The one-hop probes of an edit that name its subject, as edits with scopes of their own."""
    asked = [probe for probe in edit.probes_of("one_hop") if edit.subject in probe.prompt]
    near = [*asked, Probe("relation_specificity", edit.text, (edit.target,))]
    return [
        Edit(
            prompt="{}".join(probe.prompt.rsplit(edit.subject, 1)),
            subject=edit.subject,
            target=probe.answers[0],
            probes=tuple(
                Probe("relation_specificity", other.prompt, other.answers)
                for other in near
                if other is not probe
            ),
        )
        for probe in asked
    ]


def _inside(edit: Edit) -> list[str]:
    """Texts that are in the scope of an edit, its own first."""
    probes = [*edit.probes_of("rephrase"), *edit.probes_of("subject_alias")]
    return [edit.text, *(probe.prompt for probe in probes)]


def _outside(edit: Edit, generator: random.Random) -> list[str]:
    """Texts that are not."""
    texts = [probe.prompt for probe in edit.probes_of("locality")]
    return generator.sample(texts, min(TEXTS, len(texts)))


def _of(vectors: Tensor, owners: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors that belong to drawn edits, and the places of these among the drawn."""
    place = torch.full((int(max(owners.max(), drawn.max())) + 1,), -1)
    place[drawn] = torch.arange(len(drawn))
    found = place[owners]
    return vectors[found >= 0], found[found >= 0]


def _scope_loss(head: Tensor, own: Tensor, near: Tensor, near_of: Tensor, far: Tensor) -> Tensor:
    """-log s of what is in scope, and -log(1 - s) of the nearest edit of what is not."""
    edits, asked, others = own @ head.T, near @ head.T, far @ head.T
    distances = (asked - edits[near_of]).square().sum(-1)  # -log s
    own_place = F.one_hot(near_of, len(own)).bool()
    strange = torch.cdist(asked, edits).masked_fill(own_place, float("inf")).min(1).values
    if len(others):
        strange = torch.cat([strange, torch.cdist(others, edits).min(1).values])
    strange = strange[strange.isfinite()]
    left = -torch.log1p(-scopes(strange.clamp(min=1e-2)))
    return distances.mean() + (left.mean() if len(left) else 0.0)


def _stepped(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    if not bool(loss.isfinite()):
        raise NumericalFailure(
            f"the loss is {float(loss)}, expected a finite number: lower learning_rate, or load "
            "the model in float32"
        )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _greedy(
    model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]
) -> list[tuple[list[int], list[int]]]:
    """For each prompt and target the likeliest tokens at the target's places, and its own."""
    found = score(model, tokenizer, [p for p, _ in pairs], [target for _, target in pairs])
    return [(each.greedy, each.token_ids) for each in found]
