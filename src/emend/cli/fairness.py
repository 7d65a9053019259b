"""`emend fairness`: stereotypes in sentences and pronouns, before and after a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from emend import datasets
from emend.cli import _options
from emend.cli._given import read_patch_early
from emend.cli._options import flag
from emend.cli._output import number, print_json, print_table
from emend.errors import InvalidInput
from emend.fairness import Occupations, read_occupations, shipped_occupations

EXAMPLES = _options.examples(
    "emend fairness --model smollm2-135m --data stereoset dev.json",
    "emend fairness --model smollm2-135m --data crows_pairs crows_pairs_anonymized.csv \\",
    "      --patch patch/ --json",
    "",
    "Without --data: how far apart P(he) and P(she) are after occupations.",
    "emend fairness --model smollm2-135m --patch patch/",
    "emend fairness --model lab/gptneo --occupations jobs.txt --templates sentences.txt",
)

_MEASURES = {
    "stereoset": (("ss", "SS"), ("lms", "LMS"), ("icat", "ICAT")),
    "crows_pairs": (
        ("preferred", "stereotype preferred, %"),
        ("stereo", "in stereo pairs"),
        ("antistereo", "in antistereo pairs"),
    ),
    "pronouns": (
        ("gap", "|P(a) - P(b)|"),
        ("log_ratio", "|log P(a)/P(b)|"),
        ("lean", "log P(a)/P(b)"),
        ("mass", "P(a) + P(b)"),
    ),
}
_NOTES = {
    "stereoset": "SS: 50 is ideal; LMS and ICAT: 100. In brackets 95% intervals over records.",
    "crows_pairs": "50 is ideal. In brackets 95% intervals over pairs.",
    "pronouns": "Means over prompts, in brackets 95% intervals over occupations.",
}


def command(
    *,
    model: _options.Model,
    data: Annotated[
        tuple[str, Path] | None,
        flag(
            "A dataset and its file: stereoset or crows_pairs, and a path.",
            metavar="NAME FILE",
        ),
    ] = None,
    occupations: Annotated[
        Path | None,
        flag("Occupations to measure pronouns of, one a line or JSON; some ship.", metavar="FILE"),
    ] = None,
    templates: Annotated[
        Path | None, flag('Templates, one a line, with "{}" for the occupation.', metavar="FILE")
    ] = None,
    held_out: Annotated[
        int,
        flag(
            "Measure every n-th occupation and template, which `emend debias` leaves out; 0: all."
        ),
    ] = 0,
    patch: Annotated[
        Path | None, flag("Measure before and after this patch.", metavar="DIRECTORY")
    ] = None,
    scoring: Annotated[
        str | None,
        flag("A sentence's score: mean (of its tokens' log-probabilities) or sum.", metavar="WORD"),
    ] = None,
    limit: Annotated[int | None, flag("Take this many records, drawn by --seed.", min=1)] = None,
    seed: _options.Seed = 0,
    batch_size: _options.BatchSize = 32,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Measure stereotypes: StereoSet, CrowS-Pairs, or pronouns after occupations."""
    if scoring not in (None, "mean", "sum"):
        raise InvalidInput(f"--scoring is {scoring!r}, expected mean or sum: take one of them")
    if data is not None and (occupations or templates):
        raise InvalidInput("both --data and --occupations are given, expected one of them")
    records: Any = None
    subjects: Occupations | None = None
    if data is None:
        subjects = given_occupations(occupations, templates).split(held_out)[1]
    else:
        records = datasets.load_comparisons(data[0], data[1], limit=limit, seed=seed)
    early = None if patch is None else read_patch_early(patch)
    from emend import fairness
    from emend.patches import load_patch

    network, tokenizer = loading.load(model)
    change = load_patch(patch, network) if patch is not None and early is None else early
    if subjects is None:
        found: Any = fairness.sentence_bias(
            network, tokenizer, records, change, scoring=scoring, batch_size=batch_size
        )
        result: dict[str, Any] = found.to_dict()
    else:
        found = fairness.pronoun_gap(network, tokenizer, subjects, change, batch_size=batch_size)
        result = {"dataset": "pronouns", **found.to_dict()}
    if json:
        print_json({"model": model, "patch": patch, **result})
        return
    print_fairness(result)


def given_occupations(occupations: Path | None, templates: Path | None) -> Occupations:
    """Read the occupations and templates that flags name, or those that ship."""
    if occupations is None and templates is None:
        return shipped_occupations()
    if occupations is None:
        raise InvalidInput("--templates is given without --occupations: give both")
    return read_occupations(occupations, templates)


def print_fairness(result: Mapping[str, Any], title: str = "") -> None:
    """Print one measurement as a table: for each bias type a line, or with a patch three."""
    dataset = result["dataset"]
    parts = result.get("bias_types") or {"": {"count": result.get("prompts"), **result}}
    measures = _MEASURES[dataset]
    pair: Sequence[str] = result.get("pair") or ("a", "b")
    names = [
        name.replace("(a)", f"({pair[0]})").replace("(b)", f"({pair[1]})") for _, name in measures
    ]
    digits = 3 if dataset == "pronouns" else 1
    rows: list[list[str]] = []
    for kind, part in parts.items():
        for when in ("before", "after", "change"):
            found: Mapping[str, Any] | None = part.get(when)
            if found:
                cells = [_cell(found[key], digits, when == "change") for key, _ in measures]
                first = when == "before"
                rows.append(
                    [kind if first else "", str(part["count"]) if first else "", when, *cells]
                )
    with_patch = any(part.get("after") for part in parts.values())
    columns: Sequence[str] = ("bias type" if len(parts) > 1 else "", "n", "", *names)
    if not with_patch:
        rows, columns = [[*row[:2], *row[3:]] for row in rows], (*columns[:2], *columns[3:])
    print_table(title or dataset, columns, rows)
    typer.echo(_NOTES[dataset])


def _cell(one: Mapping[str, float], digits: int, signed: bool) -> str:
    plus = "+" if signed and one["value"] >= 0 else ""
    low, high = number(one["low"], digits), number(one["high"], digits)
    return f"{plus}{number(one['value'], digits)} [{low}, {high}]"
