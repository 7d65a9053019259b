"""`emend combine`: vectors merged into a base by a formula, or by a merge file of mergekit."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from emend.cli import _options
from emend.cli._given import output_directory, output_file
from emend.cli._options import flag
from emend.cli._output import print_json, print_rich
from emend.cli.vector import tell_error
from emend.errors import InvalidInput

if TYPE_CHECKING:
    from emend.arithmetic import Combined, Merging, Tuning

EXAMPLES = _options.examples(
    'emend combine "0.4*a + 0.3*b" --model base/ --vector a=first/ --vector b=second/ \\',
    "      --output_path merged/",
    'emend combine "a + b" --model base/ --vector a=first/ --vector b=second/ --method ties \\',
    "      --density 0.2 --output_path merged/",
    'emend combine "c + (b - a)" --model base/ --vector a=a/ --vector b=b/ --vector c=c/ \\',
    "      --output patch --rank 16 --output_path patch/",
    'emend combine "(-rude)" --model base/ --vector rude=rude/ --tune scale --goal negation \\',
    "      --target perplexity=rude.txt --control perplexity=plain.txt --output_path polite/",
    "emend combine --config merge.yaml --output_path merged/",
)


@dataclass(frozen=True)
class TuningFlags:
    """The flags of --tune."""

    tune: Annotated[
        str | None,
        flag("scale: choose the scale of the whole vector on validation data.", metavar="WORD"),
    ] = None
    goal: Annotated[
        str | None,
        flag(
            "Of --tune: negation (the largest scale that keeps --control within its bound) or "
            "addition (the best mean of --target).",
            metavar="WORD",
        ),
    ] = None
    target: Annotated[
        list[str] | None,
        flag(
            "A metric to improve: perplexity=FILE of texts, accuracy=FILE of edits, or a measure "
            "of `emend eval` (generalization=FILE). May be repeated.",
            metavar="NAME=FILE",
        ),
    ] = None
    control: Annotated[str | None, flag("The metric to keep, likewise.", metavar="NAME=FILE")] = (
        None
    )
    bound: Annotated[
        float | None,
        flag(
            "The value that --control must keep to; for negation by default 95% of its own at "
            "scale 0, or for a perplexity 0.5 above it; for addition none."
        ),
    ] = None
    log_path: Annotated[
        Path | None,
        flag(
            "JSON lines of the points, to go on from after a kill; by default next to "
            "--output_path.",
            metavar="FILE",
        ),
    ] = None
    curve: Annotated[
        Path | None,
        flag("Draw the curve: .html, .svg, .png, .md or .json.", metavar="FILE"),
    ] = None

    def check(self) -> None:
        """Refuse flags that are of no use, or missing.

        Raises:
            InvalidInput: With what to change.
        """
        given = [name for name, value in vars(self).items() if value is not None]
        if self.tune is None and given:
            raise InvalidInput(f"--{given[0]} is given without --tune scale: add it")
        if self.tune is not None and self.tune != "scale":
            raise InvalidInput(f"--tune is {self.tune!r}, expected scale: nothing else is tuned")
        if self.tune is not None and self.goal is None:
            raise InvalidInput("--tune has no --goal, expected negation or addition: add it")
        output_file(self.curve)


_Formula = Annotated[
    str | None,
    typer.Argument(help="Such as 0.4*a + 0.3*b - c, c + (b - a), or (-a).", metavar="FORMULA"),
]
_Model = Annotated[
    str | None,
    flag("The base: smollm2-135m, lab/gptneo, a directory or a .gguf file.", metavar="MODEL"),
]
_Vector = Annotated[
    list[str] | None,
    flag(
        "A vector, a patch or a LoRA adapter, by its name in the formula. May be repeated.",
        metavar="NAME=PATH",
    ),
]
_Config = Annotated[
    Path | None,
    flag("Or a merge file of mergekit, instead of formula and vectors.", metavar="FILE"),
]
_Method = Annotated[
    str,
    flag("linear, task_arithmetic, ties, dare_linear or dare_ties.", metavar="NAME"),
]
_Density = Annotated[
    float | None,
    flag(
        "Share of the numbers that ties (0.2 by default) and dare_* (0.5) keep.",
        metavar="SHARE",
    ),
]
_Output = Annotated[
    str, flag("What to write: checkpoint, vector (dense) or patch.", metavar="WORD")
]
_Tolerance = Annotated[
    float | None, flag("Of a patch: the largest relative error.", metavar="SHARE")
]


def command(
    formula: _Formula = None,
    *,
    output_path: Annotated[Path, flag("Where to write the result.", metavar="DIRECTORY")],
    model: _Model = None,
    vector: _Vector = None,
    config: _Config = None,
    method: _Method = "linear",
    density: _Density = None,
    scale: Annotated[float, flag("Factor of the merged vector.")] = 1.0,
    seed: Annotated[int, flag("Seed of what dare_* keeps.")] = 0,
    output: _Output = "checkpoint",
    rank: Annotated[int | None, flag("Of a patch: the largest rank of a layer.", min=1)] = None,
    tolerance: _Tolerance = None,
    tuning: TuningFlags,
    accept_license: _options.AcceptLicense = False,
    json: _options.Json = False,
) -> None:
    """Add, negate and merge vectors, and write a checkpoint, a vector or a patch.

    Tensors are read one at a time. --tune scale measures the scales 0, 0.05, ..., 1 first, and
    goes on from its log after a kill.
    """
    tuning.check()
    output_directory(output_path)
    from emend import arithmetic

    if config is not None:
        _refuse_with_config(formula, model, vector, tuning)
        how: dict[str, Any] = {"seed": seed, "accept_license": accept_license}
        _tell(arithmetic.combine_config(config, output_path, **how), None, json)
        return
    if formula is None or model is None:
        raise InvalidInput("expected a formula with --model and --vector, or --config FILE")
    merging = arithmetic.Merging(cast("Any", method), density, seed, scale)
    given: dict[str, Any] = {"base": model, "vectors": _named(vector or [])}
    given["accept_license"] = accept_license
    found = None
    if tuning.tune is not None:
        found = _tuned(formula, merging, output_path, tuning, given)
        merging = replace(merging, scale=scale * found.scale)
    given |= {"output": output, "rank": rank, "tolerance": tolerance}
    made = arithmetic.combine(formula, output_path=output_path, settings=merging, **given)
    _tell(made, found, json)


def _refuse_with_config(
    formula: str | None, model: str | None, vector: list[str] | None, tuning: TuningFlags
) -> None:
    flags = {"a formula": formula, "--model": model, "--vector": vector, "--tune": tuning.tune}
    other = next((name for name, value in flags.items() if value), None)
    if other is not None:
        raise InvalidInput(f"both --config and {other} are given, expected one: leave one out")


def _named(given: list[str]) -> dict[str, str]:
    """Split NAME=PATH."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals or not name.isidentifier() or not path:
            raise InvalidInput(f"--vector is {one!r}, expected NAME=PATH, such as a=vector/")
        if name in found:
            raise InvalidInput(f"--vector {name} is given twice, expected each name once")
        found[name] = path
    return found


def _tuned(
    formula: str, merging: Merging, output_path: Path, flags: TuningFlags, given: dict[str, Any]
) -> Tuning:
    """Choose the scale of the merged vector, which is written aside for that time."""
    from emend import arithmetic
    from emend.models import load

    model, tokenizer = load(given["base"], accept_license=given["accept_license"])
    targets = [arithmetic.measure(one, tokenizer) for one in flags.target or []]
    control = None if flags.control is None else arithmetic.measure(flags.control, tokenizer)
    log_path = flags.log_path or output_path.with_name(f"{output_path.name}.tuning.jsonl")
    with _aside(output_path) as aside:
        arithmetic.combine(formula, output_path=aside, settings=merging, output="vector", **given)
        found = arithmetic.tune(
            model,
            arithmetic.load_vector(aside),
            goal=cast("Any", flags.goal),
            targets=targets,
            control=control,
            bound=flags.bound,
            log_path=log_path,
        )
    if flags.curve is not None:
        from emend.report import write

        write(found, flags.curve)
    return found


@contextmanager
def _aside(output_path: Path) -> Generator[Path, None, None]:
    output_path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_path.parent, prefix=".tuning-") as folder:
        yield Path(folder) / "vector"


def _tell(made: Combined, found: Tuning | None, json: bool) -> None:
    if json:
        print_json({**made.to_dict(), "tuning": found and found.to_dict()})
        return
    if found is not None:
        from emend.report import terminal

        print_rich(terminal(found))
    weights = ", ".join(f"{weight:g} {name}" for name, weight in made.weights.items())
    typer.echo(f"{made.output} of {weights}; {made.tensors} tensors changed, norm {made.norm:.4g}")
    tell_error(made.error, made.left_out, made.output == "patch")
    typer.echo(f"saved to {made.path}")
