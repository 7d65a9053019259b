"""`emend methods`: what there is and when to use which."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._advice import Hardware, Situation, YesNo
from emend.cli._options import flag
from emend.cli._output import print_json, print_table
from emend.cli._settings import describe
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend methods",
    "emend methods rome --json",
    "emend methods --advise",
    "emend methods --advise --edits 50 --weights yes --multi_hop no --revertible yes "
    "--hardware cpu",
)


def command(
    name: Annotated[
        str | None, typer.Argument(help="Show the settings of this method.", metavar="[NAME]")
    ] = None,
    advise: Annotated[
        bool,
        flag(
            "Recommend a method, with measured numbers: the flags below, or answers to questions."
        ),
    ] = False,
    edits: Annotated[int | None, flag("How many edits there will be.", min=1)] = None,
    weights: Annotated[
        YesNo | None, flag("Whether the weights are at hand; no: the model is behind an API.")
    ] = None,
    multi_hop: Annotated[
        YesNo | None, flag("Whether questions that follow from several facts must be answered.")
    ] = None,
    revertible: Annotated[
        YesNo | None, flag("Whether one edit must be taken out and the others left.")
    ] = None,
    hardware: Annotated[Hardware | None, flag("Where edits are made.")] = None,
    json: _options.Json = False,
) -> None:
    """List the methods, show one with its settings and their defaults, or recommend one."""
    from emend import methods

    given = Situation(edits, weights, multi_hop, revertible, hardware)
    if advise and name is not None:
        raise InvalidInput(f"--advise and the method {name!r} are given, expected one of them")
    if not advise and (flags := given.flags()):
        raise InvalidInput(
            f"{flags[0]} is given without --advise, whose question it answers: add it"
        )
    if advise:
        given.answer(json)
    elif name is None:
        _list(methods.about(), json)
    else:
        _show(methods.registry().get(name), json)


CONTINUES = {
    "joint": "all edits are solved for together again, with the target values that are known",
    "additive": "new edits are made on the unedited model and added",
    "sequential": "new edits are made on the edited model and added, so that their order matters",
    "append": "new edits join the memory; the model itself stays unedited",
}
"""How a method continues a patch (`emend edit --previous`); see `About.continues`."""


def _about(method: Any) -> dict[str, Any]:
    return {
        "name": method.name,
        "title": method.title,
        "when": method.when,
        "avoid": method.avoid,
        "paper": method.paper,
        "order_invariant": method.order_invariant,
        "continues": method.continues,
    }


def _list(methods: dict[str, Any], json: bool) -> None:
    found = [{**_about(method), "name": name} for name, method in methods.items()]
    if json:
        print_json({"methods": found})
        return
    columns = ("name", "title", "when", "paper")
    rows = [
        [
            *(one[column] for column in columns),
            "yes" if one["order_invariant"] else "no",
            one["continues"],
        ]
        for one in found
    ]
    print_table("Methods", (*columns, "order-invariant", "continues"), rows)
    typer.echo(
        "order-invariant: the same edits in any order and in any batches make the same patch"
    )
    for name, meaning in CONTINUES.items():
        typer.echo(f"continues, {name}: {meaning}")
    typer.echo(
        "`emend methods NAME` shows the settings of one; `emend methods --advise` recommends one."
    )


def _show(method: Any, json: bool) -> None:
    settings = describe(method.config_type)
    if json:
        print_json({**_about(method), "settings": settings})
        return
    typer.echo(f"{method.name}: {method.title}\n{method.paper}\nWhen: {method.when}")
    if method.avoid:
        typer.echo(f"Not for: {method.avoid}")
    order = "the order of edits does not matter" if method.order_invariant else "order matters"
    typer.echo(f"Order: {order}; from a patch, {CONTINUES[method.continues]}\n")
    rows = ([one["name"], one["type"], repr(one["default"]), one["help"]] for one in settings)
    print_table("Settings", ("name", "type", "default", "what it does"), rows)
    typer.echo(f"Given as `emend edit --method {method.name} --set NAME=VALUE`.")
