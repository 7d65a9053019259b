"""`emend memory`: what triggers units of MLPs, and what they then say."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_table
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend memory --model lab/gptneo",
    "emend memory --model lab/gptneo --layer 5",
    "emend memory --model gpt2 --layer 10 --unit 17 --texts corpus.txt",
)


_Texts = Annotated[
    str | None,
    flag(
        "A text file, a JSONL, a dataset, or lab; several are separated by commas. By "
        "default the lab's for its models, and for others what the model writes itself.",
        metavar="FILE|NAME",
    ),
]


def command(
    *,
    model: _options.Model,
    layer: Annotated[int | None, flag("A block; without it, all are compared.")] = None,
    unit: Annotated[int | None, flag("One unit of --layer; else the strongest.")] = None,
    texts: _Texts = None,
    limit: Annotated[int, flag("Read at most this many texts.", min=1)] = 1000,
    top: Annotated[int, flag("Triggers, tokens and units that are shown.", min=1)] = 10,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Read MLPs as key-value memories.

    A unit's key is what triggers it: the prefixes of texts at whose end its activation is largest.
    Its value is what it adds, read through the unembedding. Without --layer, reports by
    layer how often the most probable token of a unit's value follows its first trigger.
    """
    if unit is not None and layer is None:
        raise InvalidInput(f"--unit {unit} is given without --layer, expected both: add it")
    from emend.editing.sources import sources_named, texts_for
    from emend.locate import Memories
    from emend.models import ModelView

    # refused before a model is loaded
    named = None if texts is None else sources_named(texts.split(","))
    network, tokenizer = loading.load(model)
    view = ModelView(network)
    source = texts_for(view, tokenizer, named)
    layers = None if layer is None else [layer]
    documents = islice(source.documents(), limit)
    memories = Memories(view, tokenizer, documents, layers=layers, top=top)
    result: dict[str, Any] = {"model": model, "texts": source.name, "prefixes": memories.tokens}
    agreement = memories.agreement()
    result["agreement"] = [dataclasses.asdict(one) for one in agreement]
    units: list[Any] = []
    if layer is not None:
        chosen = memories.strongest(layer, top) if unit is None else [unit]
        units = [memories.unit(layer, each, words=top) for each in chosen]
        result["units"] = [_plain(one) for one in units]
    print_json(result) if json else _tell(result, units, is_one=unit is not None)


def _plain(memory: Any) -> dict[str, Any]:
    return {
        "layer": memory.layer,
        "unit": memory.unit,
        "triggers": [one._asdict() for one in memory.triggers],
        "value": [one._asdict() for one in memory.value],
        "agrees": memory.agrees,
    }


def _tell(result: dict[str, Any], units: list[Any], *, is_one: bool) -> None:
    typer.echo(f"{result['prefixes']:,} prefixes of {result['texts']}")
    if is_one:
        _tell_unit(units[0])
        return
    rows = [
        [str(row["layer"]), str(row["units"]), percent(row["rate"]), percent(row["chance"])]
        for row in result["agreement"]
    ]
    print_table(
        f"{result['model']}: how often a value's token follows its first trigger",
        ("layer", "units", "agreement", "by chance"),
        rows,
    )
    if units:
        print_table(
            f"layer {units[0].layer}: the units that add most",
            ("unit", "first trigger", "followed by", "value says"),
            [_row(one) for one in units],
        )


def _row(one: Any) -> list[str]:
    said = "  ".join(f"{token.strip()} {percent(chance)}" for token, chance in one.value[:3])
    first = one.triggers[0]
    return [str(one.unit), _line(first.text), first.following.strip(), said]


def _tell_unit(one: Any) -> None:
    print_table(
        f"unit {one.unit} of layer {one.layer}: what triggers it",
        ("prefix", "activation", "followed by"),
        [[_line(t.text), number(t.coefficient), t.following.strip()] for t in one.triggers],
    )
    print_table(
        "what its value says",
        ("token", "probability"),
        [[said.token.strip(), percent(said.chance)] for said in one.value],
    )
    typer.echo("the first of these follows the first trigger" if one.agrees else "they differ")


def _line(text: str) -> str:
    return " ".join(text.split())
