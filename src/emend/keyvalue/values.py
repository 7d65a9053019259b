"""The search for the value: what a down-projection should put out so that a target is said.

ROME, Meng et al. 2022, arXiv 2202.05262, equation 4 (spec S4).

For an edit with contexts x_j, target tokens o and subject's last token i, find delta minimising

    mean_j -log p(o | x_j, y_i += delta) + kappa KL(p(. | s, y_i += delta) || p(. | s))
        + w |delta| / |v_0|^2

by Adam under |delta| <= c |v_0|, where y_i is the down-projection's output at token i, v_0 what
it is in the first row, and s is "{subject} is a". Edits are sought many at a time, but the loss,
the clamp and the stopping of each are its own, so that the result is that of one by one.

Only what delta can reach is run (`emend.models.partial`), and logits are computed only where
they are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from emend._progress import progress
from emend.edits import Edit
from emend.errors import NumericalFailure
from emend.keyvalue._adam import Adam
from emend.keyvalue._packing import pack
from emend.keyvalue.rows import Row, check_templates, context_rows, subject_rows
from emend.models import ModelView
from emend.models._forward import evaluating
from emend.models._hooks import frozen
from emend.models.partial import BlockCapture, capture_blocks
from emend.models.placing import device_of

PUBLISHED_WINDOW = 6
"""Tokens run again, at least, in the published order: BLAS sums smaller products otherwise."""

CHUNK = 6
"""Edits sought together. More gain nothing on a CPU and need more memory."""

Site = Literal["mlp", "block"]
"""Where the value stands: the down-projection's output, or the block's."""


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search.

    Attributes:
        steps: Forward passes; the last takes no step, so there are ``steps - 1`` updates.
        learning_rate: Adam's.
        weight_decay: The factor w on ``|delta| / |v_0|^2``.
        clamp: The bound c on ``|delta| / |v_0|``.
        kl_factor: The factor kappa.
        stop_below: The search of an edit ends when its loss is below this.
        published_order: Sum in the order of the published loop, so that float32 rounds alike:
            one edit at a time, every row run apart and padded to the same length, gradients of
            rows added from the last to the first. Slower, and good only for reproducing
            recorded numbers: small gradients make Adam magnify how sums round.
    """

    steps: int = 20
    learning_rate: float = 0.5
    weight_decay: float = 0.5
    clamp: float = 4.0
    kl_factor: float = 0.0625
    stop_below: float = 0.05
    published_order: bool = False


@dataclass(frozen=True)
class Value:
    """What was found for one edit; float32 (float64 for a float64 model), C contexts.

    Attributes:
        initial: (width,), v_0: the down-projection's output in the first context.
        sought: (width,), v* = v_0 + delta.
        keys: (C, inner), the down-projection's input at the subject's last token.
        outputs: (C, width), its output there.
        losses: The loss at each step, the last included.
    """

    initial: Tensor
    sought: Tensor
    keys: Tensor
    outputs: Tensor
    losses: tuple[float, ...]

    @property
    def delta(self) -> Tensor:
        """(width,), what was added."""
        return self.sought - self.initial


def search_values(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings | None = None,
    *,
    chunk: int = CHUNK,
    site: Site = "mlp",
) -> list[Value]:
    """Seek the value of each edit at the down-projection, or the block's output, of one layer.

    The model's weights are neither changed nor asked for gradients; runs in the model's dtype
    with losses in float32.

    Args:
        view: The model.
        tokenizer: Its tokenizer.
        edits: E edits.
        templates: C context templates; the first gives v_0 (it should be the bare "{}").
        layer: Block whose down-projection is to give the value.
        settings: Settings of the search.
        chunk: Edits sought together; the result does not depend on it beyond rounding.
        site: What delta is added to: "mlp", the down-projection's output (ROME), or "block", the
            block's (MEMIT). It is what ``initial``, ``sought`` and ``outputs`` of a value mean.

    Returns:
        E values, in the order of the edits.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    settings = settings or SearchSettings()
    contexts = context_rows(tokenizer, edits, check_templates(templates))
    anchors = subject_rows(tokenizer, edits)
    # Neighbours in length share a chunk, so that little is padded.
    chunk = 1 if settings.published_order else chunk
    order = sorted(range(len(edits)), key=lambda i: _extent(contexts[i][0]))
    chunks = [order[start : start + chunk] for start in range(0, len(order), chunk)]
    found: dict[int, Value] = {}
    with evaluating(view.model), frozen(view.model):
        for members in progress(chunks, "seeking values"):
            share = not settings.published_order
            jobs = [_job(edits[i].id, contexts[i], anchors[i], share) for i in members]
            values = _search(view, jobs, layer, settings, site)
            found.update(zip(members, values, strict=True))
    return [found[index] for index in range(len(edits))]


def _extent(row: Row) -> tuple[int, int]:
    """Tokens of a row from the subject's last on, and in all."""
    return len(row.ids) - row.lookup, len(row.ids)


@dataclass(frozen=True)
class _Job:
    """One edit: its rows, and which of them the KL term is read from (at the subject)."""

    name: str
    rows: tuple[Row, ...]
    contexts: int
    anchor: int


def _job(name: str, contexts: Sequence[Row], anchor: Row, share: bool = True) -> _Job:
    """The anchor is a row of its own, unless a context begins with the very same tokens."""
    for index, row in enumerate(contexts):
        if share and row.lookup == anchor.lookup and row.ids[: row.lookup + 1] == anchor.ids:
            return _Job(name, tuple(contexts), len(contexts), index)
    return _Job(name, (*contexts, anchor), len(contexts), len(contexts))


@dataclass(frozen=True)
class _Group:
    """Rows of like length run together; ``members`` are (job, row of the job)."""

    capture: BlockCapture
    members: tuple[tuple[int, int], ...]


class _Chunk:
    """Several edits under search: computes the loss of each for given deltas.

    Args:
        view: The model.
        jobs: All edits of the chunk.
        active: The ones still sought.
        groups: Their rows, captured.
        initial: (len(active), vocabulary) log-probabilities of the anchors before any change;
            None before the first step.
    """

    def __init__(
        self,
        view: ModelView,
        jobs: Sequence[_Job],
        active: Sequence[int],
        groups: Sequence[_Group],
        initial: Tensor | None = None,
    ) -> None:
        self.view, self.jobs, self.active, self.groups = view, jobs, list(active), groups
        self.initial = initial
        place = {job: number for number, job in enumerate(active)}
        device = device_of(view.head)
        self.edit_of_row = [
            torch.tensor([place[job] for job, _ in group.members]) for group in groups
        ]
        self.picks: list[tuple[Tensor, Tensor]] = []
        scored: list[tuple[int, int, float]] = []  # token, edit and weight of each
        places: list[int] = []  # of what is scored, among all that the groups give
        anchors = [0] * len(active)  # places of the anchors
        count = 0
        for group in groups:
            picks: list[tuple[int, int]] = []
            for number, (job, index) in enumerate(group.members):
                row, contexts = jobs[job].rows[index], jobs[job].contexts
                start = int(group.capture.at[number])
                first = start + len(row.ids) - len(row.targets) - row.lookup
                for step, token in enumerate(row.targets):
                    places.append(count + len(picks))
                    picks.append((number, first + step))
                    scored.append((token, place[job], 1.0 / (len(row.targets) * contexts)))
                if index == jobs[job].anchor:
                    anchors[place[job]] = count + len(picks)
                    picks.append((number, start))
            rows, columns = zip(*picks, strict=True)
            self.picks.append((torch.tensor(rows), torch.tensor(columns)))
            count += len(picks)
        tokens, owners, weights = zip(*scored, strict=True)
        self.tokens = torch.tensor(tokens, device=device)  # (N,)
        self.owners = torch.tensor(owners, device=device)  # (N,)
        self.weights = torch.tensor(weights, device=device)  # (N,)
        self.order = torch.tensor([*places, *anchors], device=device)  # (N + E,)

    def losses(self, delta: Tensor, sizes: Tensor, settings: SearchSettings) -> Tensor:
        """The loss of each active edit.

        Args:
            delta: (E, width).
            sizes: (E,), |v_0|.
            settings: Settings of the search.

        Returns:
            (E,) float32.
        """
        hidden: list[Tensor] = []
        for group, owners, picks in zip(self.groups, self.edit_of_row, self.picks, strict=True):
            if settings.published_order:
                added = torch.stack([delta[owner] for owner in owners.tolist()])
            else:
                added = delta[owners.to(delta.device)]  # (B, width)
            picked = group.capture.run_at(added, *picks)
            hidden.append(picked.to(self.order.device))
        logits = self.view.logits(torch.cat(hidden)[self.order])  # (N + E, vocabulary)
        said, anchored = logits.split([len(self.tokens), len(self.active)])
        nll = F.cross_entropy(said, self.tokens, reduction="none")
        losses = torch.zeros(len(self.active), dtype=nll.dtype, device=nll.device)
        losses = losses.index_add(0, self.owners, nll * self.weights.to(nll.dtype))
        anchored = torch.log_softmax(anchored, dim=-1)  # (E, vocabulary)
        if self.initial is None:
            self.initial = anchored.detach().clone()
        # KL(current || initial), as the published code has it.
        kl = F.kl_div(self.initial, anchored, log_target=True, reduction="none").sum(-1)
        decay = delta.norm(dim=1) / sizes**2
        return losses + settings.kl_factor * kl + settings.weight_decay * decay.to(losses.device)

    def without(self, finished: Sequence[bool]) -> _Chunk:
        """The same chunk with the finished edits taken out."""
        kept = [number for number, done in enumerate(finished) if not done]
        active = [self.active[number] for number in kept]
        groups: list[_Group] = []
        for group in self.groups:
            rows = [n for n, (job, _) in enumerate(group.members) if job in active]
            if rows:
                members = tuple(group.members[n] for n in rows)
                groups.append(_Group(group.capture.select(rows), members))
        assert self.initial is not None
        initial = self.initial[torch.tensor(kept, device=self.initial.device)]
        return _Chunk(self.view, self.jobs, active, groups, initial)


def _capture(
    view: ModelView, jobs: Sequence[_Job], layer: int, settings: SearchSettings, site: Site
) -> list[_Group]:
    """Capture the rows of all jobs, those of like length together."""
    places = [(job, row) for job, each in enumerate(jobs) for row in range(len(each.rows))]
    rows = [jobs[job].rows[row] for job, row in places]
    packed = pack([len(row.ids) - row.lookup for row in rows])
    least = 1
    if settings.published_order:
        packed, least = [list(range(len(rows)))], PUBLISHED_WINDOW
    groups: list[_Group] = []
    for members in packed:
        ids, lookups = [rows[n].ids for n in members], [rows[n].lookup for n in members]
        capture = capture_blocks(view, ids, lookups, layer, least=least)
        capture = capture.at_block() if site == "block" else capture
        groups.append(_Group(capture, tuple(places[n] for n in members)))
    return groups


def _search(
    view: ModelView, jobs: Sequence[_Job], layer: int, settings: SearchSettings, site: Site
) -> list[Value]:
    """Seek the values of one chunk."""
    groups = _capture(view, jobs, layer, settings, site)
    keys, outputs = _sites(jobs, groups)
    initial = torch.stack([each[0] for each in outputs])  # (E, width)
    sizes = initial.norm(dim=1)  # (E,)
    delta = torch.zeros_like(initial)
    adam = Adam(delta, settings.learning_rate)
    chunk = _Chunk(view, jobs, range(len(jobs)), groups)
    found: dict[int, Tensor] = {}
    losses: list[list[float]] = [[] for _ in jobs]
    for step in range(settings.steps):
        delta = delta.detach().requires_grad_(True)
        loss = chunk.losses(delta, sizes[chunk.active], settings)
        current = loss.tolist()
        for number, job in enumerate(chunk.active):
            losses[job].append(current[number])
            _check_finite(current[number], jobs[job].name, step)
        last = step == settings.steps - 1
        finished = [last or value < settings.stop_below for value in current]
        for number, job in enumerate(chunk.active):
            if finished[number]:
                found[job] = delta[number].detach().clone()
        if all(finished):
            break
        (gradient,) = torch.autograd.grad(loss.sum(), delta)
        delta = _clamped(adam.step(delta.detach(), gradient), settings.clamp * sizes[chunk.active])
        if any(finished):
            kept = torch.tensor([not done for done in finished], device=delta.device)
            delta = delta[kept]
            adam.select(kept)
            chunk = chunk.without(finished)
    return [
        Value(initial[n], initial[n] + found[n], keys[n], outputs[n], tuple(losses[n]))
        for n in range(len(jobs))
    ]


def _sites(jobs: Sequence[_Job], groups: Sequence[_Group]) -> tuple[list[Tensor], list[Tensor]]:
    """For each job the keys (C, inner) and outputs (C, width) of its contexts, in order."""
    at = {
        member: (group.capture.keys[row], group.capture.values[row])
        for group in groups
        for row, member in enumerate(group.members)
    }
    keys: list[Tensor] = []
    outputs: list[Tensor] = []
    for number, job in enumerate(jobs):
        pairs = [at[number, row] for row in range(job.contexts)]
        keys.append(_wide(torch.stack([key for key, _ in pairs])))
        outputs.append(_wide(torch.stack([output for _, output in pairs])))
    return keys, outputs


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _clamped(delta: Tensor, limits: Tensor) -> Tensor:
    """Scale rows of delta (E, width) that are longer than their limit back to it."""
    sizes = delta.norm(dim=1)
    scaled = delta * limits[:, None] / sizes[:, None].clamp(min=torch.finfo(delta.dtype).tiny)
    return torch.where((sizes > limits)[:, None], scaled, delta)


def _check_finite(loss: float, name: str, step: int) -> None:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise NumericalFailure(
            f"the loss of {name} is {loss} at step {step}, expected a finite number: "
            "load the model in float32 or bfloat16, or check its weights"
        )
