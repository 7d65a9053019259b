"""`emend eval`: measure what a saved patch changes, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from emend._io import write_json, write_json_lines
from emend.cli import _options
from emend.cli._given import (
    check_log,
    check_probes,
    keep_answers,
    output_directory,
    read_edits,
    read_patch_early,
)
from emend.cli._options import flag
from emend.cli._output import number, print_blast, print_json, print_rich
from emend.edits import Edit
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.bench import Tasks
    from emend.metrics import Judge, RealisticReport, Report
    from emend.patches import BlastRadius, Patch

EXAMPLES = _options.examples(
    "emend eval --model lab/gptneo --patch patch/ --output_path results/",
    "emend eval --model lab/gptneo --patch patch/ --edits edits.jsonl --json",
    "emend eval --model smollm2-135m --patch patch/ --tasks arc_easy,hellaswag --task_limit 200",
    "emend eval --model smollm2-135m --patch patch/ --realistic --judge openai-chat:NAME \\",
    "      --judge_url http://127.0.0.1:8000/v1",
    "emend eval --model openai:NAME --base_url http://127.0.0.1:8000/v1 --patch patch/ \\",
    "      --output_path results/ --log_samples",
)


_Patch = Annotated[
    Path, flag("What `emend edit` wrote, or a LoRA adapter of PEFT or in GGUF.", metavar="PATH")
]
_AllowOtherBase = Annotated[bool, flag("Measure on a model with other weights than its own too.")]
_Tasks = Annotated[
    str | None,
    flag("Tasks of lm-evaluation-harness, by commas; needs emend[lmeval].", metavar="NAMES"),
]
_IncludePath = Annotated[
    Path | None, flag("Task files of one's own: only these are known.", metavar="DIRECTORY")
]
_Realistic = Annotated[
    bool, flag("Also let the model answer freely, up to a full stop or line break.")
]
_JudgeName = Annotated[
    str | None, flag("Who judges it: openai:NAME or openai-chat:NAME.", metavar="MODEL")
]


def command(
    *,
    model: _options.Model,
    patch: _Patch,
    edits: _options.Edits = None,
    output_path: _options.OutputPath = None,
    batch_size: _options.BatchSize = 32,
    limit: _options.Limit = None,
    log_samples: _options.LogSamples = False,
    allow_other_base: _AllowOtherBase = False,
    probes: _options.Probes = "auto",
    tasks: _Tasks = None,
    include_path: _IncludePath = None,
    task_limit: Annotated[int | None, flag("Documents of each task.", min=1)] = None,
    fluency: Annotated[bool, flag("Also how varied a text is after each edit's prompt.")] = False,
    realistic: _Realistic = False,
    in_chat: Annotated[bool, flag("Ask that in the tokenizer's chat template.")] = False,
    judge: _JudgeName = None,
    judge_url: Annotated[str | None, flag("The judge's address.", metavar="URL")] = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Measure a patch: the metrics before and after, on --edits or on the edits it holds.

    A patch holds its edits without their probes: those come with --edits, and generalization,
    portability and locality are measured with them. For edits without any, emend makes probes
    from the edit and the model (of more than 20 such edits, for a sample of 20); --probes given
    makes none. --tasks also runs tasks of lm-evaluation-harness before and after, --realistic
    lets it answer freely and a language model judge.

    With --output_path, records.jsonl (one line per question) and summary.json are written there.
    """
    given = read_edits(edits, limit) if edits else None
    check_log(log_samples, output_path)
    output_directory(output_path)
    check_probes(probes)
    from emend import bench, patches

    if (in_chat or judge or judge_url) and not realistic:
        raise InvalidInput("in_chat, judge and judge_url need --realistic: add it")
    asking = _Asking(in_chat, _judge(judge, judge_url, output_path)) if realistic else None
    names = [] if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    wanted_tasks = bench.tasks_of(names, include_path and str(include_path), task_limit)
    loaded = read_patch_early(patch)
    wanted = _edits(given, loaded.edits if loaded else (), patch)[:limit]
    network, tokenizer = loading.load(model)
    loaded = loaded or patches.load_patch(patch, network)
    keep_answers(network, output_path)
    found = _measured(
        *(network, tokenizer, loaded, wanted),
        probes=probes,
        batch_size=batch_size,
        allow_other_base=allow_other_base,
        fluency=fluency,
        tasks=wanted_tasks,
        realistic=asking,
    )
    if output_path:
        _save(found, output_path, log_samples)
    if json:
        print_json({"model": model, "patch": patch, "edits": len(wanted), **_record(found)})
        return
    _tell(found, f"{patch} on {model}, edits: {len(wanted)}")
    if output_path:
        typer.echo(f"written to {output_path}")


def _judge(name: str | None, url: str | None, output_path: Path | None) -> Judge | None:
    """Return the judge of a name, whose verdicts are kept with the results."""
    from emend import bench

    verdicts = None if output_path is None else output_path / bench.VERDICTS
    return None if name is None else bench.judge_of(name, url, verdicts)


def _print_pairs(values: Mapping[str, Mapping[str, Any]]) -> None:
    """Print values before and after by name."""
    for name, value in values.items():
        before = f"{number(value['before'], 4)} before, " if "before" in value else ""
        typer.echo(f"{name}: {before}{number(value['after'], 4)} after")


class _Asking(NamedTuple):
    """How edits are asked realistically."""

    in_chat: bool
    judge: Judge | None


class _Found(NamedTuple):
    """What was measured.

    Attributes:
        report: Every metric before and after.
        radius: What else changed.
        samples: What patches logged.
        probed: Whether there were probes.
        tasks: Results of lm-evaluation-harness; None where none was asked for.
        answers: What was answered freely, likewise.
    """

    report: Report
    radius: BlastRadius | None
    samples: list[Any]
    probed: bool
    tasks: dict[str, dict[str, Any]] | None
    answers: RealisticReport | None


def _save(found: _Found, output_path: Path, log_samples: bool) -> None:
    found.report.save(output_path)
    if found.tasks is not None:
        write_json(output_path / "tasks.json", found.tasks)
    if found.answers is not None:
        write_json(output_path / "realistic.json", found.answers.to_dict())
    if log_samples:
        write_json_lines(output_path / "traces.jsonl", found.samples)


def _record(found: _Found) -> dict[str, Any]:
    further = {} if found.tasks is None else {"tasks": found.tasks}
    further |= {} if found.answers is None else {"realistic": found.answers.summary}
    radius = found.radius and found.radius.to_dict()
    return {**found.report.to_dict(), "blast": radius, **further}


def _tell(found: _Found, title: str) -> None:
    from emend.report import terminal

    print_rich(terminal(found.report, title))
    typer.echo("before and after by exact match of the greedy answer; the last two columns after")
    if not found.probed:
        typer.echo("no probes, so only the edits themselves were asked: give --edits with probes")
    print_blast(found.radius)
    _print_pairs(found.tasks or {})
    _print_pairs({} if found.answers is None else found.answers.summary)


def _measured(
    network: Any,
    tokenizer: Any,
    patch: Patch,
    edits: list[Edit],
    *,
    probes: str,
    batch_size: int,
    allow_other_base: bool,
    fluency: bool,
    tasks: Tasks | None,
    realistic: _Asking | None,
) -> _Found:
    from emend import api, metrics, models
    from emend import probes as measure

    bare = {edit.id for edit in edits if not edit.probes}
    names = metrics.registry().names() if fluency else None
    edits = measure.with_probes(network, tokenizer, edits, probes)
    before = measure.plain_perplexity(network, tokenizer) if probes != "none" else None
    with patch.applied(network, allow_other_base=allow_other_base):
        after = measure.plain_perplexity(network, tokenizer) if probes != "none" else None
        report = api.evaluate(network, tokenizer, edits, metrics=names, batch_size=batch_size)
        samples = [one for each in models.attachments(network) for one in each.samples()]
        abilities = tasks and tasks.compare(network, tokenizer)
        answers = realistic and metrics.evaluate_realistic(
            *(network, tokenizer, edits),
            judge=realistic.judge,
            in_chat=realistic.in_chat,
            batch_size=batch_size,
        )
    made = any(edit.probes and edit.id in bare for edit in edits)
    radius = measure.radius_of_records(
        report.records, edits, perplexities=(before, after), made=made
    )
    return _Found(report, radius, samples, any(edit.probes for edit in edits), abilities, answers)


def _edits(given: list[Edit] | None, kept: tuple[Edit, ...], patch: Path) -> list[Edit]:
    if given is None and not kept:
        raise InvalidInput(f"{patch} holds no edits to ask about, expected --edits FILE: add it")
    return given if given is not None else list(kept)
