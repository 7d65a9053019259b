"""Write many facts in batches, in any order, and compare what methods do to the rest.

python examples/many_edits.py            # a minute of one core
"""

from __future__ import annotations

from collections.abc import Sequence

import emend
from emend import datasets
from emend.edits import Edit

BATCH = 3
METHODS = ("memit", "alphaedit", "rome", "ft")


def main() -> None:
    """Six edits of the lab."""
    model, tokenizer = emend.load("lab/gptneo")
    edits = datasets.load("lab", limit=6, seed=3)

    def built(order: Sequence[Edit]) -> emend.Patch | None:
        """Batch after batch: each call goes on from the patch of the one before."""
        patch = None
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            patch = emend.edit(model, tokenizer, batch, method="memit", previous=patch)
        return patch

    one, other = built(edits), built(edits[::-1])
    assert one is not None
    assert other is not None
    same = all(bool((one.delta(name) == other.delta(name)).all()) for name in one.factors)
    print(f"memit, {len(edits)} edits in batches of {BATCH}, forwards and backwards:")
    print(f"  the same weights to the last bit: {same}")

    print(f"{'':10} {'reliability':>14} {'generalization':>14} {'locality':>14}")
    for method in METHODS:
        # What seeks the same values as MEMIT takes them from its patch.
        known = one if method in ("memit", "alphaedit") else None
        patch = emend.edit(model, tokenizer, edits, method=method, previous=known)
        with patch.applied(model):
            summary = emend.evaluate(model, tokenizer, edits).summary
        shares = [summary[name]["after"] for name in ("reliability", "generalization", "locality")]
        print(f"{method:10} {'  '.join(f'{share:>13.2f}' for share in shares)}")


if __name__ == "__main__":
    main()
