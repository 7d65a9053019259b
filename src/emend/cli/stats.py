"""`emend stats`: collect the key covariances that editors weigh keys by, before they are needed."""

from __future__ import annotations

import shutil
import time
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import integers
from emend.cli._options import flag
from emend.cli._output import print_json, print_table
from emend.errors import InvalidInput, NotEnoughMemory

EXAMPLES = _options.examples(
    "emend stats --model smollm2-135m                  # over texts that the model writes itself",
    "emend stats --model lab/gptneo                    # over the lab's corpus",
    "emend stats --model gpt2 --texts wiki.txt --layers 3,4,5",
    "emend stats --model gpt2 --texts notes.jsonl?field=body --tokens 100000",
    "emend stats --model gpt2 --texts wiki.txt --engine ray --workers 8",
    "emend stats --model gpt2 --layers all \\",
    "      --texts 'Salesforce/wikitext?config=wikitext-103-raw-v1&split=train'",
    "",
    "Editors take them from the cache when they are given the same texts, or none as here:",
    "  emend edit --model gpt2 --method memit --set texts=wiki.txt --edits edits.jsonl \\",
    "      --output_path patch/",
)


class Dtype(str, Enum):
    """Precisions of the sums."""

    float32 = "float32"
    float64 = "float64"


_Texts = Annotated[
    str | None,
    flag(
        "A text file (empty lines between documents), a JSONL (field text, or FILE?field=NAME)"
        ", a dataset on the hub or in a directory (NAME?config=C&split=S&field=F&revision=R), or "
        "lab; several are separated by commas. By default samples of the model's own; for models "
        "of the lab its corpus.",
        metavar="FILE|NAME",
    ),
]
_Layers = Annotated[
    str | None, flag("Such as 3,4,5, or all; by default those that editors take.", metavar="LIST")
]
_Tokens = Annotated[
    int | None,
    flag(
        "Stop there; by default 20 for each dimension of a key, and of the model's own "
        "samples 4 (16,384 at most).",
        min=1,
    ),
]


def command(
    *,
    model: _options.Model,
    texts: _Texts = None,
    layers: _Layers = None,
    tokens: _Tokens = None,
    window: Annotated[int, flag("Tokens read at once, at most.", min=1)] = 512,
    batch_size: Annotated[int | None, flag("Windows in one pass.", min=1)] = None,
    sum_dtype: Annotated[Dtype, flag("Of the sums; editors read float32.")] = Dtype.float32,
    ignore_memory: Annotated[bool, flag("Begin even if it seems not to fit.")] = False,
    engine: Annotated[str, flag("local, or ray: shards that add up (extra ray).")] = "local",
    workers: Annotated[int, flag("Processes of --engine ray.", min=1)] = 2,
    address: Annotated[str | None, flag("A cluster of Ray; by default one is started.")] = None,
    gpus: Annotated[float, flag("GPUs of each worker of Ray.", min=0)] = 0,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Collect key covariances in one pass; a run that was killed goes on where it was."""
    wanted = integers("--layers", layers)
    on_ray = _engine(engine, workers, address, gpus)
    import torch

    from emend.editing.collecting import cache_directory, collect_covariance, warn_of_few
    from emend.editing.sources import sources_named
    from emend.models import ModelView

    # refused before a model is loaded
    named = None if texts is None else sources_named(texts.split(","))
    network, tokenizer = loading.load(model)
    view = ModelView(network)
    chosen = view.editable if layers == "all" else _layers_of(view, wanted)
    source, count = _source(view, tokenizer, named, tokens, chosen)
    options: dict[str, Any] = {"max_tokens": count, "window": window, "batch_size": batch_size}
    options["dtype"] = getattr(torch, sum_dtype.value)
    estimate = _estimate(view, source, chosen, **options)
    if not json:
        typer.echo(_told(chosen, source.name, count, estimate))
    if not ignore_memory:
        _check_disk(estimate["disk"], cache_directory())
    started = time.perf_counter()
    options |= {"cache": cache_directory(), "ignore_memory": ignore_memory, "shards": on_ray}
    found = collect_covariance(view, tokenizer, source, chosen, **options)
    seconds = time.perf_counter() - started
    first = found[chosen[0]]
    warn_of_few(first.count, len(first.matrix), source)
    result = {
        **{"model": model, "source": source.name, "seconds": seconds, "estimate": estimate},
        "layers": [_row(layer, moment) for layer, moment in found.items()],
        "cache": cache_directory() if all(one.file for one in found.values()) else None,
    }
    print_json(result) if json else _tell(result)


def _engine(engine: str, workers: int, address: str | None, gpus: float) -> Any:
    """Return what runs the batches elsewhere; None where they run here."""
    if engine not in ("local", "ray"):
        raise InvalidInput(f"engine is {engine!r}, expected local or ray")
    if engine == "local":
        if address or gpus:
            raise InvalidInput("address and gpus need --engine ray: add it")
        return None
    from emend.bench import RayEngine, RayShards

    return RayShards(RayEngine(workers, address, gpus))


def _source(
    view: Any, tokenizer: Any, named: Any, tokens: int | None, layers: tuple[int, ...]
) -> tuple[Any, int | None]:
    """Return the texts to read, and the most tokens of it; None for all."""
    from emend.editing.collecting import TOKENS_PER_KEY
    from emend.editing.sources import OwnSamples, own_samples, texts_for

    source = texts_for(view, tokenizer, named)
    if isinstance(source, OwnSamples):
        return own_samples(view, tokenizer, tokens), None
    return source, tokens or TOKENS_PER_KEY * max(map(view.intermediate_size, layers))


def _layers_of(view: Any, wanted: list[int] | None) -> tuple[int, ...]:
    from emend.editing.layers import default_layers, single_layer

    if wanted is not None:
        chosen = tuple(sorted(view.numbered(wanted)))
        for layer in chosen:
            view.intermediate_size(layer)  # refuses what cannot be edited
        return chosen
    return tuple(sorted({*default_layers(view), single_layer(view, None)}))


def _estimate(
    view: Any, source: Any, layers: tuple[int, ...], *, dtype: Any, **options: Any
) -> dict[str, int | None]:
    from emend.editing.memory import available, estimate_covariance
    from emend.editing.token_batches import layout_for

    layout = layout_for(view, source, **options)
    needed = estimate_covariance(view, layers, dtype, layout.window * layout.rows)
    return {
        "sums": needed.sums,
        "activations": needed.activations,
        "disk": needed.disk,
        "available": available(view.device(layers[0])),
    }


def _check_disk(needed: int | None, directory: Path) -> None:
    from emend.editing.memory import readable

    place = next(part for part in (directory, *directory.parents) if part.exists())
    free = shutil.disk_usage(place).free
    if needed is not None and needed > free:
        raise NotEnoughMemory(
            f"key covariances will take {readable(needed)} on disk, and {readable(free)} are free "
            f"in {place}: set EMEND_CACHE to another place, or pass --ignore_memory"
        )


def _told(
    layers: tuple[int, ...], source: str, tokens: int | None, estimate: dict[str, int | None]
) -> str:
    from emend.editing.memory import readable

    said = {name: readable(size) for name, size in estimate.items() if size is not None}
    free = f" of {said['available']} free" if "available" in said else ""
    texts = source if tokens is None else f"{tokens:,} tokens at most of {source}"
    return (
        f"layers {', '.join(map(str, layers))} over {texts}\n"
        f"memory: {said['sums']} for sums, {said['activations']} for one batch{free}; "
        f"disk: {said['disk']}"
    )


def _row(layer: int, moment: Any) -> dict[str, Any]:
    matrix = moment.matrix
    return {
        "layer": layer,
        "inner": len(matrix),
        "tokens": moment.count,
        "left_out": moment.left_out,
        "dtype": str(matrix.dtype).removeprefix("torch."),
        "mean_square": float(matrix.diagonal().mean()),
    }


def _tell(result: dict[str, Any]) -> None:
    columns = ("layer", "inner", "tokens", "left_out", "dtype", "mean_square")
    rows = [
        [f"{row[name]:.4g}" if name == "mean_square" else str(row[name]) for name in columns]
        for row in result["layers"]
    ]
    title = f"Key covariances of {result['model']}"
    header = ("layer", "key size", "tokens", "left out", "dtype", "mean square")
    print_table(title, header, rows)
    kept = f"kept in {result['cache']}" if result["cache"] else "not kept"
    typer.echo(f"{result['seconds']:.1f} s, {kept}")
