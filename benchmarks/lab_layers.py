"""Whether a fact is best edited where tracing finds it: effects and edits, block by block.

    python benchmarks/lab_layers.py lab/gptneo [--facts 40] [--output_path FILE.svg]

Hase et al. 2023, "Does Localization Inform Editing?", arXiv 2301.04213. For each fact and each
block: the indirect effect of restoring the subject's last token there, and how well ROME's edit of
that block, alone on the clean model, says the new answer in the fact's own wording and in others,
by their rewrite score (P' - P) / (1 - P). Printed are both by block, their correlations, and how
much of the variance of edits the block alone explains, and the block with the effect.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import torch
from _shapes import load as machine_load
from _shapes import rank_correlation
from torch import Tensor

import emend
from emend import datasets
from emend.edits import Edit
from emend.locate import trace
from emend.models import join_target, score, top1

KINDS = ("state", "mlp")
SPARE = 2
"""Edits drawn for each fact that is wanted: not all originals are known."""


def known(model: Any, tokenizer: Any, drawn: Sequence[Edit]) -> list[Edit]:
    """Those edits with rephrasings whose original is what the model says."""
    drawn = [edit for edit in drawn if edit.original and edit.probes_of("rephrase")]
    said = top1(model, tokenizer, [edit.text for edit in drawn])
    return [
        edit
        for edit, (token, _) in zip(drawn, said, strict=True)
        if join_target(tokenizer, edit.text, edit.original or "")[1][0] == token
    ]


def rewrite(model: Any, tokenizer: Any, edit: Edit, patch: Any) -> tuple[float, float]:
    """(P' - P) / (1 - P) of the new answer, in the fact's own wording, and the mean of others."""
    prompts = [edit.text, *(probe.prompt for probe in edit.probes_of("rephrase"))]

    def chances() -> list[float]:
        return [
            exp(one.total) for one in score(model, tokenizer, prompts, [edit.target] * len(prompts))
        ]

    before = chances()
    with patch.applied(model):
        after = chances()
    found = [(b - a) / (1 - a) for a, b in zip(before, after, strict=True)]
    return found[0], sum(found[1:]) / len(found[1:])


def measured(
    model: Any, tokenizer: Any, edits: Sequence[Edit], draws: int, window: int
) -> dict[str, Tensor]:
    """(facts, layers) of each kind of effect at the subject's last token, and of edits."""
    effects: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    own: list[list[float]] = []
    others: list[list[float]] = []
    settings = {"kinds": KINDS, "draws": draws, "window": window}
    for edit in edits:
        found = trace(model, tokenizer, edit.prompt, edit.subject, edit.original, **settings)
        for kind in KINDS:
            effects[kind].append(found.effects[kind][found.last])
        depth = found.effects["state"].shape[1]
        pairs = [
            rewrite(
                model, tokenizer, edit, emend.edit(model, tokenizer, [edit], "rome", layer=layer)
            )
            for layer in range(depth)
        ]
        own.append([pair[0] for pair in pairs])
        others.append([pair[1] for pair in pairs])
    tables = {kind: torch.stack(rows).double() for kind, rows in effects.items()}
    return {
        **tables,
        "own wording": torch.tensor(own).double(),
        "others": torch.tensor(others).double(),
    }


def explained(success: Tensor, effect: Tensor | None) -> float:
    """R^2 of (facts, layers) by the layer, and by an effect too: the same slope in all layers."""
    rest = success - success.mean(0)
    if effect is not None:
        apart = effect - effect.mean(0)
        slope = (rest * apart).sum() / apart.square().sum().clamp_min(1e-30)
        rest = rest - slope * apart
    return 1 - float(rest.square().sum() / (success - success.mean()).square().sum())


def tell(found: dict[str, Tensor]) -> None:
    """Print both by layer, and what one says of the other."""
    depth = found["state"].shape[1]
    print("| block | state, points | MLP, points | rewrite, own wording | rewrite, others |")
    print("|---|---|---|---|---|")
    for layer in range(depth):
        cells = [f"{100 * values[:, layer].mean():.1f}" for values in found.values()]
        print(f"| {layer} | {' | '.join(cells)} |")
    for goal in ("own wording", "others"):
        success = found[goal]
        best = int(success.mean(0).argmax())
        print(f"\nedits, {goal}: best at block {best}")
        for kind in KINDS:
            effect = found[kind]
            within = [
                rank_correlation(effect[:, layer], success[:, layer])
                for layer in range(depth)
                if effect[:, layer].std() > 0 and success[:, layer].std() > 0
            ]
            means = rank_correlation(effect.mean(0), success.mean(0))
            alone, both = explained(success, None), explained(success, effect)
            hits = (effect.argmax(1) == success.argmax(1)).double().mean()
            print(
                f"  {kind:6} peak at block {int(effect.mean(0).argmax())}; rank correlation over "
                f"blocks {means:+.2f}, over facts within a block {sum(within) / len(within):+.2f}; "
                f"R^2 of the block {alone:.3f}, with the effect {both:.3f}; the fact's own peak is "
                f"its best block {100 * hits:.0f}%"
            )


def draw(found: dict[str, Tensor], path: Path) -> None:
    """Effects and edits by block, one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    plot = figure.subplots()
    looks = {
        "state": ("#d55e00", "-", "s", "effect of states"),
        "mlp": ("#cc79a7", "--", "D", "effect of MLPs"),
        "own wording": ("#0072b2", "-", "o", "edits, own wording"),
        "others": ("#009e73", "--", "^", "edits, other wordings"),
    }
    for key, (colour, line, marker, label) in looks.items():
        mean = 100 * found[key].mean(0)
        style = {"color": colour, "linestyle": line, "marker": marker, "markersize": 4}
        plot.plot(range(len(mean)), mean.tolist(), label=label, **style)
    plot.set_xlabel("block")
    plot.set_ylabel("points; rewrite score, percent", fontsize=9)
    plot.set_xticks(range(found["state"].shape[1]))
    plot.set_title(f"traced and edited: means over {len(found['state'])} facts", fontsize=9)
    figure.legend(loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else {})


def main() -> None:
    """Trace and edit facts of the lab."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="lab/gptneo, lab/qwen3, or with --edits any other")
    parser.add_argument("--edits", type=Path, help="FILE with originals and rephrasings")
    parser.add_argument("--facts", type=int, default=40)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--window", type=int, default=3, help="layers of MLP restored together")
    parser.add_argument("--output_path", type=Path, help="FILE.png or .svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(arguments.model)
    if arguments.edits:
        drawn = emend.read_edits(arguments.edits)
    else:
        drawn = datasets.load("lab", limit=SPARE * arguments.facts)
    edits = known(model, tokenizer, drawn)[: arguments.facts]
    found = measured(model, tokenizer, edits, arguments.draws, arguments.window)
    print(f"{arguments.model}: {len(edits)} facts, {arguments.draws} draws of noise, MLPs in a ")
    print(f"window of {arguments.window}; rome at every block; {machine_load()}")
    tell(found)
    if arguments.output_path:
        draw(found, arguments.output_path)


if __name__ == "__main__":
    main()
