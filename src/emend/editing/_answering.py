"""What is said with the changes (`fitting`): targets, and answers that are to stay as they were."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emend.editing._fitted import EDITS, hidden_with
from emend.editing._jobs import kept_answers, subject_groups
from emend.editing.packing import parts
from emend.editing.rows import Row, whole_rows
from emend.edits import Edit
from emend.models import ModelView
from emend.models.forward import target_nll
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
        old: What was said before and shall still be.
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

        Each edit weighs as much as each other prompt: the mean, over the tokens that shall be
        said, of what -log p is above `HEARD`.
        """
        for prompts in (self.new, self.old):
            drawn = self.random.sample(prompts, min(len(prompts), EDITS))
            rows = [self.random.choice(one.contexts) for one in drawn]
            scale = self.weight * len(prompts) / len(self.new) / max(len(drawn), 1)
            for members in parts([len(row) for row in rows]):
                batch = pad([rows[n] for n in members], self.padding)
                answers = [drawn[n].said for n in members]
                missed = self._missed(changes, batch.input_ids, answers, batch.lengths)
                (scale * missed).backward()

    def _missed(
        self,
        changes: Mapping[int, Tensor],
        ids: Tensor,
        answers: Sequence[Sequence[int]],
        lengths: Tensor,
    ) -> Tensor:
        """Sum over rows (B, T) of the mean, over an answer's tokens, of -log p above `HEARD`."""
        rows, columns, said = _places(answers, lengths)
        hidden = hidden_with(self.view, self.view.layers[-1], ids, changes)
        logits = self.view.logits(hidden[rows.to(hidden.device), columns.to(hidden.device)])
        shares = torch.tensor([1 / len(answer) for answer in answers for _ in answer])
        return target_nll(logits, said, shares, spared=HEARD).sum()


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
