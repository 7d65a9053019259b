"""`emend neurons`: the units that carry a fact."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import read_edits
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_table
from emend.edits import Edit
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    'emend neurons --model lab/gptneo --prompt "NAME was born in" \\',
    '      --prompt "The birthplace of NAME is" --prompt "NAME comes from the city of"',
    "emend neurons --model lab/gptneo --edits lab --limit 20",
    "emend neurons --model gpt2 --edits edits.jsonl --threshold 0.3",
)


@dataclass(frozen=True)
class Attribution:
    """The flags that say how units are found."""

    threshold: Annotated[float, flag("Least share of the largest attribution, by wording.")] = 0.2
    share: Annotated[float, flag("In more than this share of the wordings.")] = 0.5
    steps: Annotated[int, flag("Steps of the integration.", min=1)] = 20
    seed: _options.Seed = 0


_Prompt = Annotated[
    list[str] | None, flag("A wording of the fact up to its answer. May be repeated.")
]
_Answer = Annotated[
    str | None, flag("The answer; by default what the model says after the first wording.")
]
_Edits = Annotated[
    str | None,
    flag("Instead of --prompt: the originals of a file's edits, or of lab's.", metavar="FILE|lab"),
]


def command(
    *,
    model: _options.Model,
    prompt: _Prompt = None,
    answer: _Answer = None,
    edits: _Edits = None,
    limit: Annotated[int, flag("Take at most this many edits.", min=1)] = 20,
    how: Attribution,
    top: Annotated[int, flag("Units that are shown.", min=1)] = 10,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Find the units of MLPs that carry a fact (knowledge neurons), and measure what they do.

    Each unit's share in the probability of the answer is found by integrated gradients; units that
    stand out in most wordings are kept. Then the answer's probability is measured without them, and
    with them doubled, and the same for as many units drawn at random.

    With --edits, the originals of a file's edits are taken, each in its own wording and in its
    rephrasings, and the changes are averaged.
    """
    facts = _facts(prompt, answer, edits, limit)
    from emend import datasets, locate
    from emend.models import ModelView

    network, tokenizer = loading.load(model)
    view = ModelView(network)
    if facts is None:
        facts = [_asked(edit) for edit in datasets.load("lab", limit=limit, seed=how.seed)]
    found = [
        locate.study(
            view, tokenizer, prompts, said or _said(network, tokenizer, prompts), **vars(how)
        )
        for prompts, said in facts
    ]
    if edits is None:
        result: dict[str, Any] = {"model": model, **found[0].to_dict()}
    else:
        result = {"model": model, **_means(found), "facts": [one.to_dict() for one in found]}
    if json:
        print_json(result)
    elif edits is None:
        _tell(view, tokenizer, found[0], top)
    else:
        _tell_means(result)


Fact = tuple[list[str], str | None]
"""Wordings and the answer."""


def _facts(
    prompts: list[str] | None, answer: str | None, edits: str | None, limit: int
) -> list[Fact] | None:
    """Return the facts that flags ask about; None for those of the lab."""
    if edits is not None and (prompts or answer is not None):
        raise InvalidInput("--edits is given with --prompt or --answer: take one way")
    if edits == "lab":
        return None
    if edits is not None:
        return [_asked(edit) for edit in read_edits(Path(edits), limit)]
    if not prompts:
        raise InvalidInput("nothing is asked, expected --prompt, or --edits FILE: add one")
    return [(prompts, answer)]


def _asked(edit: Edit) -> Fact:
    return [edit.text, *(probe.prompt for probe in edit.probes_of("rephrase"))], edit.original


def _said(network: Any, tokenizer: Any, prompts: list[str]) -> str:
    from emend.models import top1

    ((token, _),) = top1(network, tokenizer, prompts[:1])
    return str(tokenizer.decode([token]))


def _means(found: list[Any]) -> dict[str, Any]:
    def mean(values: list[float]) -> float:
        kept = [value for value in values if not isnan(value)]
        return sum(kept) / len(kept) if kept else float("nan")

    changes = {
        group: {
            name: mean([getattr(getattr(one, group), name) for one in found])
            for name in ("suppression", "amplification")
        }
        for group in ("effect", "control")
    }
    return {"units_per_fact": mean([float(len(one.units)) for one in found]), **changes}


def _tell(view: Any, tokenizer: Any, found: Any, top: int) -> None:
    from emend.locate.memories import values_read

    wordings = "1 wording" if len(found.prompts) == 1 else f"{len(found.prompts)} wordings"
    layers = sorted({layer for layer, _ in found.units})
    typer.echo(
        f"{found.prompts[0]} → {found.answer.strip()}: {len(found.units)} units in "
        f"{len(layers)} of {view.num_layers} layers, from {wordings}"
    )
    rows: list[list[str]] = []
    for (layer, unit), value in list(zip(found.units, found.attributions, strict=True))[:top]:
        best = values_read(view, layer, [unit])[0].topk(4).indices.tolist()
        said = "  ".join(str(tokenizer.decode([token])).strip() for token in best)
        rows.append([str(layer), str(unit), f"{100 * value:.2f}", said])
    head = ("layer", "unit", "attribution, points", "its value says")
    print_table(f"the strongest {len(rows)}", head, rows)
    _tell_changes(
        f"P({found.answer.strip()}) is {percent(found.effect.before)}; it changes",
        found.effect.to_dict(),
        found.control.to_dict(),
    )


def _tell_means(result: dict[str, Any]) -> None:
    count = len(result["facts"])
    typer.echo(f"{count} facts, {number(result['units_per_fact'], 1)} units a fact")
    _tell_changes(
        "the probability of the answer changes, mean over facts",
        result["effect"],
        result["control"],
    )


def _tell_changes(title: str, effect: dict[str, float], control: dict[str, float]) -> None:
    print_table(
        title,
        ("units", "without them", "doubled"),
        [
            [name, percent(one["suppression"]), percent(one["amplification"])]
            for name, one in (("these", effect), ("as many at random", control))
        ],
    )
