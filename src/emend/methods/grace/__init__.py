"""GRACE: a codebook beside one layer, whose entries say what the layer puts out.

Hartvigsen et al. 2023, arXiv 2211.11031.

    h'_l = v_i  if d(h, k_i) < eps_i with i = argmin_i d(h, k_i),  else  h_l(h)     eq. 1

    paper           here
    k_i, h          keys: what a down-projection is given at the prompt's last token
    v_i             values: what it puts out instead, found by Adam on the edits' targets
    eps_i           radii; eps_init is `epsilon`
    y_i             labels, the target's tokens
    add, expand,    memories/codebook.py: Balls
    split

Where this deviates from the authors' code, and why: labels are compared as sequences of tokens
(theirs compares the mean of the token ids, so that different targets of one mean are taken for the
same). A split never makes a ball larger. The balls follow from keys and labels alone, so that they
are settled first and the values of all entries are sought together, an entry shared by several
edits on all of them at once (theirs goes on from the last edit only). A value begins at what the
layer puts out at the prompt's last token and not at random numbers (`start="random"` as
published). As published it is put out at all tokens of the prompt; `replaced="query"` puts it out
at the last one only, `"target"` until the target is said (theirs can put it out at all tokens,
which says the target again and again). `epsilon` is by default a part of the key's own length, for
what the published 1.0 means depends on the model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from emend._settings import Count, NotNegative, Positive, Seed
from emend.editing.entries import Entries, Replaced
from emend.editing.rows import Row, context_rows
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.methods._method import method
from emend.methods.grace._patch import Balls, CodebookPatch
from emend.models import ModelView
from emend.patches import MemoryPatch, describe_base


@dataclass(frozen=True)
class GraceConfig:
    """Settings of GRACE."""

    layer: int | None = None
    """Block whose down-projection has the codebook; by default three quarters up."""
    epsilon: Positive | None = None
    """Radius of a new ball; by default `reach` times the length of its key."""
    reach: Positive = 0.3
    """See epsilon."""
    learning_rate: Positive = 1.0
    """Step size of Adam."""
    steps: Count = 100
    """Steps for the value of an entry, at most."""
    stop_below: NotNegative = 0.01
    """An entry's value is found once its loss is below this; 0 takes all steps, as published."""
    replaced: Replaced = "prompt"
    """Tokens whose output is replaced: all of the prompt's (prompt), its last one (query), or the
    target's too, until it is said (target), which says long targets best."""
    start: Literal["output", "random"] = "output"
    """Where a value begins: at what the layer puts out (output), or at random numbers (random)."""
    seed: Seed = 0
    """Of the random numbers."""
    chunk: Count = 32
    """Edits that are run together."""


@method(
    title="GRACE: a codebook of keys and values beside one late layer",
    paper="Hartvigsen et al. 2023, arXiv 2211.11031",
    when="many edits one by one that must disturb nothing else; some rewordings are missed",
    memory=True,
)
def grace(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: GraceConfig,
    previous: MemoryPatch | None = None,
) -> CodebookPatch:
    """Add edits to a codebook."""
    started = time.perf_counter()
    view = ModelView(model)
    layer = (
        round(0.75 * view.num_layers) if config.layer is None else view.numbered([config.layer])[0]
    )
    if config.layer is None:
        layer = view.nearest_editable(min(layer, view.num_layers - 1))
    module = view.name_of(view.down_projection(layer))
    before = _before(previous, module, config)
    everything = (*(before.edits if before else ()), *edits)
    rows = _rows(tokenizer, everything)
    entries = Entries(view, rows, layer, replaced=config.replaced)
    old = len(everything) - len(edits)
    keys, values, radii = _memory(entries, before, config, old)
    labels = [list(row.targets) for row in rows]
    balls = Balls(keys, labels, radii.tolist()).all
    changed = [ball.owners for ball in balls if max(ball.owners) >= old]
    found = entries.sought(
        changed,
        torch.stack([values[owners[0]] for owners in changed]),
        steps=config.steps,
        learning_rate=config.learning_rate,
        stop_below=config.stop_below,
        chunk=config.chunk,
    )
    for owners, value in zip(changed, found, strict=True):
        values[owners] = value
    seconds = time.perf_counter() - started
    return CodebookPatch(
        edits=everything,
        method="grace",
        config=dataclasses.asdict(config),
        base=describe_base(model),
        timing={"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)},
        tensors={"keys": keys, "values": values, "radii": radii},
        details={"module": module, "labels": labels, "replaced": config.replaced},
    )


def _before(previous: MemoryPatch | None, module: str, config: GraceConfig) -> CodebookPatch | None:
    """The codebook to go on from.

    Raises:
        InvalidInput: It stands at another layer, or puts values out elsewhere.
    """
    if previous is None:
        return None
    assert isinstance(previous, CodebookPatch)
    found = previous.details["module"], previous.details["replaced"]
    if found != (module, config.replaced):
        raise InvalidInput(
            f"the codebook stands at {found[0]} and replaces the {found[1]}, expected {module} "
            f"and the {config.replaced}: go on with the settings that it was made with"
        )
    return previous


def _rows(tokenizer: Any, edits: Sequence[Edit]) -> list[Row]:
    """The edits' prompts and targets, looked up at the prompt's last token."""
    rows = [each[0] for each in context_rows(tokenizer, edits, ["{}"])]
    return [dataclasses.replace(row, lookup=len(row.ids) - len(row.targets)) for row in rows]


def _memory(
    entries: Entries, before: CodebookPatch | None, config: GraceConfig, old: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (E, inner), values (E, width) to begin with, and first radii (E,) of all edits."""
    keys, values = entries.keys, entries.outputs.clone()
    if config.start == "random":
        generator = torch.Generator().manual_seed(config.seed)
        values = torch.rand(values.shape, generator=generator)
    radii = config.reach * keys.norm(dim=-1)
    if config.epsilon is not None:
        radii = torch.full_like(radii, config.epsilon)
    if before is not None:
        keys = torch.cat([before.tensors["keys"], keys[old:]])
        values = torch.cat([before.tensors["values"], values[old:]])
        radii = torch.cat([before.tensors["radii"], radii[old:]])
    return keys, values, radii
