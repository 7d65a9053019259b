"""`emend trace`: where a fact is recalled."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_file
from emend.cli._options import flag
from emend.cli._output import percent, print_json, print_rich
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    'emend trace --model lab/gptneo --prompt "{} was born in" --subject "NAME" --window 3',
    'emend trace --model gpt2 --prompt "{} plays the" --subject "Miles Davis" --kind all \\',
    "      --output_path trace.html",
    'emend trace --model gpt2 --prompt "{} plays the" --subject "Miles Davis" --approximate',
    "emend trace --model lab/gptneo --facts lab --limit 100 --kind all --window 3",
    "emend trace --model gpt2 --facts known_1000.json --kind all --output_path average.svg",
)

SPARE = 3
"""Facts of the lab that are drawn for each that is to be traced: not all of them are known."""


class Kind(str, Enum):
    """What is restored."""

    state = "state"
    mlp = "mlp"
    attention = "attention"
    all = "all"


class Severed(str, Enum):
    """What is kept from passing on a restored state."""

    mlp = "mlp"
    attention = "attention"


@dataclass(frozen=True)
class Tracing:
    """The flags that say how effects are measured."""

    kind: Annotated[Kind, flag("What is restored: single states, or outputs of parts.")] = (
        Kind.state
    )
    severed: Annotated[
        list[Severed] | None,
        flag("Also restore states with these parts severed at the token. May be repeated."),
    ] = None
    window: Annotated[int, flag("Layers of MLP or attention restored together.", min=1)] = 10
    draws: Annotated[int, flag("How often noise is drawn.", min=1)] = 10
    noise: Annotated[float, flag("Its size in standard deviations of embeddings.")] = 3.0
    approximate: Annotated[bool, flag("Estimate effects by gradients: fast and rough.")] = False
    seed: _options.Seed = 1

    def settings(self) -> dict[str, Any]:
        """Return them as arguments of `emend.trace`."""
        kinds = ("state", "mlp", "attention") if self.kind is Kind.all else (self.kind.value,)
        severed = [f"severed_{site.value}" for site in self.severed or ()]
        names = ("window", "draws", "noise", "approximate", "seed")
        return {"kinds": (*kinds, *severed), **{name: getattr(self, name) for name in names}}


_Prompt = Annotated[str | None, flag("With {} for the subject, or with the subject in it.")]
_Answer = Annotated[str | None, flag("What is asked about; by default what the model says.")]
_Facts = Annotated[
    str | None,
    flag(
        "Instead of --prompt: average over facts; the originals of a file's edits, the "
        "known facts as Meng et al. published them, or lab.",
        metavar="FILE|lab",
    ),
]


def command(
    *,
    model: _options.Model,
    prompt: _Prompt = None,
    subject: Annotated[str | None, flag("What the prompt is about.")] = None,
    answer: _Answer = None,
    facts: _Facts = None,
    limit: Annotated[int, flag("Trace at most this many facts.", min=1)] = 1000,
    how: Tracing,
    output_path: _options.OutputFile = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Show where a fact is recalled, by causal tracing.

    Noise at the subject takes the answer away; then one state (or a window of MLP or attention
    outputs) is put back to what it was without noise, for each token and layer. What that gives
    back of the answer's probability is shown, in percentage points. Tokens with a star are the
    subject's.

    With --facts, effects are averaged over those facts whose answer the model gives, by what a
    token is to the subject, with intervals of 95%.
    """
    _check(prompt, subject, answer, facts)
    output_file(output_path)
    from emend import api, report

    settings = how.settings()
    questions = None if facts is None else _questions(facts, limit, how.seed)
    network, tokenizer = loading.load(model)
    if questions is None:
        found: Any = api.trace(network, tokenizer, prompt or "", subject or "", answer, **settings)
    else:
        found = api.trace_many(network, tokenizer, questions, limit=limit, **settings)
    if output_path:
        report.write(found, output_path)
    if json:
        print_json({"model": model, **found.to_dict()})
    else:
        typer.echo(_heading(found) if questions is None else _averages_heading(found))
        print_rich(report.terminal(found))
    if output_path and not json:
        typer.echo(f"written to {output_path}")


def _check(prompt: str | None, subject: str | None, answer: str | None, facts: str | None) -> None:
    if facts is not None and not (prompt is subject is answer is None):
        raise InvalidInput("--facts is given with --prompt, --subject or --answer: take one way")
    if facts is None and (prompt is None or subject is None):
        raise InvalidInput(
            "nothing is asked, expected --prompt and --subject, or --facts FILE: add them"
        )


def _questions(facts: str, limit: int, seed: int) -> list[Any]:
    from emend import datasets
    from emend.locate import read_facts

    if facts != "lab":
        return read_facts(facts)
    edits = datasets.load("lab", limit=SPARE * limit, seed=seed)
    return [(edit.prompt, edit.subject, edit.original) for edit in edits]


def _heading(found: Any) -> str:
    return (
        f"{found.prompt} → {found.answer.strip()}\n"
        f"P is {percent(found.clean)}, with noise at the subject {percent(found.disturbed)}"
        + ("; effects are approximate" if found.settings.approximate else "")
    )


def _averages_heading(found: Any) -> str:
    total, margin = (percent(value).removesuffix("%") for value in found.total)
    return (
        f"{len(found.traces)} facts of {found.asked}: the total effect of noise is "
        f"{total} ± {margin} percentage points"
        + ("; effects are approximate" if found.settings.approximate else "")
    )
