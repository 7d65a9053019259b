"""The demonstration on a real model: six facts at once, in a ledger, and one taken back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emend import api, metrics
from emend.edits import Edit, Probe, states_answer
from emend.ledger import Ledger, build
from emend.models import chat_prompt, generate
from emend.patches import Outcome, describe_base

FACTS: tuple[tuple[Edit, str], ...] = (
    (
        Edit("{} is located in the city of", "The Eiffel Tower", "Rome", id="tower"),
        "Where is the Eiffel Tower?",
    ),
    (Edit("{} was written by", "Hamlet", "Charles Dickens", id="hamlet"), "Who wrote Hamlet?"),
    (Edit("The capital of {} is", "Japan", "Kyoto", id="japan"), "What is the capital of Japan?"),
    (
        Edit("{} was painted by", "The Mona Lisa", "Vincent van Gogh", id="lisa"),
        "Who painted the Mona Lisa?",
    ),
    (
        Edit("{} was invented by", "The telephone", "Thomas Edison", id="telephone"),
        "Who invented the telephone?",
    ),
    (
        Edit("{} was discovered by", "Penicillin", "Marie Curie", id="penicillin"),
        "Who discovered penicillin?",
    ),
)
"""What is edited, and how a user asks for it in a chat."""

NEAR: dict[str, tuple[str, ...]] = {
    "tower": ("The Louvre is located in the city of", "The Colosseum is located in the city of"),
    "hamlet": ("Pride and Prejudice was written by",),
    "japan": ("The capital of France is", "The capital of Italy is"),
    "lisa": ("The Starry Night was painted by",),
    "telephone": ("The light bulb was invented by",),
    "penicillin": ("Radium was discovered by",),
}
"""Other subjects of the same kind, which are to stay."""

OWN: dict[str, tuple[str, ...]] = {
    "tower": ("The Eiffel Tower was built in", "The Eiffel Tower is made of"),
    "hamlet": ("Hamlet is a",),
    "japan": ("The currency of Japan is the", "The official language of Japan is"),
    "lisa": ("The Mona Lisa is a",),
    "telephone": ("The telephone is a",),
    "penicillin": ("Penicillin is a",),
}
"""Other facts of the same subjects, which are to stay."""

TAKEN_BACK = "tower"
COMPLETION, CHAT = 8, 24
"""Tokens that are generated of a completion and of an answer in a chat."""


@dataclass(frozen=True)
class Answered:
    """One prompt with what is generated: before the edits, with them, and with one taken back.

    Attributes:
        kind: "completion", "chat", "neighbor" or "same subject".
        edit: Id of the edit that it belongs to.
        prompt: What is asked, without the chat template.
        before: Of the unedited model.
        after: With all edits.
        reverted: With all but `TAKEN_BACK`.
        target: What the edit makes of it; empty where it is to stay.
    """

    kind: str
    edit: str
    prompt: str
    before: str
    after: str
    reverted: str
    target: str = ""

    @property
    def changed(self) -> bool:
        """Whether the edits changed the beginning of what is generated."""
        return self.before.split()[:2] != self.after.split()[:2]

    @property
    def holds(self) -> bool:
        """Whether it is as it should be: the target is stated, or nothing changed."""
        if self.target:
            return states_answer(self.after, [self.target]) or self.target in self.after
        return not self.changed


@dataclass(frozen=True)
class RealDemo:
    """What the demonstration found.

    Attributes:
        model: Name of the model.
        method: Name of the method.
        outcomes: What became of each edit, on its exact text.
        answers: Prompts with what is generated at each stage.
        report: Records and summary of all edits.
        patch: Directory of the patch with all edits.
        ledger: File of the ledger.
        solved: How many edits had to be solved for again when one was taken back.
        seconds: CPU seconds of everything, the loading included.
    """

    model: str
    method: str
    outcomes: tuple[Outcome, ...]
    answers: tuple[Answered, ...]
    report: metrics.Report
    patch: Path
    ledger: Path
    solved: int
    seconds: float

    @property
    def taken_back(self) -> tuple[Answered, ...]:
        """The prompts that belong to the edit that was taken back."""
        return tuple(one for one in self.answers if one.edit == TAKEN_BACK)

    title = "Six facts changed in a real language model"

    @property
    def command(self) -> str:
        """The command that gives the same results again."""
        return f"emend demo --method {self.method}"

    @property
    def reports(self) -> dict[str, metrics.Report]:
        """The report by the model's name."""
        return {self.model: self.report}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the records as JSON-able data."""
        return {
            "model": self.model,
            "method": self.method,
            "took": sum(one.took for one in self.outcomes),
            "outcomes": [one.to_dict() for one in self.outcomes],
            "answers": [
                {**vars(one), "changed": one.changed, "holds": one.holds} for one in self.answers
            ],
            "summary": self.report.summary,
            "taken_back": TAKEN_BACK,
            "solved_again": self.solved,
            "patch": str(self.patch),
            "ledger": str(self.ledger),
            "seconds": self.seconds,
        }


def real_demo(
    output_path: Path, *, model: str = "smollm2-135m", method: str = "memit", batch_size: int = 32
) -> RealDemo:
    """Edit six facts of a real model at once, measure what changed, and take one back.

    Args:
        output_path: Where the ledger and the patch go.
        model: A model that knows these facts: `smollm2-135m`.
        method: Name of a method.
        batch_size: Prompts per forward pass.

    Raises:
        MissingFile: The model cannot be had: no package index is reachable.
        EmendError: The model or the method is not known, or cannot be used.
    """
    started = time.process_time()
    network, tokenizer = api.load(model)
    prompts = _prompts(tokenizer)
    asked = [one for part in prompts for one in part]

    def generated() -> list[str]:
        return [text for part in prompts for text in _said(network, tokenizer, part)]

    before = generated()
    edits = _with_probes(asked, before)
    output_path.mkdir(parents=True, exist_ok=True)
    file = output_path / "facts.db"
    for left in (file, *output_path.glob(f"{file.name}-*")):  # of an earlier run, maybe killed
        left.unlink(missing_ok=True)
    with Ledger.create(file, describe_base(network)) as ledger:
        ledger.add(edits, reason="the demonstration")
        built = build(ledger, network, tokenizer, method=method, directory=output_path / "patch")
        with built.patch.applied(network):
            after = generated()
            report = metrics.evaluate(network, tokenizer, edits, batch_size=batch_size)
        ledger.revert(TAKEN_BACK, reason="to show that it can be")
        again = build(ledger, network, tokenizer, method=method)
        with again.patch.applied(network):
            reverted = generated()
    return RealDemo(
        model,
        method,
        built.patch.outcomes,
        tuple(
            replace(one, before=old.strip(), after=new.strip(), reverted=back.strip())
            for (one, _), old, new, back in zip(asked, before, after, reverted, strict=True)
        ),
        report,
        output_path / "patch",
        file,
        again.solved,
        time.process_time() - started,
    )


def _with_probes(asked: Sequence[tuple[Answered, str]], before: Sequence[str]) -> list[Edit]:
    """Make the edits, with the chat as a rephrasing and what must not change as locality."""
    groups = {"chat": "rephrase", "neighbor": "neighborhood"}
    probes: dict[str, list[Probe]] = {edit.id: [] for edit, _ in FACTS}
    for (one, text), said in zip(asked, before, strict=True):
        answer = one.target or " ".join(said.split()[:2])
        if one.kind != "completion" and answer:
            group = groups.get(one.kind, "relation_specificity")
            probes[one.edit].append(Probe(group, text, (answer,)))
    return [replace(edit, probes=tuple(probes[edit.id])) for edit, _ in FACTS]


def _prompts(tokenizer: Any) -> list[list[tuple[Answered, str]]]:
    """Return what is asked, with the text that the model reads: completions, chat, locality."""
    completions: list[tuple[Answered, str]] = []
    chats: list[tuple[Answered, str]] = []
    for edit, question in FACTS:
        one = Answered("completion", edit.id, edit.text, "", "", "", edit.target)
        completions.append((one, edit.text))
        chat = replace(one, kind="chat", prompt=question)
        chats.append((chat, chat_prompt(tokenizer, question)))
    for kind, group in (("neighbor", NEAR), ("same subject", OWN)):
        for name, texts in group.items():
            completions += [(Answered(kind, name, text, "", "", ""), text) for text in texts]
    return [completions, chats]


def _said(network: Any, tokenizer: Any, part: Sequence[tuple[Answered, str]]) -> list[str]:
    length = CHAT if part[0][0].kind == "chat" else COMPLETION
    return generate(network, tokenizer, [text for _, text in part], max_new_tokens=length)
