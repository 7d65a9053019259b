"""`emend multihop`: edit, then ask questions whose answers follow from several facts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import check_log, keep_answers, output_directory
from emend.cli._options import flag
from emend.cli._output import deliver, number, percent, print_table
from emend.cli._settings import as_data

EXAMPLES = _options.examples(
    "emend multihop --model lab/qwen3 --method mello --edits_at_once 100",
    "emend multihop --model lab/qwen3 --method memit --limit 30 --output_path results/",
    "emend multihop --model MODEL --method mello --dataset mquake --path MQuAKE-CF-3k-v2.json",
    "emend multihop --model openai:NAME --base_url http://127.0.0.1:8000/v1 --method mello \\",
    "      --output_path results/ --log_samples",
    "",
    "With an endpoint and --output_path, its answers are kept there (answers.jsonl), and a run",
    "that stopped goes on from them.",
)
COLUMNS = ("multi_hop", "questions", "edit_wise", "instance_wise", "old_answer")


_EditsAtOnce = Annotated[int | None, flag("Edits in the model at once; all by default.", min=1)]


def command(
    *,
    model: _options.Model,
    method: _options.Method = "mello",
    dataset: Annotated[str, flag("lab, mquake, or another with such questions.")] = "lab",
    path: Annotated[Path | None, flag("The dataset's file.", metavar="FILE")] = None,
    edits_at_once: _EditsAtOnce = None,
    limit: Annotated[int | None, flag("Take at most this many instances.", min=1)] = None,
    seed: _options.Seed = 0,
    settings: _options.Settings,
    batch_size: _options.BatchSize = 32,
    output_path: _options.OutputPath = None,
    log_samples: _options.LogSamples = False,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Edit facts and ask multi-hop questions about them: MQuAKE's measures.

    multi_hop: one of an instance's three questions is answered right; questions: share of all
    questions; edit_wise: edited facts recalled; instance_wise: every fact of an instance recalled;
    old_answer: the answer of before is given.
    """
    check_log(log_samples, output_path)
    output_directory(output_path)
    from emend import api, datasets
    from emend.metrics import evaluate_multi_hop

    instances = datasets.load_multi_hop(dataset, limit=limit, seed=seed, path=path)
    chosen = settings.of(method)
    network, tokenizer = loading.load(model)
    keep_answers(network, output_path)
    report = evaluate_multi_hop(
        network,
        tokenizer,
        instances,
        lambda edits: api.edit(network, tokenizer, edits, method=method, probes="none", **chosen),
        edits_at_once=edits_at_once,
        batch_size=batch_size,
    )
    report.settings.update(
        method=method, method_settings=as_data(chosen), dataset=dataset, seed=seed
    )
    title = f"{method} on {model}, {dataset}"
    show = partial(_show, title)
    deliver(report, show, json=json, output_path=output_path, samples=log_samples)


def _show(title: str, summary: dict[str, Any]) -> None:
    rows = [[f"{hops} hops", *_cells(shares)] for hops, shares in summary["by_hops"].items()]
    print_table(title, ("", "n", *COLUMNS), [*rows, ["all", *_cells(summary)]])
    if "failures" in summary:
        steps, failed = summary["answered_in_steps"], summary["failures"]
        typer.echo(f"answered in steps: {steps} questions, of which could not be read: {failed}")


def _cells(shares: dict[str, Any]) -> list[str]:
    return [number(shares["n"]), *(percent(shares[name]) for name in COLUMNS)]
