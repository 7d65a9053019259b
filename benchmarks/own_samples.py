r"""How good key statistics are, asked without an edit: what a change spills on other tokens.

A change along u = (C + r I)^-1 k, where k is the key of a subject, reaches another token's key q by
(u.q / u.k)^2 of what it does at the subject itself. Its mean over tokens that C has not seen, the
median over subjects, is compared between sources of C and ridges r (in means of C's diagonal).

    python benchmarks/own_samples.py --model smollm2-135m --layers 1,5 --text wiki.valid.txt \
        --other_text wiki.test.txt --records counterfact.json

Records are those of CounterFact as `emend.datasets` reads them; their neighbours are the second
measure. The keys of all that is compared are held in memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import emend
from emend import datasets
from emend.editing import subject_keys
from emend.editing.ridge import inverse
from emend.editing.samples import OwnSamples
from emend.editing.sources import Source, TextFile, Texts
from emend.editing.token_batches import Layout, Position, batches_of
from emend.models import ModelView, ensure_start
from emend.models.hooks import stopping

BESIDE = ("locality", "neighborhood")
"""Groups of probes that are about other subjects."""

RIDGES = (1e-4, 1e-2, 0.1, 1.0)
SHAPES = ((128, 128), (128, 64), (128, 48), (64, 64), (128, 32), (64, 32), (32, 16))
"""Samples and tokens of each."""


def main() -> None:
    """Measure one model."""
    arguments = _arguments()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(arguments.model)
    ensure_start(model, tokenizer)
    view = ModelView(model)
    read = datasets.read_edits(arguments.records)
    edits = [edit for edit in read if "{}" in edit.prompt][: arguments.subjects]
    beside = [probe.prompt for edit in edits for probe in edit.probes if probe.group in BESIDE]
    longer = Longer(model, tokenizer, 128 * 128)
    for layer in map(int, arguments.layers.split(",")):
        print(f"layer {layer} of {arguments.model}")
        subjects = subject_keys(view, tokenizer, edits, ("{}",), [layer])[layer].keys.mean(1)
        other = _keys(view, tokenizer, TextFile(arguments.other_text), layer, 5_000)
        neighbours = _keys(view, tokenizer, Texts(beside), layer)
        text = _keys(view, tokenizer, TextFile(arguments.text), layer, 40_000)
        keys = _keys(view, tokenizer, longer, layer).reshape(128, 128, -1)
        identity = torch.eye(view.intermediate_size(layer))
        _tell("nothing", identity, subjects, other, neighbours, ridges=(0.0,))
        for count in (40_000, 8_192, 6_144, 2_048):
            some = text[:count]
            _tell(f"{len(some):,} tokens of text", _moment(some), subjects, other, neighbours)
        for rows, length in SHAPES:
            some = keys[:rows, :length].flatten(0, 1)
            what = f"own samples, {rows} of {length}"
            _tell(what, _moment(some), subjects, other, neighbours)
            shrunk = [f"{_shrinkage(_moment(some), n):.2g}" for n in (len(some), rows)]
            print(f"{'':28} shrinkage as a ridge: n tokens {shrunk[0]}, n samples {shrunk[1]}")
        later = keys[:, 1:48].flatten(0, 1)
        _tell("128 of 47, no first token", _moment(later), subjects, other, neighbours)


class Longer(OwnSamples):
    """Samples longer than emend's own."""

    @property
    def length(self) -> int:
        """See `OwnSamples`."""
        return 128


def _keys(
    view: ModelView, tokenizer: Any, source: Source, layer: int, limit: int | None = None
) -> Tensor:
    """(N, inner) keys of a source's tokens, start tokens left out."""
    found: list[Tensor] = []
    layout = Layout(256 if source.packed else 1 << 20, 8, limit)
    with torch.no_grad():
        for batch in batches_of(source, tokenizer, layout, Position()):
            keys = _passed(view, layer, batch.input_ids)
            found.append(keys if batch.real is None else keys[batch.real])
    keys = torch.cat(found)
    lengths = keys.norm(dim=1)
    print(
        f"{source.name}: {len(keys):,} tokens, longest key {lengths.max() / lengths.median():.1f} "
        "times the median"
    )
    return keys


def _passed(view: ModelView, layer: int, ids: Tensor) -> Tensor:
    """(B * T, inner) keys of one pass."""
    seen: list[Tensor] = []
    down = view.down_projection(layer)
    handle = down.register_forward_pre_hook(lambda _m, args: seen.append(args[0].flatten(0, 1)))
    model: Any = view.model
    with stopping(down, before=True):
        model(input_ids=ids, use_cache=False)
    handle.remove()
    return seen[0]


def _moment(keys: Tensor) -> Tensor:
    return keys.T @ keys / len(keys)


def _tell(
    what: str,
    moment: Tensor,
    subjects: Tensor,
    *others: Tensor,
    ridges: tuple[float, ...] = RIDGES,
) -> None:
    rows: list[str] = []
    for other in others:
        spilt = [1e3 * _spilt(moment, ridge, subjects, other) for ridge in ridges]
        rows.append(" ".join(f"{one:.3f}" for one in spilt))
    print(f"{what:28} {' | '.join(rows)}", flush=True)


def _spilt(moment: Tensor, ridge: float, subjects: Tensor, other: Tensor) -> float:
    """The median over subjects (E, inner) of what their changes do at other keys (N, inner)."""
    metric = inverse(moment, ridge)
    lines = metric.unwhiten(metric.whiten(subjects.T))  # (inner, E)
    reached = other.double() @ lines / (lines * subjects.T).sum(0)
    return float(reached.square().mean(0).median())


def _shrinkage(moment: Tensor, count: int) -> float:
    """The ridge that optimal linear shrinkage stands for (arXiv 1308.2608), n tokens or samples."""
    trace, square = moment.double().trace(), moment.double().square().sum()
    part = float(trace**2 / count / (square - trace**2 / len(moment)))
    return part / (1 - part) if part < 1 else float("inf")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", default="1,5")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--other_text", type=Path, required=True)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--subjects", type=int, default=150)
    return parser.parse_args()


if __name__ == "__main__":
    main()
