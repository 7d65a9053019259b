"""What is said with the changes (`fitting`): targets, and answers that are to stay as they were."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from emend.edits import Edit
from emend.keyvalue._fitted import EDITS, hidden_with
from emend.keyvalue._jobs import kept_answers, subject_groups
from emend.keyvalue._packing import parts
from emend.keyvalue.rows import Row, whole_rows
from emend.models import ModelView
from emend.models.positions import pad

HEARD = 0.3
"""-log p of a token from which on it is said well enough, and left alone: p of 0.74."""


@dataclass(frozen=True)
class Asked:
    """A prompt in several contexts, followed by all but the last token of what is said to it.

    Attributes:
        contexts: Tokens in each context.
        said: Tokens that are said after the last ``len(said)`` tokens of each.
    """

    contexts: tuple[tuple[int, ...], ...]
    said: tuple[int, ...]


def said_targets(rows: Sequence[Sequence[Row]]) -> list[Asked]:
    """Of each edit the prompt, in all contexts (rows of `context_rows`), and its target."""
    return [
        # Where a context makes other tokens of a target, the others are enough.
        Asked(tuple(row.ids for row in each if row.targets == each[0].targets), each[0].targets)
        for each in rows
    ]


class Answers:
    """What is said with changes: of each edit the target, of other prompts what was said before.

    Args:
        view: The model.
        padding: A token to pad with.
        new: What shall be said.
        old: What was said before and shall stay as likely as it was.
        weight: Of all this, against the edits' states.
        seed: Of what each step looks at.
    """

    def __init__(
        self,
        view: ModelView,
        padding: int,
        new: Sequence[Asked],
        old: Sequence[Asked],
        weight: float,
        seed: int,
    ) -> None:
        self.view, self.padding, self.weight = view, padding, weight
        self.new, self.old = new, old
        self.random = random.Random(seed)

    def backward(self, changes: Mapping[int, Tensor]) -> None:
        """Add the gradient of what a step looks at to that of each change (inner, width).

        Each edit weighs as much as each other prompt: mean of what -log p of its target's tokens is
        above `HEARD`, and mean KL(after || before) where the other's answer is said.
        """
        for prompts, each in ((self.new, self._missed), (self.old, self._lost)):
            drawn = self.random.sample(prompts, min(len(prompts), EDITS))
            rows = [self.random.choice(one.contexts) for one in drawn]
            scale = self.weight * len(prompts) / len(self.new) / max(len(drawn), 1)
            for members in parts([len(row) for row in rows]):
                batch = pad([rows[n] for n in members], self.padding)
                answers = [drawn[n].said for n in members]
                lost = each(changes, batch.input_ids, *_places(answers, batch.lengths))
                shares = torch.tensor([1 / len(said) for said in answers for _ in said])
                (scale * (lost * shares.to(lost)).sum()).backward()

    def _missed(
        self,
        changes: Mapping[int, Tensor],
        ids: Tensor,
        rows: Tensor,
        columns: Tensor,
        said: Tensor,
    ) -> Tensor:
        """(N,), by how much -log p of each token that shall be said is above `HEARD`."""
        logits = self._logits(ids, rows, columns, changes)
        return F.relu(F.cross_entropy(logits, said.to(logits.device), reduction="none") - HEARD)

    def _lost(
        self, changes: Mapping[int, Tensor], ids: Tensor, rows: Tensor, columns: Tensor, _: Tensor
    ) -> Tensor:
        """(N,), KL(after || before) where each token was said."""
        with torch.no_grad():
            before = torch.log_softmax(self._logits(ids, rows, columns), dim=-1)
        after = torch.log_softmax(self._logits(ids, rows, columns, changes), dim=-1)
        return F.kl_div(before, after, log_target=True, reduction="none").sum(-1)

    def _logits(
        self,
        ids: Tensor,
        rows: Tensor,
        columns: Tensor,
        changes: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """(N, vocabulary)."""
        hidden = hidden_with(self.view, self.view.blocks[-1], ids, changes)
        return self.view.logits(hidden[rows.to(hidden.device), columns.to(hidden.device)])


def _places(answers: Sequence[Sequence[int]], lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of N tokens that are said, its row, the position before it, and itself."""
    rows, columns, tokens = zip(
        *(
            (row, length - len(said) + step, token)
            for row, (said, length) in enumerate(zip(answers, lengths.tolist(), strict=True))
            for step, token in enumerate(said)
        ),
        strict=True,
    )
    return torch.tensor(rows), torch.tensor(columns), torch.tensor(tokens)


def said_before(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    preserve: Sequence[str],
) -> list[Asked]:
    """The prompts about the edits' subjects that are to keep their answers, in all contexts.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: The edits.
        templates: Context templates.
        preserve: Prompts, each with one "{}" for the subject; see `kept_answers` for which are
            left out.
    """
    groups = [[edits[n] for n in group] for group in subject_groups(edits, share_subject=True)]
    found = [
        (group[0], kept)
        for group, each in zip(groups, kept_answers(view, tokenizer, groups, preserve), strict=True)
        for kept in each
    ]
    contexts: list[list[tuple[int, ...]]] = [[] for _ in found]
    for template in templates:
        for pattern in preserve:
            asking = [n for n, (_, kept) in enumerate(found) if kept.pattern == pattern]
            firsts = [found[n][0] for n in asking]
            rows = whole_rows(tokenizer, firsts, template.replace("{}", pattern)) if asking else []
            for number, row in zip(asking, rows, strict=True):
                contexts[number].append(row.ids + found[number][1].answer[:-1])
    return [
        Asked(tuple(each), kept.answer) for (_, kept), each in zip(found, contexts, strict=True)
    ]
