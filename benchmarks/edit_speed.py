"""Time whole edits against plain loops of the published code's cost, and see that they agree.

    python benchmarks/edit_speed.py                  # rome, memit, alphaedit: some 6 CPU minutes
    python benchmarks/edit_speed.py --only rome
    python benchmarks/edit_speed.py --only memit --after 2
    python benchmarks/edit_speed.py --only alphaedit --steps 5
    python benchmarks/edit_speed.py --json

A random model of GPT-2 small's shape (12 blocks, width 768, keys of 3,072, vocabulary 50,257),
float32, one CPU thread, everything in one process, in CPU seconds. Both sides are given the same
contexts and the same key covariances, computed before; ours are timed by `emend.edit` as a whole,
looking at the model and describing it included.

  rome       the first edit of value_search.py: layer 5, 22 rows of up to 30 tokens, 20 steps; the
             plain loop has C^-1 ready
  memit      5 edits, layers 3 to 8, 6 contexts of up to 22 tokens, 25 steps, lambda 0.1 x 3,072
  alphaedit  the same, in the null space; its plain values are those of memit, sought once

The plain loops (`tests/reference`) seek one edit at a time, run the whole model over every token,
compute the vocabulary everywhere (memit's search twice in a step, as published), read the keys of
each layer by whole passes, and solve each layer by one system of 3,072 x 3,072 in float64.

The counted limit is the ratio of multiplications: of the plain loop over those that only what
changes needs (blocks above the layer, tokens from the subject on, the vocabulary where it is
scored, the last MLP likewise). A double counts as two floats.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from _shapes import (
    AFTER_COUNTS,
    BLOCK,
    DEPTH,
    HEAD,
    INNER,
    Words,
    contexts,
    difference,
    even_edits,
    load,
    machine_peak,
    ragged_edits,
    random_texts,
    small_model,
    table,
    timed,
)
from tests.reference import memit_published as published
from tests.reference import rome as reference
from tests.reference.closed_form import GPT2, with_ridge

import emend
from emend.editing import RIDGE, SearchSettings, optimise_values
from emend.editing.covariance import key_covariance, null_space
from emend.editing.sources import texts_for
from emend.edits import Edit
from emend.models import ModelView

ROME_LAYER, ROME_STEPS = 5, 20
LAYERS, STEPS, EDITS = (3, 4, 5, 6, 7, 8), 25, 5
WEIGHT = 0.1 * INNER
MOMENT_TOKENS = 4096


@dataclass(frozen=True)
class Counted:
    """Multiplications of a search: the plain loop's, and what is needed of them."""

    plain: float
    ours: float


def counted_search(rows: reference.Rows, layer: int, steps: int, heads: int) -> Counted:
    """Of one edit; ``heads`` is how often the plain loop computes the vocabulary in a step."""
    above, contexts = DEPTH - 1 - layer, len(rows.labels)
    lengths = rows.attention_mask.sum(1)
    padded = rows.input_ids.numel()  # the plain loop pads
    twice = rows.labels.numel() if heads == 2 else 0
    plain = padded * (BLOCK * (DEPTH + above) + 2 * HEAD) + twice * 2 * HEAD
    inside = int((lengths - torch.tensor(rows.lookup))[:contexts].sum()) + 1  # one of the KL row
    scored = contexts * len(rows.target_ids) + 1
    last = (4 * inside + 8 * scored) * BLOCK / 12  # its MLP only where something is scored
    ours = 2 * (inside * BLOCK * (above - 1) + last + scored * HEAD)
    everything = int(lengths[:contexts].sum()) + rows.lookup[-1] + 1
    return Counted(steps * plain, steps * ours + everything * BLOCK * DEPTH)


def counted_writing(rows: list[reference.Rows], update: str) -> Counted:
    """Of the keys, residuals and solutions of all layers."""
    each, first, last = len(LAYERS), LAYERS[0], LAYERS[-1]
    whole = BLOCK * DEPTH + HEAD
    keys = each * whole * sum(one.labels.numel() for one in rows)
    bare = each * whole * sum(int(one.attention_mask[0].sum()) for one in rows)
    system = 2 * INNER**3 * (1 / 3 + (update == "alphaedit"))  # P (K K^T) too
    upto = torch.tensor([one.lookup[:-1] for one in rows]) + 1  # (E, C)
    others = int(upto[:, 1:].sum()) * BLOCK * last
    again = first + sum(last - layer + 1 for layer in LAYERS) + each - 1
    ours = others + int(upto[:, 0].sum()) * BLOCK * again
    ours += each * 2 * 2 * INNER**2 * len(rows)  # whitened, and back
    return Counted(keys + bare + each * system, ours)


def rows_of(edits: list[Edit], tokenizer: Words, templates: tuple[str, ...]) -> list[Any]:
    """What the plain loops run."""
    return [
        reference.build_rows(tokenizer, edit.prompt, edit.subject, edit.target, templates)
        for edit in edits
    ]


def ours(model: Any, tokenizer: Words, edits: list[Edit], method: str, **settings: Any):
    """CPU seconds of `emend.edit`, and the patch."""
    return timed(lambda: emend.edit(model, tokenizer, edits, method, **settings))


def change_of(patch: Any, layer: int) -> torch.Tensor:
    """(width, inner), the patch's change of one layer."""
    (factor,) = [f for name, f in patch.factors.items() if f".{layer}." in name]
    change = torch.eye(INNER)
    for matrix in factor.matrices():
        change = matrix.float() @ change
    return change


def say(text: str) -> None:
    """Tell what has been done so far, beside the result."""
    print(text, file=sys.stderr, flush=True)


def run_rome(model: Any, tokenizer: Words, texts: tuple[str, ...]) -> dict[str, Any]:
    """One edit by ROME, both ways."""
    templates, edits = contexts(), ragged_edits(1)
    site = model.transformer.h[ROME_LAYER].mlp.c_proj
    view = ModelView(model)
    prior = key_covariance(view, tokenizer, [ROME_LAYER], texts_for(view, tokenizer, texts))
    moment = prior.matrix(ROME_LAYER)
    inverse = torch.linalg.inv(with_ridge(moment.double(), RIDGE)).float()
    settings: dict[str, Any] = {"layer": ROME_LAYER, "steps": ROME_STEPS}
    settings["ablation"] = {"norm_penalty": 0.5}
    settings |= {"templates": templates, "texts": texts}
    # The published objective and R-ROME's one key, in the engine's own order of sums.
    settings |= {"original": True, "cov_weight": 0.0}
    ours(model, tokenizer, edits, "emmet", **{**settings, "steps": 2})  # warm up, and factor C
    seconds, patch = ours(model, tokenizer, edits, "emmet", **settings)
    (rows,) = rows_of(edits, tokenizer, templates)

    def plain() -> torch.Tensor:
        found = reference.search_value(model, site, rows, steps=ROME_STEPS)
        seen: list[torch.Tensor] = []
        look = lambda _module, inputs, output: seen.extend((inputs[0], output))  # noqa: E731
        with torch.no_grad(), reference.hooked(site, look):
            model(input_ids=rows.input_ids[:-1], attention_mask=rows.attention_mask[:-1])
        places = torch.arange(len(rows.labels)), torch.tensor(rows.lookup[:-1])
        key, output = (tensor[places].mean(0).double() for tensor in seen)
        u = (inverse @ key.float()).double()
        return torch.outer((found.v_star - output) / (u @ key), u)

    say(f"rome: {seconds:.2f} s")
    plain_seconds, expected = timed(plain)
    limit = counted_search(rows, ROME_LAYER, ROME_STEPS, 1)
    keys = rows.labels.numel() * (BLOCK * DEPTH + HEAD)
    return {
        "method": "rome",
        "rows": len(rows.lookup),
        "tokens": rows.input_ids.shape[1],
        "after": AFTER_COUNTS[0],
        "plain": {"edit": plain_seconds},
        "ours": {"edit": seconds},
        "limit": {"edit": (limit.plain + keys) / limit.ours},
        "flops": {"edit": 2 * limit.ours},
        "aim": {"edit": 7.0},
        "agreement": {"edit": difference(change_of(patch, ROME_LAYER), expected)},
    }


def run_spread(
    model: Any,
    tokenizer: Words,
    texts: tuple[str, ...],
    names: list[str],
    *,
    after: int,
    steps: int,
) -> list[dict[str, Any]]:
    """Five edits by MEMIT and AlphaEdit, both ways; the plain search is run once for both."""
    templates, edits = contexts((11,), 5), even_edits(EDITS, before=3, after=after)
    view = ModelView(model)
    prior = key_covariance(view, tokenizer, LAYERS, texts_for(view, tokenizer, texts))
    settings = {"layers": LAYERS, "steps": steps, "templates": templates, "texts": texts}
    updates: dict[str, published.Update] = {}
    own: dict[str, dict[str, Any]] = {}
    if "memit" in names:
        moments = {n: with_ridge(prior.matrix(n).double(), RIDGE) for n in LAYERS}
        updates["memit"], own["memit"] = (
            published.memit_update(moments, WEIGHT),
            {"cov_weight": WEIGHT, "original": True},
        )
    projectors: dict[str, float] = {}
    if "alphaedit" in names:
        free: dict[int, torch.Tensor] = {}
        for layer in LAYERS:
            build = lambda n=layer: null_space(prior.spectrum(n), quantile=0.02)  # noqa: E731
            projectors["eigenvectors"], _ = timed(build)
            projectors["from the cache"], space = timed(build)
            free[layer] = (space.projector.basis @ space.projector.basis.T).float()
            say(f"eigenvectors of layer {layer}: {projectors['eigenvectors']:.1f} s")
        weights = dict.fromkeys(LAYERS, 10.0)
        updates["alphaedit"] = published.alphaedit_update(free, weights)
        own["alphaedit"] = {"norm_weight": 10.0, "quantile": 0.02}
    one = edits[:1]
    facts = [(edit.prompt, edit.subject, edit.target) for edit in edits]
    ordered = sorted(edits, key=lambda edit: edit.id)
    search = SearchSettings(steps=steps, clamp=0.75, share_subject=True, chunk=1)
    given = (view, tokenizer, ordered, templates, LAYERS[-1], search)
    seek = lambda: optimise_values(*given, site="block")  # noqa: E731
    prepared = rows_of(edits, tokenizer, templates)
    searches = [counted_search(rows, LAYERS[-1], steps, 2) for rows in prepared]
    counted = Counted(sum(one.plain for one in searches), sum(one.ours for one in searches))
    results: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for name in names:
        every = {**settings, **own[name]}
        ours(model, tokenizer, one, name, **{**every, "steps": 2})  # warm up, and factor C
        found[name] = *timed(seek), *ours(model, tokenizer, edits, name, **every)
        say(f"{name}: search {found[name][0]:.2f} s, whole edit {found[name][2]:.2f} s")
    built = published.build(
        model,
        tokenizer,
        facts,
        templates,
        LAYERS,
        GPT2,
        model.transformer.ln_f,
        updates,
        depth=DEPTH,
        steps=steps,
    )
    for name in names:
        search_seconds, targets, seconds, patch = found[name]
        say(
            f"{name}, plain: search {built[name].seconds.search:.2f} s, whole edit "
            f"{built[name].seconds.total:.2f} s"
        )
        plain, writing = built[name], counted_writing(prepared, name)
        order = [edits.index(edit) for edit in ordered]
        changes = [difference(change_of(patch, n), plain.changes[n]) for n in LAYERS]
        results.append(
            {
                "method": name,
                "rows": len(prepared[0].lookup),
                "tokens": prepared[0].input_ids.shape[1],
                "after": after,
                "plain": {
                    "edit": plain.seconds.total,
                    "search": plain.seconds.search,
                    "keys": plain.seconds.keys,
                    "residuals": plain.seconds.residuals,
                    "solve": plain.seconds.solve,
                },
                "ours": {
                    "edit": seconds,
                    "search": search_seconds,
                    "wall": dict(patch.timing),
                },
                "limit": {
                    "edit": (counted.plain + writing.plain) / (counted.ours + writing.ours),
                    "search": counted.plain / counted.ours,
                },
                "flops": {
                    "edit": 2 * (counted.ours + writing.ours),
                    "search": 2 * counted.ours,
                },
                "aim": {"edit": 10.0, "search": 12.0},
                "agreement": {
                    "edit": max(changes),
                    "search": difference(
                        torch.stack([one.target for one in targets]), plain.values[order]
                    ),
                },
                **({"projector": projectors} if name == "alphaedit" else {}),
            }
        )
    return results


def shown(results: list[dict[str, Any]], peak: float) -> str:
    """Ratios and agreement as a table."""
    head = ["", "after", "plain s", "ours s", "ratio", "aim", "counted", "difference", "of peak"]
    rows: list[list[Any]] = [head]
    for one in results:
        for part, limit in one["limit"].items():
            plain, ours_ = one["plain"][part], one["ours"][part]
            share = f"{one['flops'][part] / ours_ / 1e9 / peak:.0%}"
            name = f"{one['method']}, {'whole edit' if part == 'edit' else part}"
            row = [name, one["after"], plain, ours_, plain / ours_, one["aim"][part], limit]
            rows.append([*row, f"{one['agreement'][part]:.1e}", share])
    lines = [table(rows), ""]
    for one in results:
        parts = {part: s for part, s in one["plain"].items() if part != "edit"}
        if parts:
            spent = ", ".join(f"{part} {s:.1f}" for part, s in parts.items())
            lines.append(f"{one['method']}, after {one['after']}, plain loop: {spent} s")
        for what, number in one.get("projector", {}).items():
            lines.append(f"  projector of one layer, {what}: {number:.3g}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("rome", "memit", "alphaedit"), help="one method")
    parser.add_argument("--after", type=int, default=5, help="words after the subject; rome has 6")
    parser.add_argument("--steps", type=int, default=STEPS, help="of memit and alphaedit")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else ["rome", "memit", "alphaedit"]
    model, tokenizer, texts = small_model(), Words(), random_texts(MOMENT_TOKENS)
    with tempfile.TemporaryDirectory() as directory:
        os.environ["EMEND_CACHE"] = directory
        peak = machine_peak()
        started, results = time.perf_counter(), []
        if "rome" in names:
            results.append(run_rome(model, tokenizer, texts))
        spread = [name for name in names if name != "rome"]
        if spread:
            results += run_spread(
                model, tokenizer, texts, spread, after=arguments.after, steps=arguments.steps
            )
    note = {
        "peak_gflops": peak,
        "load": load(),
        "wall_seconds": time.perf_counter() - started,
    }
    if arguments.json:
        print(json.dumps({"results": results, **note}, indent=2))
        return
    print(shown(results, peak))
    print(f"\nmatrix products: {peak:.0f} GFLOP/s float32 on one thread; {load()}")


if __name__ == "__main__":
    main()
