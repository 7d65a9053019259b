"""Time the value search of ROME against the plain reference loop, and see that they agree.

    python benchmarks/value_search.py                 # 1 edit and 32 edits: some 4 CPU minutes
    python benchmarks/value_search.py --edits 8       # fewer edits in the batch
    python benchmarks/value_search.py --json

A random model of GPT-2 small's shape (12 layers, width 768, vocabulary 50,257), layer 5, 22 rows
(21 contexts and the row of the KL term), 20 steps, one CPU thread, everything in one process. The
rows of the first edit have up to 29 tokens, 7 of them from the subject's last token on; those of
the batch are ragged, with the same mean. The reference (`tests/reference`) runs the first edit.

How much can be gained depends on these lengths alone, so the limit is counted too: the reference
runs every block over every token, and the head; the search runs the blocks above the layer over
the tokens from the subject on. Both run backwards through the blocks above the layer only.
"""

from __future__ import annotations

import argparse
import json

import torch
from _shapes import (
    BLOCK,
    DEPTH,
    HEAD,
    NAMES,
    Words,
    contexts,
    difference,
    ragged_edits,
    small_model,
    timed,
)
from tests.reference import rome as reference

from emend.editing import SearchSettings, optimise_values
from emend.edits import Edit
from emend.models import ModelView

LAYER = 5


def counted(rows: reference.Rows, steps: int) -> float:
    """Multiplications of the reference over those of the search."""
    above = DEPTH - 1 - LAYER
    lengths = rows.attention_mask.sum(1)
    tokens = rows.input_ids.numel()  # the reference pads
    suffix = int((lengths - torch.tensor(rows.lookup)).sum()) - 1  # of the KL row one token
    plain = tokens * (BLOCK * (DEPTH + above) + 2 * HEAD)
    ours = suffix * BLOCK * 2 * above + 2 * HEAD * len(rows.lookup) * len(rows.target_ids)
    return steps * plain / (steps * ours + tokens * BLOCK * DEPTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=32, help="edits in the batch")
    parser.add_argument("--steps", type=int, default=20, help="steps of one edit")
    parser.add_argument("--batch_steps", type=int, default=5, help="steps of the batch")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    model = small_model()
    view, tokenizer, templates = ModelView(model), Words(), contexts()
    site, edits = view.down_projection(LAYER), ragged_edits(arguments.edits)
    rows = reference.build_rows(
        tokenizer, edits[0].prompt, edits[0].subject, edits[0].target, templates
    )

    def search(chosen: list[Edit], steps: int):
        settings = SearchSettings(steps=steps, stop_below=-1.0)
        return optimise_values(view, tokenizer, chosen, templates, LAYER, settings)

    def plain(steps: int):
        return reference.search_value(model, site, rows, steps=steps, stop_below=-1.0)

    search(edits[:1], 2)  # warm up
    one_seconds, (one,) = timed(lambda: search(edits[:1], arguments.steps))
    plain_seconds, expected = timed(lambda: plain(arguments.steps))
    short_expected, (short,) = plain(5), search(edits[:1], 5)
    # Lengths differ between the kinds of edits, so one of each is sought alone.
    alone_seconds, alone = timed(
        lambda: [search([edit], arguments.batch_steps)[0] for edit in edits[: len(NAMES)]]
    )
    many_seconds, many = timed(lambda: search(edits, arguments.batch_steps))
    alone_seconds /= len(alone)
    result = {
        "rows": len(rows.lookup),
        "tokens_of_longest_row": rows.input_ids.shape[1],
        "tokens_from_subject": int(rows.attention_mask[0].sum()) - rows.lookup[0],
        "steps": arguments.steps,
        "reference_cpu_seconds": plain_seconds,
        "one_edit_cpu_seconds": one_seconds,
        "one_edit_ratio": plain_seconds / one_seconds,
        "counted_limit": counted(rows, arguments.steps),
        "z_error_after_5_steps": difference(short.target, short_expected.v_star),
        f"z_error_after_{arguments.steps}_steps": difference(one.target, expected.v_star),
        "batch_steps": arguments.batch_steps,
        "alone_cpu_seconds_per_edit": alone_seconds,
        "batch_edits": len(edits),
        "batch_cpu_seconds_per_edit": many_seconds / len(edits),
        "batch_per_edit_over_alone": many_seconds / len(edits) / alone_seconds,
        "batch_z_error": max(
            difference(one.target, other.target) for one, other in zip(many, alone, strict=False)
        ),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(
            f"{name.replace('_', ' '):<38}", f"{value:.3g}" if isinstance(value, float) else value
        )


if __name__ == "__main__":
    main()
