"""Training what SERAC answers with: the scope classifier and the counterfactual model.

Mitchell et al. 2022, arXiv 2206.06520, section 3.2:

    L_cls = - mean over rewordings of log s - mean over other texts of log(1 - s)
    L_cf  = - mean log p_cf(target | the edit, a rewording)

Both losses have parameters of their own, so that they are trained one after the other: the
classifier's head on vectors that are made once, and the adapter of the counterfactual model on the
texts. A text that is in no edit's scope must not be in that of the nearest edit of its batch, which
is what matters when there are many edits. Beyond the paper, what follows from an edit (its one-hop
probes) is trained on as an edit of its own, for memories that hold what their edits entail.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from emend._progress import progress
from emend._settings import Count, Positive, Seed
from emend.editing.gradients import linear_modules, target_places
from emend.edits import Edit, Probe
from emend.methods._training import (
    Progress,
    backward,
    mlp_shapes,
    save_state,
    target_logits,
    target_rows,
    training_on,
)
from emend.methods.serac._classifier import (
    LAYOUT,
    ScopeClassifier,
    best_threshold,
    laid_out,
    train_cross,
    train_head,
    vectors_of,
)
from emend.methods.serac._patch import NAME, ScopeState
from emend.models import ModelView, score
from emend.models.forward import target_nll
from emend.models.hooks import changing
from emend.patches import describe_base
from emend.retrieval.encoders import Encoder, KeyEncoder, SentenceEncoder

TEXTS = 4
"""Locality texts of an edit that the classifier is trained on, and that are validated on."""
BATCH = 8
"""Edits in one step of training the counterfactual model."""
CANDIDATES = 4
"""Nearest edits that the cross form reads."""


@dataclass(frozen=True)
class ScopeSettings:
    """Settings of the training."""

    encoder: str | None = None
    """Name of a sentence-transformers model; by default the base model's own states."""
    form: Literal["embedding", "cross"] = "embedding"
    """Whether edits and prompts are compared by their vectors, or the nearest are read together."""
    edits: Count = 300
    """Edits to train on, at most."""
    rank: Count = 8
    """Rank of the counterfactual model's difference from the base, in each MLP matrix."""
    steps: Count = 320
    """Steps of training the counterfactual model."""
    learning_rate: Positive = 2e-3
    """Its step size; published ones (1e-5) train whole models."""
    scope_steps: Count = 300
    """Steps of training the classifier."""
    seed: Seed = 0
    """Of first weights and draws."""


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
    """Train a scope classifier and a counterfactual model, write them, and return their scores.

    Args:
        model: The model; it is not changed.
        tokenizer: Its tokenizer.
        training: Edits with rephrase and locality probes.
        validation: Edits to measure on, of other subjects.
        directory: Where the state is written to, whole or not at all.
        settings: None for the defaults.
        report: Called with the result too.

    Raises:
        InvalidInput: There are no edits.
        NumericalFailure: A loss is not finite.
    """
    with training_on(model, tokenizer, training, validation):
        run = _Training(model, tokenizer, training, settings or ScopeSettings())
        run.train_classifier()
        run.set_threshold(validation)
        run.train_counterfactual()
        found = run.validated(validation)
        state = run.state
    # In bfloat16, which an answer does not show.
    tensors = {name: tensor.bfloat16() for name, tensor in state.tensors.items()}
    save_state(Path(directory), NAME, state.base, found, tensors, details=dict(state.details))
    if report is not None:
        report(found)
    return found


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
        self.adapter: dict[str, tuple[Tensor, Tensor]] = {}
        self.tensors: dict[str, Tensor] = {}
        self.details: dict[str, Any] = {
            "encoder": self.encoder.describe(),
            "form": settings.form,
            "candidates": CANDIDATES,
            "threshold": 0.5,
            "soft": False,
            "layout": LAYOUT,
        }

    @property
    def state(self) -> ScopeState:
        """What was trained so far."""
        return ScopeState(self.tensors, self.details, describe_base(self.model))

    def _encoder(self) -> Encoder:
        """Return the encoder, by default of two down-projections: 3/4 up, and the last."""
        if self.settings.encoder is not None:
            return SentenceEncoder(self.settings.encoder)
        last = self.view.num_layers - 1
        layers = {self.view.nearest_editable(min(round(0.75 * self.view.num_layers), last))}
        layers.add(self.view.nearest_editable(last))
        names = [self.view.name_of(self.view.down_projection(n)) for n in sorted(layers)]
        return KeyEncoder(self.model, self.tokenizer, names)

    def train_classifier(self) -> None:
        """Train W on vectors of the edits, their rewordings and what is about other things."""
        inside = [_inside(edit) for edit in self.edits]
        outside = [_outside(edit, self.random) for edit in self.edits]
        own = self._encoded([edit.text for edit in self.edits])
        steps = self.settings.scope_steps
        head = train_head(own, self._owned(inside), self._owned(outside), steps, self.generator)
        self.tensors["head"] = head
        if self.settings.form == "cross":
            nearest = torch.cdist(own @ head.T, own @ head.T).fill_diagonal_(float("inf")).argmin(1)
            pairs: list[tuple[str, float]] = []
            for number, edit in enumerate(self.edits):
                others = [*outside[number], self.edits[int(nearest[number])].text]
                pairs += [(laid_out(edit, text), 1.0) for text in inside[number]]
                pairs += [(laid_out(edit, text), 0.0) for text in others]
            vectors = self._encoded([text for text, _ in pairs])
            wanted = torch.tensor([label for _, label in pairs])
            self.tensors["cross"] = train_cross(vectors, wanted, steps)

    def _encoded(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of texts, each different one made once."""
        different = list(dict.fromkeys(texts))
        vectors = vectors_of(self.encoder, different)
        place = {text: number for number, text in enumerate(different)}
        return vectors[[place[text] for text in texts]]

    def _owned(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        """Return the vectors of the texts of each edit, and the edit of each."""
        owners = [number for number, each in enumerate(texts) for _ in each]
        vectors = self._encoded([text for each in texts for text in each])
        return vectors, torch.tensor(owners, dtype=torch.long)

    @torch.no_grad()
    def set_threshold(self, edits: Sequence[Edit]) -> None:
        """Set the threshold that best separates what is in the scope of validation edits.

        Published is 0.5; how near rewordings come that were not trained on decides.
        """
        asked = [(text, True) for edit in edits for text in _inside(edit)[1:]]
        asked += [(p.prompt, False) for edit in edits for p in edit.probes_of("locality")]
        if not any(inside for _, inside in asked) or all(inside for _, inside in asked):
            return
        vectors = self._encoded([edit.text for edit in edits])
        classifier = ScopeClassifier(self.encoder, self.tensors, self.details)
        found = classifier.best([text for text, _ in asked], edits, vectors)
        self.details["threshold"] = best_threshold(
            [share for (_, share), (_, inside) in zip(found, asked, strict=True) if inside],
            [share for (_, share), (_, inside) in zip(found, asked, strict=True) if not inside],
        )

    def train_counterfactual(self) -> None:
        """Train the adapter to answer by the fact that precedes the prompt."""
        rank, rate, steps = self.settings.rank, self.settings.learning_rate, self.settings.steps
        shapes = mlp_shapes(self.view, self.view.editable)
        a = {
            name: torch.randn(rank, into, generator=self.generator) / into**0.5
            for name, (_, into) in shapes.items()
        }
        self.adapter = {
            name: (a[name], torch.zeros(out, rank)) for name, (out, _) in shapes.items()
        }
        weights = [matrix for pair in self.adapter.values() for matrix in pair]
        with torch.enable_grad():
            for weight in weights:
                weight.requires_grad_(True)
            optimizer = torch.optim.Adam(weights, lr=rate)
            for step in progress(range(steps), "training the counterfactual model"):
                for group in optimizer.param_groups:  # falling evenly to a tenth
                    group["lr"] = rate * (1 - 0.9 * step / steps)
                backward(optimizer, self._answer_loss())
                optimizer.step()
        for name, (into, out) in self.adapter.items():
            self.tensors[f"A.{name}"], self.tensors[f"B.{name}"] = into.detach(), out.detach()

    def _answer_loss(self) -> Tensor:
        """Return the mean NLL of the targets of some edits, each in some wording."""
        edits = self.random.sample(self.edits, min(BATCH, len(self.edits)))
        read = [laid_out(edit, self.random.choice(_inside(edit))) for edit in edits]
        rows = target_rows(self.tokenizer, read, [edit.target for edit in edits])
        logits = target_logits(self.view, rows, self._adapted)
        _, tokens, weights = target_places(rows)
        return target_nll(logits, tokens, weights).sum() / len(rows)

    @contextmanager
    def _adapted(self, _members: Sequence[int]) -> Generator[None, None, None]:
        with ExitStack() as stack:
            for name, module in linear_modules(self.view, list(self.adapter)).items():
                stack.enter_context(changing(module, *self.adapter[name]))
            yield

    @torch.no_grad()
    def validated(self, edits: Sequence[Edit]) -> Progress:
        """Measure the answers to the validation edits with all of them in memory."""
        patch = self.state.memory(self.model, self.tokenizer, tuple(edits), {})
        own = [(edit.text, edit.target) for edit in edits]
        reworded = [(text, edit.target) for edit in edits for text in _inside(edit)[1:]]
        probes = [probe for edit in edits for probe in edit.probes_of("locality")[:TEXTS]]
        others = [(probe.prompt, probe.answers[0]) for probe in probes]
        before = self._greedy(others)
        with patch.applied(self.model):
            answered = [self._greedy(each) for each in (own, reworded)]
            after = self._greedy(others)
        reliable, general = [
            sum(one == wanted for one, wanted in each) / len(each) if each else 1.0
            for each in answered
        ]
        same = [one[0] == other[0] for one, other in zip(before, after, strict=True)]
        loss = float(self._answer_loss())
        locality = sum(same) / max(len(same), 1)
        return Progress(self.settings.steps, loss, reliable, general, locality)

    def _greedy(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Return for each prompt and target the top1 tokens at the target's places, and its own."""
        found = score(self.model, self.tokenizer, [p for p, _ in pairs], [t for _, t in pairs])
        return [(each.greedy, each.token_ids) for each in found]


def _following(edit: Edit) -> list[Edit]:
    """Return the one-hop probes of an edit that name its subject, as edits with own scopes."""
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
    """Return texts that are in the scope of an edit, its own first."""
    probes = [*edit.probes_of("rephrase"), *edit.probes_of("subject_alias")]
    return [edit.text, *(probe.prompt for probe in probes)]


def _outside(edit: Edit, generator: random.Random) -> list[str]:
    """Return texts that are not."""
    texts = [probe.prompt for probe in edit.probes_of("locality")]
    return generator.sample(texts, min(TEXTS, len(texts)))
