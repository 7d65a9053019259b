"""Recommend a method for a situation, with reasons and with the numbers that were measured.

The numbers are in `measured.json`: cells of the documentation's tables, as they are written there,
with the command that measured them. A test compares each with its page. No torch is loaded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from emend.errors import InvalidInput

Hardware = Literal["cpu", "gpu"]

FEW = 10
"""From this number of edits on they are solved together."""
MEASURED = 100
"""The most edits in one patch that were measured on a real model."""


@dataclass(frozen=True)
class Measured:
    """Rows of one table of the documentation.

    Attributes:
        page: The page of `docs/` that has the whole table.
        conditions: Model and records.
        commands: What measured it; none where the page names no script.
        columns: What each cell is; the first column names the row.
        rows: Cells, as the page writes them.
    """

    page: str
    conditions: str
    commands: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Alternative:
    """Another method, and when it is the better one."""

    method: str
    when: str


@dataclass(frozen=True)
class Advice:
    """A recommendation.

    Attributes:
        method: The name of the recommended method.
        reasons: Why, a sentence each.
        alternatives: Other methods, each with the case in which it is better.
        cautions: What was not measured, or does not work.
        measured: The numbers that the reasons rest on.
        command: The command to type next.
    """

    method: str
    reasons: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    cautions: tuple[str, ...]
    measured: tuple[Measured, ...]
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


@dataclass
class _Draft:
    method: str
    reasons: list[str]
    tables: list[str]
    alternatives: list[Alternative] = field(default_factory=list[Alternative])
    cautions: list[str] = field(default_factory=list[str])

    def otherwise(self, method: str, when: str) -> None:
        self.alternatives.append(Alternative(method, when))


def advise(
    edits: int = 1,
    *,
    weights: bool = True,
    multi_hop: bool = False,
    revertible: bool = True,
    hardware: Hardware = "cpu",
) -> Advice:
    """Recommend a method.

    Args:
        edits: How many edits there are, or will be.
        weights: Whether the model's weights are at hand; False for a model behind an API.
        multi_hop: Whether questions that follow from several facts must be answered by them.
        revertible: Whether it must be possible to take one edit out and leave the others.
        hardware: Where edits are made, "cpu" or "gpu".

    Returns:
        The method, the reasons, the numbers behind them, and what was not measured.

    Raises:
        InvalidInput: The number of edits is not positive, or the hardware is neither of the two.
    """
    if isinstance(edits, bool) or not isinstance(edits, int) or edits < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"edits is {edits!r}, expected a number of at least 1: count them")
    if hardware not in ("cpu", "gpu"):
        raise InvalidInput(f"hardware is {hardware!r}, expected 'cpu' or 'gpu': take one of them")
    if multi_hop:
        draft = _for_questions(weights)
    elif not weights:
        draft = _for_an_endpoint()
    elif edits < FEW:
        draft = _for_few()
    else:
        draft = _for_many(edits, hardware)
    if weights and draft.method in ("rome", "memit"):
        _add_reverting(draft, revertible)
        _add_time(draft, edits, hardware)
    return Advice(
        draft.method,
        tuple(draft.reasons),
        tuple(draft.alternatives),
        tuple(draft.cautions),
        tuple(map(measured, draft.tables)),
        _command(draft.method, weights),
    )


@cache
def _data() -> dict[str, Any]:
    path = Path(__file__).with_name("measured.json")
    return json.loads(path.read_text(encoding="utf-8"))


def measured(name: str) -> Measured:
    """Return one table of `measured.json`."""
    table = _data()[name]
    rows = tuple(tuple(row) for row in table["rows"])
    columns = ("", *table["columns"].values())
    return Measured(table["page"], table["conditions"], tuple(table["commands"]), columns, rows)


def _for_questions(weights: bool) -> _Draft:
    draft = _Draft(
        "mello",
        [
            "it takes a question apart and checks each step against the edited facts: editors of "
            "weights, and a fact put before the question, answer next to none of these questions",
            "it changes only what the model reads: any fact can be taken out at any time",
        ],
        ["multi_hop"],
    )
    draft.cautions.append(
        "measured on the lab's models, which know its layout; a small base model that cannot take "
        "a question apart does not answer by it, and each answer costs several passes"
    )
    if weights:
        draft.otherwise(
            "memit",
            "if the patch must be served as weights: write what follows as edits of its own "
            "(`emend ledger expand --rules FILE`); one hop stays the weakest",
        )
        draft.tables.append("entailment")
    draft.otherwise("ike", "if questions go over one further fact only, and answers must be quick")
    draft.tables.append("knowedit")
    return draft


def _for_an_endpoint() -> _Draft:
    draft = _Draft(
        "ike",
        [
            "it changes only what the model reads, so that it works over an API",
            "any fact can be taken out at any time; adding one costs nothing",
        ],
        ["knowedit", "memories"],
    )
    draft.otherwise("mello", "if questions over several facts must be answered")
    draft.cautions.append(
        "the fact before the prompt changes about as much of what the model answers about the "
        "subject as an edit of weights does, and prompts about others get a fact too: set "
        "`threshold=1` to leave prompts alone that name no edited subject"
    )
    return draft


def _for_few() -> _Draft:
    draft = _Draft(
        "rome",
        [
            "one rank-one change of one matrix, served by PEFT, vLLM and llama.cpp as an adapter",
            "the target is generated for nearly every edit, and neighbors keep their answers",
        ],
        ["single", "knowedit"],
    )
    draft.otherwise(
        "grace",
        "if the subject's other facts must not change at all, and PyTorch serves the model; "
        "rewordings that begin differently are mostly missed",
    )
    draft.otherwise("ike", "if one further hop must follow, and every prompt may be longer")
    draft.cautions.append("what follows from an edit over one hop is not answered: use `mello`")
    return draft


def _for_many(edits: int, hardware: Hardware) -> _Draft:
    draft = _Draft(
        "memit",
        [
            "all edits are solved for together: the same weights in any order and in any batches",
            "of the methods that change weights, it leaves neighbors and plain text most alone",
        ],
        ["twenty"],
    )
    draft.otherwise("alphaedit", "if paraphrases count more than the subjects' other facts")
    if edits > FEW * 5:
        draft.tables.append("hundred")
        draft.otherwise(
            "memit with `--set original=true`",
            "if more targets and paraphrases must be generated and the "
            "subjects' other facts may drift",
        )
        draft.cautions.append("at a hundred edits some are not written; `emend edit` lists them")
    if edits > MEASURED:
        draft.tables += ["memories", "radius"]
        draft.cautions.append(
            f"no patch of more than {MEASURED} edits was measured on a real model: measure a "
            "sample of yours by `emend bench` first"
        )
        draft.otherwise(
            "grace", "if nothing else may change and PyTorch serves the model; few rewordings"
        )
        once = "" if hardware == "gpu" else ", which takes long without a GPU"
        draft.otherwise(
            "serac", f"if rewordings must be answered, after training it once on edits{once}"
        )
    return draft


def _add_reverting(draft: _Draft, revertible: bool) -> None:
    if revertible:
        draft.reasons.append(
            "any one edit can be taken out: `patch.without(id)`, or `emend ledger revert`"
        )
        return
    draft.otherwise(
        "ft",
        "if time counts most: no edit of it can be taken out alone, and at twenty edits a third of "
        "the neighbors change",
    )


def _add_time(draft: _Draft, edits: int, hardware: Hardware) -> None:
    if hardware == "gpu":
        draft.cautions.append("seconds are those of one CPU thread; none was measured on a GPU")
        return
    table = "single" if draft.method == "rome" else "hundred" if edits > FEW * 5 else "twenty"
    numbers = _data()[table]
    row = next(
        row for row in numbers["rows"] if row[0] in ("default", "`memit`, default", "`memit`")
    )
    seconds = float(row[list(numbers["columns"]).index("CPU s") + 1])
    draft.reasons.append(
        f"on one CPU thread about {_time(seconds * edits)} for SmolLM2-135M ({row[-1]} s an edit); "
        "larger models take more in proportion"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _command(method: str, weights: bool) -> str:
    model = "MODEL" if weights else "openai:NAME --base_url URL"
    return f"emend edit --method {method} --model {model} --edits edits.jsonl --output_path patch/"
