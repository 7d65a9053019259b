"""`emend lab`: the closed world and its small models."""

from __future__ import annotations

import json as jsonlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import number, print_json, print_table
from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName

app = typer.Typer(
    help="The lab: a closed world, and small models trained on it that ship with emend.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Name = Annotated[str, typer.Argument(help="lab/gptneo or lab/qwen3.", metavar="NAME")]
_Directory = Annotated[Path, flag("The directory to write to.", metavar="DIRECTORY")]


class Arch(str, Enum):
    """Architectures of the lab's models."""

    gptneo = "gptneo"
    qwen3 = "qwen3"


@app.command("list", epilog=_options.examples("emend lab list"))
def list_models(json: _options.Json = False) -> None:
    """List the models that ship with emend."""
    sizes = {f"lab/{path.name}": _megabytes(path) for path in _shipped()}
    if json:
        print_json({"models": [{"name": name, "megabytes": size} for name, size in sizes.items()]})
        return
    rows = ([name, number(size, 1)] for name, size in sizes.items())
    print_table("Lab models", ("name", "MB"), rows)
    typer.echo("`emend lab card NAME` prints what one knows.")


@app.command(
    epilog=_options.examples("emend lab card lab/gptneo", "emend lab card lab/qwen3 --json")
)
def card(name: _Name, json: _options.Json = False) -> None:
    """Print a model's card: how it was made, what it recalls, where it stores facts."""
    content = _card(_path(name))
    if json:
        print_json(content)
        return
    print_table(name, ("what", "value"), ([key, value] for key, value in _flat(content)))
    typer.echo("Numbers from the lab are about the lab.")


@app.command(
    epilog=_options.examples(
        "emend lab train --arch qwen3 --seed 0 --output_path my-model/",
        "emend lab train --arch gptneo --steps 20 --output_path trial/",
    )
)
def train(
    arch: Annotated[Arch, flag("Which architecture.")],
    output_path: _Directory,
    seed: _options.Seed = 0,
    steps: Annotated[int | None, flag("Stop after this many steps.", min=1)] = None,
    json: _options.Json = False,
) -> None:
    """Train a lab model again, as the one that ships was; resumes where it was interrupted."""
    output_directory(output_path)
    from emend.lab.training import shipped_config
    from emend.lab.training import train as train_model

    chosen: dict[str, Any] = {}
    if steps is not None:
        chosen = {"facts_steps": steps, "context_steps": 0, "polish_steps": 0, "reason_steps": 0}
    written = train_model(shipped_config(arch.value, seed, **chosen), output_path)
    if json:
        print_json({"arch": arch.value, "seed": seed, "output_path": written})
    else:
        typer.echo(f"trained; try: emend demo --model {shlex.quote(str(written))}")


@app.command(
    epilog=_options.examples("emend lab world", 'emend lab world --about "NAME" --seed 0 --json')
)
def world(
    about: Annotated[str | None, flag("Print every fact about this one.")] = None,
    seed: _options.Seed = 0,
    json: _options.Json = False,
) -> None:
    """Show the world: how much there is of each kind, or all facts about one entity."""
    from emend.lab.world import build_world

    made = build_world(seed)
    if about is None:
        counts = {kind: len(names) for kind, names in made.entities.items()}
        counts |= {"facts": len(made.facts), "people with aliases": len(made.aliases)}
        examples = {kind: names[0] for kind, names in made.entities.items() if names}
        if json:
            print_json({"seed": seed, "counts": counts, "examples": examples})
            return
        rows = ([kind, str(count), examples.get(kind, "")] for kind, count in counts.items())
        print_table(f"World of seed {seed}", ("kind", "how many", "for example"), rows)
        return
    known = [name for _, name in made.subjects()]
    if about not in known:
        raise _unknown_entity(about, known)
    facts = {fact.relation: list(fact.objects) for fact in made.facts_of(about)}
    if json:
        aliases = list(made.aliases.get(about, ()))
        print_json({"name": about, "aliases": aliases, "facts": facts})
        return
    print_table(about, ("relation", "what"), ([one, ", ".join(facts[one])] for one in facts))


@app.command(
    epilog=_options.examples(
        "emend lab export lab/gptneo --output_path gptneo/",
        "emend lab export edits --limit 100 --seed 1 --output_path edits/",
        "emend lab export corpus --limit 10000 --output_path corpus/",
    )
)
def export(
    what: Annotated[
        str, typer.Argument(help="A model's name, `edits`, or `corpus`.", metavar="WHAT")
    ],
    output_path: _Directory,
    limit: _options.Limit = None,
    seed: _options.Seed = 0,
    json: _options.Json = False,
) -> None:
    """Write a lab model, edits with their probes, or documents of the corpus to a directory."""
    output_directory(output_path)
    if what == "edits":
        from emend import datasets

        written = output_path / "edits.jsonl"
        datasets.write_edits(written, datasets.load("lab", limit=limit, seed=seed))
    elif what == "corpus":
        written = output_path / "corpus.jsonl"
        _export_corpus(written, limit or 1000, seed)
    else:
        written = output_path
        _export_model(_path(what), written)
    if json:
        print_json({"written": written})
    else:
        typer.echo(f"written to {written}")


def _export_corpus(path: Path, count: int, seed: int) -> None:
    from emend._io import write_json_lines
    from emend.lab.corpus import corpus_texts
    from emend.lab.world import build_world

    texts = corpus_texts(build_world(), count, seed)
    write_json_lines(path, ({"text": text} for text in texts))


def _export_model(source: Path, target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise InvalidInput(f"{target} is not empty, expected a new directory: choose another")
    shutil.copytree(source, target, dirs_exist_ok=True)


def _shipped() -> list[Path]:
    """List the directories of the models in the package."""
    from emend import lab

    weights = Path(lab.__file__).parent / "weights"
    return sorted(path.parent for path in weights.glob("*/config.json"))


def _path(name: str) -> Path:
    short = name.removeprefix("lab/")
    for path in _shipped():
        if path.name == short:
            return path
    raise UnknownName("lab model", name, [f"lab/{path.name}" for path in _shipped()])


def _card(path: Path) -> dict[str, Any]:
    file = path / "card.json"
    if not file.is_file():
        raise MissingFile(f"there is no card {file}: the model was not measured yet")
    try:
        content = jsonlib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BrokenFile(f"{file} is no JSON ({error}): install emend again") from error
    return cast("dict[str, Any]", content)


def _megabytes(path: Path) -> float:
    return sum(file.stat().st_size for file in path.iterdir()) / 1e6


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested mappings to dotted names, each with its value in words."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from _flat(cast("Mapping[str, Any]", value), f"{name}.")
        elif isinstance(value, list):
            yield name, ", ".join(_word(one) for one in cast("list[Any]", value))
        else:
            yield name, _word(value)


def _word(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _unknown_entity(name: str, known: list[str]) -> UnknownName:
    """Name only the nearest of thousands of names, or a few."""
    error = UnknownName("entity", name, known)
    near = [error.suggestion] if error.suggestion else known[:3]
    return UnknownName("entity", name, near)
