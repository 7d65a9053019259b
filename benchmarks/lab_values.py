"""What the values of a patch would give if nothing had to be written: a bound on its edits.

    python benchmarks/lab_methods.py --models lab/gptneo --methods memit --counts 1000 \
        --values values/
    python benchmarks/lab_values.py lab/gptneo values/lab-gptneo-1000-1

Wherever a prompt names a subject of the edits, the change that was sought for it is added to the
stream at the name's last token, after the last edited block, exactly; no weight is changed. What is
missing here was lost in seeking values, and what a patch lacks beyond it in writing them.
"""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lab_methods import measure_patch, percent
from torch import Tensor

import emend
from emend.editing.layerwise import LayerwiseReplay
from emend.editing.rows import context_rows
from emend.editing.value_cache import edit_of
from emend.lab import shipped_world
from emend.lab.consequences import draw_edits
from emend.models import ModelView


class InPlace:
    """Stands where a patch would: while applied, values stand where subjects are named."""

    def __init__(self, model: Any, tokenizer: Any, patch: emend.WeightPatch) -> None:
        self.view = ModelView(model)
        self.last = max(patch.config["layers"])
        self.moves = self._moves(tokenizer, patch)
        self.longest = max(map(len, self.moves))
        self.found: list[tuple[int, int, Tensor]] = []

    def _moves(self, tokenizer: Any, patch: emend.WeightPatch) -> dict[tuple[int, ...], Tensor]:
        """By how much the stream moves at each subject, by the tokens of its name."""
        values = {edit_of(name): value for name, value in patch.state.items()}
        rows = context_rows(tokenizer, patch.edits, ["{}"])
        ids = [each[0].upto_subject for each in rows]
        before = LayerwiseReplay(self.view, ids, self.last, self.last).read().hidden
        moves: dict[tuple[int, ...], Tensor] = {}
        for edit, bare in zip(patch.edits, before, strict=True):
            for name in (edit.subject, f" {edit.subject}"):
                tokens = tokenizer(name, add_special_tokens=False).input_ids
                moves[tuple(tokens)] = values[edit.id] - bare
        return moves

    @contextmanager
    def applied(self, model: Any) -> Generator[None, None, None]:
        """Put values in place inside the block."""
        handles = [
            model.register_forward_pre_hook(self._find, with_kwargs=True),
            self.view.layers[self.last].register_forward_hook(self._put),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _find(self, _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        self.found = []
        for row, tokens in enumerate(ids.tolist()):
            for end in range(1, len(tokens) + 1):
                for size in range(min(self.longest, end), 0, -1):
                    move = self.moves.get(tuple(tokens[end - size : end]))
                    if move is not None:
                        self.found.append((row, end - 1, move))
                        break

    def _put(self, _module: Any, _args: Any, output: Any) -> Any:
        hidden = (output if isinstance(output, Tensor) else output[0]).clone()
        for row, column, move in self.found:
            hidden[row, column] += move.to(hidden)
        return hidden if isinstance(output, Tensor) else (hidden, *output[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="lab/gptneo, lab/qwen3")
    parser.add_argument("patch", type=Path, help="a patch of lab_methods.py, with its values")
    parser.add_argument("--seed", type=int, default=1, help="of the edits, as it was there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(arguments.model)
    patch = emend.load_patch(arguments.patch)
    edits = draw_edits(shipped_world(), len(patch.edits), arguments.seed)  # with their probes
    found = measure_patch(model, tokenizer, edits, InPlace(model, tokenizer, patch))
    # Locality is held against the model without patches, of which this is none.
    for column in ("reliability", "generalization", "recall"):
        print(f"{column} {percent(found[column])}")
    print(f"drop {100 * found['drop']:.1f}")


if __name__ == "__main__":
    main()
