"""Which of the lab's edits a hypernetwork is trained on, and which it never sees."""

from __future__ import annotations

from emend import datasets
from emend.edits import Edit

TESTED = (0, 1)
"""Seeds of the lab's dataset that are tested with; seed 1 is that of the benchmarks."""
FIRST = 200
"""No subject of so many first edits of these seeds is trained on."""
VALIDATION_SEED = 2
TRAINING_SEED = 1000


def lab_split(validation: int = 60, draws: int = 4) -> tuple[list[Edit], list[Edit]]:
    """Edits to train on and edits to validate on, apart from those tested with.

    No two of the three share a subject: training never sees an edit of a subject that is tested.
    (What neighbours of a training edit must keep saying may be about any subject.)

    Args:
        validation: How many to validate on.
        draws: How often each fact stands among the training edits, each time with a prompt and
            a target drawn anew.

    Returns:
        (training, validation).
    """
    tested = {
        edit.subject for seed in TESTED for edit in datasets.load("lab", limit=FIRST, seed=seed)
    }
    others = datasets.load("lab", limit=6 * validation, seed=VALIDATION_SEED)
    checked = [edit for edit in others if edit.subject not in tested][:validation]
    taken = tested | {edit.subject for edit in checked}
    training = [
        edit
        for draw in range(draws)
        for edit in datasets.load("lab", seed=TRAINING_SEED + draw)
        if edit.subject not in taken
    ]
    return training, checked
