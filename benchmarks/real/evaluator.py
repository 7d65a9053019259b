"""A plain evaluator of edited models: transformers and torch alone, nothing of emend.

All quantities are those of the field (Meng et al. 2022, arXiv 2202.05262, section 3.4), and some
that it leaves out. Every text begins with the start token that is passed as `front`.

    ES, PS  share of edits (of paraphrases) with P(new) > P(true)
    EX, PX  share of edits (of paraphrases) after which the new target is generated greedily
    NS      share of neighbours' prompts with P(true) > P(new)
    UN      share of neighbours' prompts whose first generated token is as before the edit
    drift   mean over tokens of KL(before || after), in nats, on 16 tokens of what the unedited
            model itself says of the subject to `GENERAL`
    PPL     perplexity of plain text, in parts of that before, minus 1
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

GENERAL = ("{} is a", "{} was", "{} is known for", "{} is the", "{} has", "People say that {}")
TOLD = 16
"""Tokens that the model says of a subject to each of `GENERAL`."""
COLUMNS = ("ES", "EX", "PS", "PX", "NS", "UN", "drift", "PPL", "seconds")


@dataclass(frozen=True)
class Record:
    """One record of CounterFact in its flat form, with the fields' own names."""

    case_id: int
    prompt: str
    subject: str
    target_new: str
    ground_truth: str
    rephrase_prompt: str
    locality_prompt: str
    locality_ground_truth: str


class Evaluator:
    """Asks one model about some records, before and after edits.

    Args:
        model: A Hugging Face causal language model. What is hooked to it acts.
        tokenizer: Its tokenizer.
        front: Token ids in front of every text.
        text: Plain text for the perplexity.
    """

    def __init__(self, model: Any, tokenizer: Any, front: Sequence[int], text: str = "") -> None:
        self.model, self.tokenizer, self.front = model, tokenizer, list(front)
        ids = self.ids(text)[:8192] if text else []
        self.windows = [self.front + ids[at : at + 512] for at in range(0, len(ids), 512)]
        self.told: dict[str, list[tuple[list[int], int, Tensor]]] = {}
        self.before: dict[str, int] = {}
        self.loss = self.text_loss() if self.windows else 0.0

    def ids(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def logits(self, rows: Sequence[Sequence[int]], batch: int = 16) -> list[Tensor]:
        """(T, vocabulary) float32 log-probabilities of each row of token ids."""
        found: list[Tensor] = []
        for at in range(0, len(rows), batch):
            some = rows[at : at + batch]
            longest = max(map(len, some))
            ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in some])
            mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in some])
            out = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            found += [
                row[: len(one)].float().log_softmax(-1) for row, one in zip(out, some, strict=True)
            ]
        return found

    def chances(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool, int]]:
        """Of (prompt, target) pairs the mean log-probability, whether greedy, and the top token."""
        rows, spans = [], []
        for prompt, target in pairs:
            start = self.front + self.ids(prompt)
            whole = self.front + self.ids(f"{prompt} {target}")
            shared = len(start) if whole[: len(start)] == start else len(start) - 1
            rows.append(whole)
            spans.append(shared)
        found = []
        for row, first, scores in zip(rows, spans, self.logits(rows), strict=True):
            wanted = torch.tensor(row[first:])
            read = scores[first - 1 : len(row) - 1]  # (T, vocabulary)
            likely = read.gather(-1, wanted[:, None]).mean().item()
            top = read.argmax(-1)
            found.append((likely, bool((top == wanted).all()), int(top[0])))
        return found

    def prepare(self, records: Sequence[Record]) -> None:
        """Ask the unedited model what edited ones are compared with."""
        unseen = [r for r in records if r.locality_prompt not in self.before]
        tops = self.chances([(r.locality_prompt, r.locality_ground_truth) for r in unseen])
        self.before |= {r.locality_prompt: top for r, (_, _, top) in zip(unseen, tops, strict=True)}
        for record in records:
            if record.subject in self.told:
                continue
            rows = [self.front + self.ids(text.format(record.subject)) for text in GENERAL]
            whole = self._continued(rows)
            scores = self.logits(whole)
            self.told[record.subject] = [
                (row, len(start), score[len(start) - 1 : -1])
                for row, start, score in zip(whole, rows, scores, strict=True)
            ]

    @torch.no_grad()
    def _continued(self, rows: Sequence[list[int]]) -> list[list[int]]:
        """Each row with `TOLD` greedy tokens after it, all rows at once, padded on the left."""
        longest, cache = max(map(len, rows)), None
        new = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        places = (mask.cumsum(1) - 1).clamp(min=0)
        told: list[torch.Tensor] = []
        for _ in range(TOLD):
            output = self.model(
                input_ids=new,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            )
            cache, new = output.past_key_values, output.logits[:, -1:].argmax(-1)
            mask = torch.cat([mask, torch.ones_like(new)], dim=1)
            places = places[:, -1:] + 1
            told.append(new)
        return [row + more for row, more in zip(rows, torch.cat(told, 1).tolist(), strict=True)]

    def measure(self, records: Sequence[Record]) -> list[dict[str, float]]:
        """All quantities of each record but the perplexity."""
        rewrites = [(r.prompt, t) for r in records for t in (r.target_new, r.ground_truth)]
        rephrased = [
            (r.rephrase_prompt, t) for r in records for t in (r.target_new, r.ground_truth)
        ]
        near = [
            (r.locality_prompt, t) for r in records for t in (r.locality_ground_truth, r.target_new)
        ]
        asked = [self.chances(pairs) for pairs in (rewrites, rephrased, near)]
        found: list[dict[str, float]] = []
        for number, record in enumerate(records):
            (new, is_said, _), (old, _, _) = asked[0][2 * number : 2 * number + 2]
            (par, par_said, _), (par_old, _, _) = asked[1][2 * number : 2 * number + 2]
            (true, _, top), (wrong, _, _) = asked[2][2 * number : 2 * number + 2]
            found.append(
                {
                    "ES": float(new > old),
                    "EX": float(is_said),
                    "PS": float(par > par_old),
                    "PX": float(par_said),
                    "NS": float(true > wrong),
                    "UN": float(top == self.before[record.locality_prompt]),
                    "drift": self.drift(record.subject),
                }
            )
        return found

    def drift(self, subject: str) -> float:
        """KL(before || after) a token on what the unedited model says of a subject."""
        told = self.told[subject]
        sums, count = 0.0, 0
        scores = self.logits([row for row, _, _ in told])
        for (_, start, before), after in zip(told, scores, strict=True):
            read = after[start - 1 : -1]
            sums += (before.exp() * (before - read)).sum().item()
            count += len(before)
        return sums / count

    def text_loss(self) -> float:
        """Mean negative log-probability of the plain text, in nats a token."""
        total, count = 0.0, 0
        for row in self.windows:
            (scores,) = self.logits([row])
            first = len(self.front)
            wanted = torch.tensor(row[first:])[:, None] if first else torch.tensor(row[1:])[:, None]
            read = scores[first - 1 : -1] if first else scores[:-1]
            total -= read.gather(-1, wanted).sum().item()
            count += len(wanted)
        return total / count


def read_records(path: Path, first: int, last: int) -> list[Record]:
    """Records of the file whose texts name their subject once, different edits each."""
    found: dict[str, Record] = {}
    for raw in json.loads(path.read_text(encoding="utf-8"))[first:last]:
        record = Record(**raw)
        if record.prompt.count(record.subject) == 1:
            found.setdefault(record.prompt, record)
    return list(found.values())


def show(label: str, rows: list[dict[str, Any]]) -> None:
    """Print the means of all quantities, with how many records they are of."""
    cells = []
    for name in COLUMNS:
        values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
        cells.append(f"{name} {sum(values) / len(values):.3f}" if values else f"{name} -")
    print(f"{label}: n {len(rows)}  " + "  ".join(cells), flush=True)
