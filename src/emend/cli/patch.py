"""`emend patch`: look at patches, and reckon with them as with vectors."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory, read_patches
from emend.cli._options import flag
from emend.cli._output import number, print_blast, print_json, print_table
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.patches import Patch, WeightPatch


app = typer.Typer(
    help="Look at saved patches, add, scale, split and compress them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Patch = Annotated[
    Path,
    typer.Argument(help="A saved patch, or a LoRA adapter of PEFT or in GGUF.", metavar="PATH"),
]
_Output = Annotated[Path, flag("The directory to write to.", metavar="DIRECTORY")]
_Ids = Annotated[
    list[str],
    flag("Edits of the patch, by id, with commas between. May be repeated.", metavar="IDS"),
]


@app.command(epilog=_options.examples("emend patch show patch/", "emend patch show patch/ --json"))
def show(patch: _Patch, model: _options.AdapterModel = None, json: _options.Json = False) -> None:
    """Show what a patch is, its edits, and what servers ask of it."""
    (found,) = read_patches([patch], model)
    card = found.card()
    if json:
        edits = [{"id": e.id, "prompt": e.text, "target": e.target} for e in found.edits]
        print_json({"patch": patch, **_measures(found), **card, "edits": edits})
        return
    base = found.base.get("name") or found.base.get("architecture") or "any model that fits"
    by = f"by {found.method}" if found.method else "by no method of emend"
    typer.echo(f"{patch}: {_summary(found)}, {by}, for {base}")
    if not found.base.get("hash"):
        typer.echo("its base's weights are not known: only names and shapes of modules are checked")
    _show_modules(card) if "modules" in card else _show_tensors(card)
    took = {one.edit: "took" if one.took else "DID NOT TAKE" for one in found.outcomes}
    rows = ([e.id, e.text, e.target, took.get(e.id, "not measured")] for e in found.edits)
    if found.edits:
        print_table("Edits", ("id", "prompt", "target", "outcome"), rows)
    print_blast(found.blast)
    if "serving" in card:
        print_table(
            "Servers",
            ("server", "", "found", "what to do"),
            ([c["server"], c["verdict"], c["what"], c["remedy"]] for c in card["serving"]),
        )
    else:
        typer.echo("an edit memory: emend answers by it, other servers cannot")


def _show_modules(card: dict[str, Any]) -> None:
    lost = {name: f"{error:.1e}" for name, error in card.get("compression", {}).items()}
    rows = (
        [
            name,
            str(m["rank"]),
            "{} x {}".format(*m["shape"]),
            number(m["norm"]),
            lost.get(name, "-"),
        ]
        for name, m in card["modules"].items()
    )
    print_table("Modules", ("module", "rank", "shape", "norm", "error of compression"), rows)


def _show_tensors(card: dict[str, Any]) -> None:
    rows = ([name, _size(shape)] for name, shape in card["tensors"].items())
    print_table("Remembered", ("tensor", "shape"), rows)


@app.command(
    epilog=_options.examples(
        "emend patch add a/ b/ --output_path both/",
        "emend patch add patch/ adapter.gguf --model smollm2-135m --output_path both/",
    )
)
def add(
    patches: Annotated[
        list[Path], typer.Argument(help="Two or more patches or adapters.", metavar="PATHS")
    ],
    output_path: _Output,
    model: _options.AdapterModel = None,
    json: _options.Json = False,
) -> None:
    """Add patches of one model: exact, by concatenation of their factors."""
    if len(patches) < 2:
        raise InvalidInput(f"only {patches[0]} is given, expected two patches or more to add")
    total, *others = _weights(patches, model)
    for other in others:
        total = total + other
    _write(total, output_path, json)


@app.command(epilog=_options.examples("emend patch scale patch/ --by -1 --output_path opposite/"))
def scale(
    patch: _Patch,
    by: Annotated[float, flag("The factor; -1 turns a patch round.")],
    output_path: _Output,
    model: _options.AdapterModel = None,
    json: _options.Json = False,
) -> None:
    """Multiply a patch by a number."""
    (found,) = _weights([patch], model)
    _write(by * found, output_path, json)


@app.command(epilog=_options.examples("emend patch without patch/ --ids e1,e7 --output_path rest/"))
def without(patch: _Patch, ids: _Ids, output_path: _Output, json: _options.Json = False) -> None:
    """Take edits out of a memory, or of a patch whose rows are each one edit's own."""
    (found,) = read_patches([patch], None)
    _write(found.without(*_named(found, ids)), output_path, json)


@app.command(epilog=_options.examples("emend patch only patch/ --ids e1 --output_path one/"))
def only(patch: _Patch, ids: _Ids, output_path: _Output, json: _options.Json = False) -> None:
    """Keep some edits of a patch and leave the others out."""
    (found,) = read_patches([patch], None)
    _write(found.only(_named(found, ids)), output_path, json)


@app.command(
    epilog=_options.examples(
        "emend patch compress patch/ --rank 512 --output_path small/",
        "emend patch compress patch/ --tolerance 0.01 --output_path small/",
    )
)
def compress(
    patch: _Patch,
    output_path: _Output,
    rank: Annotated[int | None, flag("The most rows of a module.")] = None,
    tolerance: Annotated[
        float | None, flag("The largest relative error of a module, e.g. 0.01.")
    ] = None,
    model: _options.AdapterModel = None,
    json: _options.Json = False,
) -> None:
    """Store a patch in fewer rows, and say what that costs each module.

    With neither --rank nor --tolerance in as few as lose nothing.
    """
    (found,) = _weights([patch], model)
    small = found.compress(rank=rank, tolerance=tolerance)
    _write(small, output_path, json)
    if not json:
        rows = (
            [name, str(small.factors[name].rank), f"{error:.1e}"]
            for name, error in small.compression.items()
        )
        print_table("Compression", ("module", "rank", "relative error"), rows)


def _size(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def _weights(paths: list[Path], model: str | None = None) -> list[WeightPatch]:
    found = read_patches(paths, model)
    return [_weight(path, patch) for path, patch in zip(paths, found, strict=True)]


def _weight(path: Path, patch: Patch) -> WeightPatch:
    from emend.patches import WeightPatch

    if not isinstance(patch, WeightPatch):
        raise InvalidInput(f"{path} changes no weights, expected a weight patch: give another")
    return patch


def _named(patch: Patch, given: list[str]) -> list[str]:
    """Split ids at commas, except where an edit's own id holds commas."""
    known = {edit.id for edit in patch.edits}
    return [id_ for one in given for id_ in ([one] if one in known else one.split(","))]


def _write(patch: Patch, path: Path, json: bool) -> None:
    output_directory(path)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        patch.save_pretrained(path)
    if json:
        print_json({"output_path": path, **_measures(patch), **patch.card()})
        return
    typer.echo(f"{_summary(patch)}, saved to {path}")
    for one in noted:
        typer.echo(str(one.message))


def _measures(patch: Patch) -> dict[str, Any]:
    """Rank and norm of a change of weights."""
    from emend.patches import WeightPatch

    return {"rank": patch.rank, "norm": patch.norm} if isinstance(patch, WeightPatch) else {}


def _summary(patch: Patch) -> str:
    count = "1 edit" if len(patch.edits) == 1 else f"{len(patch.edits)} edits"
    measures = _measures(patch)
    if not measures:
        return f"{count} in memory"
    return f"{count}, rank {measures['rank']}, norm {number(measures['norm'])}"
