"""The loss of target values, for several jobs at once; only what a value reaches is run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from emend.editing.aims import Aim, Scored, TargetLikelihood, check_aim, lens_logits
from emend.editing.jobs import Job
from emend.editing.rows import pack
from emend.models import ModelView
from emend.models.hooks import adding
from emend.models.placing import device_of
from emend.models.replay import BlockCapture, Watch, capture_blocks

PUBLISHED_WINDOW = 6
"""Least number of tokens run again in the published order: BLAS sums smaller products otherwise."""

Site = Literal["mlp", "block", "attention+mlp"]
"""Where a value is added: at the down-projection's output, the layer's, or at the outputs of both
attention and down-projection, each with its own delta."""

PARTS: dict[Site, int] = {"mlp": 1, "block": 1, "attention+mlp": 2}
"""Number of deltas, P."""


@dataclass(frozen=True)
class Group:
    """Rows of similar length run together; ``members`` are (job, row of the job)."""

    capture: BlockCapture
    members: tuple[tuple[int, int], ...]


class Terms(NamedTuple):
    """The parts of the loss of each of J jobs, float32.

    Attributes:
        aim: (J,), mean loss of the aim over the scored positions.
        hit: (J,) bool, whether all of them reached it.
        essence: (J,), KL(now || before) at the subject.
        preserved: (J,), mean of KL(before || now) over the preserved positions, or 0.
    """

    aim: Tensor
    hit: Tensor
    essence: Tensor
    preserved: Tensor


def capture_groups(
    view: ModelView, jobs: Sequence[Job], layer: int, site: Site, *, published_order: bool
) -> list[Group]:
    """Capture the rows of all jobs, those of similar length together."""
    places = [(job, row) for job, each in enumerate(jobs) for row in range(len(each.rows))]
    rows = [jobs[job].rows[row] for job, row in places]
    packed, least = pack([len(row.ids) - row.lookup for row in rows]), 1
    if published_order:
        packed, least = [list(range(len(rows)))], PUBLISHED_WINDOW
    groups: list[Group] = []
    for members in packed:
        ids, lookups = [rows[n].ids for n in members], [rows[n].lookup for n in members]
        capture = capture_blocks(view, ids, lookups, layer, least=least)
        capture = capture.at_block() if site == "block" else capture
        groups.append(Group(capture, tuple(places[n] for n in members)))
    return groups


class Objective:
    """Compute the terms of the loss of several jobs for given deltas.

    Args:
        view: The model.
        jobs: All jobs.
        active: Numbers of the jobs still optimised.
        groups: Their rows, captured.
        site: Where the deltas are added.
        published_order: See `SearchSettings`.
        aim: The loss at the scored positions.
        initial: (A, vocabulary) log-probabilities at the anchors before any change; None before
            the first step.

    Raises:
        InvalidInput: The aim reads a layer below the deltas.
    """

    def __init__(
        self,
        view: ModelView,
        jobs: Sequence[Job],
        active: Sequence[int],
        groups: Sequence[Group],
        site: Site,
        published_order: bool = False,
        aim: Aim | None = None,
        initial: Tensor | None = None,
    ) -> None:
        self.view, self.jobs, self.active, self.groups = view, jobs, list(active), groups
        self.site: Site = site
        self.published_order, self.initial = published_order, initial
        self.aim = aim or TargetLikelihood()
        self.layers = check_aim(self.aim, view, groups[0].capture.layer)
        place = {job: number for number, job in enumerate(active)}
        self.owner_of_row = [
            torch.tensor([place[job] for job, _ in group.members]) for group in groups
        ]
        self._pick(place)

    def _pick(self, place: dict[int, int]) -> None:
        """Locate the scored positions of targets and anchors among the groups' rows."""
        scored: list[tuple[int, int, int, float]] = []  # token, step, job, weight
        places: list[int] = []
        anchors: dict[tuple[int, int], int] = {}  # (job, anchor) -> its place
        self.picks: list[tuple[Tensor, Tensor]] = []
        count = 0
        for group in self.groups:
            picks: list[tuple[int, int]] = []
            for number, (job, index) in enumerate(group.members):
                one = self.jobs[job]
                row, start = one.rows[index], int(group.capture.at[number])
                first = start + len(row.ids) - len(row.targets) - row.lookup
                for step, token in enumerate(row.targets):
                    places.append(count + len(picks))
                    picks.append((number, first + step))
                    weight = 1.0 / (len(row.targets) * one.scored)
                    scored.append((token, step, place[job], weight))
                for which, anchor in enumerate(one.anchors):
                    if anchor.row == index:
                        anchors[place[job], which] = count + len(picks)
                        picks.append((number, start + anchor.position - row.lookup))
            rows, columns = zip(*picks, strict=True)
            self.picks.append((torch.tensor(rows), torch.tensor(columns)))
            count += len(picks)
        device = device_of(self.view.lm_head)
        tokens, steps, owners, weights = zip(*scored, strict=True)
        self.tokens = torch.tensor(tokens, device=device)  # (N,)
        self.steps = torch.tensor(steps, device=device)  # (N,)
        self.owners = torch.tensor(owners, device=device)  # (N,)
        self.weights = torch.tensor(weights, device=device)  # (N,)
        ordered = sorted(anchors)
        self.anchor_owners = torch.tensor([job for job, _ in ordered], device=device)  # (A,)
        essences = [self.jobs[self.active[job]].anchors[which].is_essence for job, which in ordered]
        self.is_essence = torch.tensor(essences, device=device)  # (A,) bool
        self.order = torch.tensor([*places, *(anchors[each] for each in ordered)], device=device)

    def terms(self, delta: Tensor) -> Terms:
        """Compute the terms of the loss of each active job.

        Args:
            delta: (J, P, hidden_size), the deltas.
        """
        seen: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}
        hidden = [
            self._run(group.capture, owners, delta, picks, seen).to(self.order.device)
            for group, owners, picks in zip(self.groups, self.owner_of_row, self.picks, strict=True)
        ]
        logits = self.view.logits(torch.cat(hidden)[self.order])  # (N + A, vocabulary)
        scored, anchored = logits.split([len(self.tokens), len(self.anchor_owners)])
        read = Scored(scored, self._lens(seen, scored), self.tokens, self.steps)
        loss = self.aim.loss(read)
        loss = loss * self.weights.to(loss)
        missed = (~self.aim.reached(read)).to(loss.dtype)
        anchored = torch.log_softmax(anchored, dim=-1)
        if self.initial is None:
            self.initial = anchored.detach().clone()
        # KL(now || before) at the subject, as in the published code; KL(before || now) at preserved
        # positions, so that nothing the model states loses its probability.
        preserved = ~self.is_essence
        share = torch.where(preserved[:, None], self.initial, anchored).exp()
        gap = torch.where(preserved[:, None], self.initial - anchored, anchored - self.initial)
        kl = (share * gap).sum(-1)  # (A,)
        count = self._summed(preserved.to(kl.dtype), self.anchor_owners).clamp(min=1)
        return Terms(
            self._summed(loss, self.owners),
            self._summed(missed, self.owners) == 0,
            self._summed(kl * self.is_essence, self.anchor_owners),
            self._summed(kl * preserved, self.anchor_owners) / count,
        )

    def _run(
        self,
        capture: BlockCapture,
        owners: Tensor,
        delta: Tensor,
        picks: tuple[Tensor, Tensor],
        seen: dict[int, list[Tensor]],
    ) -> Tensor:
        """Return (n, hidden_size), the last layer's output at scored positions; add others'."""
        watch = _keeping(seen, picks, self.order.device) if seen else None
        if self.published_order:
            added = torch.stack([delta[owner, 0] for owner in owners.tolist()])
            return capture.run_at(added, *picks, watch)
        added = delta[owners.to(delta.device)]  # (B, P, hidden_size)
        if self.site != "attention+mlp":
            return capture.run_at(added[:, 0], *picks, watch)
        sites = (
            self.view.attention(capture.layer),
            self.view.down_projection(capture.layer),
        )
        with ExitStack() as stack:
            for part, module in enumerate(sites):
                stack.enter_context(adding(module, added[:, part], capture.at))
            hidden = capture.run_blocks(watch=watch)
        rows, columns = (pick.to(hidden.device) for pick in picks)
        return hidden[rows, columns]

    def _lens(self, seen: dict[int, list[Tensor]], last: Tensor) -> tuple[Tensor, ...]:
        """Return the lens logits of the aim's layers at the scored positions."""
        places = self.order[: len(self.tokens)]
        states = [torch.cat(seen[layer])[places] for layer in self.layers]
        return lens_logits(self.view, self.layers, states, last)

    def _summed(self, values: Tensor, owners: Tensor) -> Tensor:
        """Sum (N,) over owners to (J,)."""
        zeros = torch.zeros(len(self.active), dtype=values.dtype, device=values.device)
        return zeros.index_add(0, owners, values)

    def without(self, finished: Sequence[bool]) -> Objective:
        """Return the objective without the finished jobs."""
        active = [job for job, done in zip(self.active, finished, strict=True) if not done]
        groups: list[Group] = []
        for group in self.groups:
            rows = [n for n, (job, _) in enumerate(group.members) if job in active]
            if rows:
                members = tuple(group.members[n] for n in rows)
                groups.append(Group(group.capture.select(rows), members))
        assert self.initial is not None
        stays = torch.tensor([not done for done in finished], device=self.anchor_owners.device)
        initial = self.initial[stays[self.anchor_owners]]
        return Objective(
            *(self.view, self.jobs, active, groups, self.site),
            *(self.published_order, self.aim, initial),
        )


def _keeping(
    seen: dict[int, list[Tensor]], picks: tuple[Tensor, Tensor], device: torch.device
) -> Watch:
    """Return what adds the outputs of some layers, at the picked positions, to ``seen``."""

    def keep(layer: int, hidden: Tensor) -> None:
        if layer in seen:
            rows, columns = (pick.to(hidden.device) for pick in picks)
            seen[layer].append(hidden[rows, columns].to(device))

    return keep
