"""The gate: whether the patch of a ledger's active edits may go out.

It is built and measured against the unedited model: the active edits with their own probes, all
edits being there at once; the prompts that the suite says must change and must not; and general
ability, by perplexity and multiple-choice questions. What was found is noted in the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emend import metrics, models
from emend.edits.answers import same_sentence
from emend.ledger import Ledger
from emend.ledger.building import Built, build
from emend.ledger.suite import Choice, Probe, Suite
from emend.metrics import Answer, Question, Report, ask, exact_match, same_answer

FREE_TOKENS = 12
"""How much of an answer has to stay where the suite does not say what the answer is."""

METHOD = "memit"
"""What is built with where neither the suite nor the caller says."""


@dataclass(frozen=True)
class Check:
    """One thing that the suite asks for.

    Attributes:
        name: Such as ``metrics.reliability`` or ``perplexity``.
        base: What the unedited model gives; None where there is nothing to measure.
        found: What the patched model gives; None likewise, or where it is not finite.
        expected: The condition in words, such as ``>= 95.0%``.
        passed: Whether it holds.
        count: Of edits, prompts, texts or questions it was measured on.
        unit: ``share`` (0 to 1) or ``perplexity``.
        missed: What went wrong, a line each.
    """

    name: str
    base: float | None
    found: float | None
    expected: str
    passed: bool
    count: int
    unit: str = "share"
    missed: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReleaseCheck:
    """What was found at the result.

    Attributes:
        suite: Name of the suite.
        built: The patch and its making.
        checks: In the suite's order.
        report: Records of the measures of the active edits; None where none are asked for.
    """

    suite: str
    built: Built
    checks: tuple[Check, ...]
    report: Report | None

    @property
    def passed(self) -> bool:
        """Whether all holds."""
        return all(check.passed for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold."""
        made = self.built.build
        return {
            "suite": self.suite,
            "passed": self.passed,
            "build": made.id,
            "patch_hash": made.patch_hash,
            "method": made.method,
            "edits": len(made.edits),
            "took": sum(one.took for one in self.built.patch.outcomes),
            "outcomes": [one.to_dict() for one in self.built.patch.outcomes],
            "checks": [{**asdict(one), "missed": list(one.missed)} for one in self.checks],
        }


def check(
    ledger: Ledger,
    model: Any,
    tokenizer: Any,
    suite: Suite,
    *,
    method: str | None = None,
    directory: str | Path | None = None,
    author: str = "",
    batch_size: int = 32,
    **settings: Any,
) -> ReleaseCheck:
    """Build the patch of the active edits and measure it by a suite.

    Args:
        ledger: The ledger; the build and the measurement are noted there.
        model: The unedited model.
        tokenizer: Its tokenizer.
        suite: What has to hold.
        method: To build with, over the suite's; settings of the suite are then left out.
        directory: Where to save the patch; None saves nothing.
        author: Who checks.
        batch_size: Prompts per forward pass.
        settings: Of the method, over those of the suite.

    Raises:
        InvalidInput: The ledger is of another model.
        UnknownName: There is no such method or setting.
        SubjectNotFound: The tokenizer gives a subject no token of its own.
        NumericalFailure: The search or the solution diverged.
    """
    chosen = method or suite.method or METHOD
    known = suite.settings if chosen == suite.method else {}
    built = build(
        ledger,
        model,
        tokenizer,
        method=chosen,
        directory=directory,
        author=author,
        **{**known, **settings},
    )
    with models.base(model), built.patch.applied(model):
        taking = _Taking(ledger, model, tokenizer, suite, batch_size)
        checks = tuple(taking.checks())
    result = ReleaseCheck(suite.name, built, checks, taking.report)
    ledger.add_measurement(built.build.id, suite.name, result.to_dict(), author=author)
    return result


class _Taking:
    """Takes the measures of one suite, the patch being attached to the model."""

    def __init__(
        self, ledger: Ledger, model: Any, tokenizer: Any, suite: Suite, batch_size: int
    ) -> None:
        self.ledger, self.model, self.tokenizer = ledger, model, tokenizer
        self.suite, self.batch_size = suite, batch_size
        self.report: Report | None = None

    def checks(self) -> Generator[Check, None, None]:
        """Yield the checks in the suite's order."""
        if self.suite.metrics:
            yield from self._metrics(self.suite.metrics)
        if self.suite.must_change:
            part = self.suite.must_change
            yield self._probes("must_change", part.probes, part.at_least, _changed)
        if self.suite.must_not_change:
            part = self.suite.must_not_change
            yield self._probes("must_not_change", part.probes, part.at_least, _kept)
        if self.suite.perplexity:
            yield self._perplexity(self.suite.perplexity.texts)
        if self.suite.multiple_choice:
            yield self._choices(self.suite.multiple_choice.questions)

    def _both(self, measure: Callable[[], Any]) -> tuple[Any, Any]:
        """Measure the base, then the patched model."""
        with models.base(self.model):
            before = measure()
        return before, measure()

    def _metrics(self, thresholds: Mapping[str, float]) -> Generator[Check, None, None]:
        edits = self.ledger.active()
        if edits:
            self.report = metrics.evaluate(
                self.model,
                self.tokenizer,
                edits,
                metrics=thresholds,
                batch_size=self.batch_size,
            )
        for name, least in thresholds.items():
            entry = self.report.summary[name] if self.report else {}
            records = self.report.records if self.report else ()
            own = [record for record in records if record["metric"] == name]
            missed = tuple(_missed(one) for one in own if _is_missed(one, entry["headline"]))
            if entry.get("after") is None:
                missed = ("nothing to measure: no active edit has probes for it",)
            yield _share(
                f"metrics.{name}",
                (entry.get("before"), entry.get("after")),
                least,
                entry.get("n", 0),
                missed,
            )

    def _probes(
        self,
        name: str,
        probes: tuple[Probe, ...],
        least: float,
        judge: Callable[[Question, Answer, Answer], tuple[float, float]],
    ) -> Check:
        questions = [
            Question(one.prompt, one.answers, new_tokens=None if one.answers else FREE_TOKENS)
            for one in probes
        ]
        before, after = self._both(
            lambda: ask(self.model, self.tokenizer, questions, batch_size=self.batch_size)
        )
        verdicts = [judge(question, before[question], after[question]) for question in questions]
        wrong = [one for one, verdict in zip(questions, verdicts, strict=True) if not verdict[1]]
        missed = tuple(_line(name, one, before[one].text, after[one].text) for one in wrong)
        means = (sum(one[0] for one in verdicts), sum(one[1] for one in verdicts))
        count = len(questions)
        return _share(name, (means[0] / count, means[1] / count), least, count, missed)

    def _perplexity(self, texts: tuple[str, ...]) -> Check:
        part = self.suite.perplexity
        assert part is not None
        before, after = self._both(
            lambda: models.perplexity(self.model, self.tokenizer, texts, batch_size=self.batch_size)
        )
        increase = after / before - 1 if math.isfinite(before) else math.nan
        passed = bool(increase <= part.at_most_increase)  # NaN is not
        said = (f"rose by {100 * increase:.2f}%",) if not passed else ()
        return Check(
            "perplexity",
            _finite(before),
            _finite(after),
            f"at most {100 * part.at_most_increase:g}% more",
            passed,
            len(texts),
            "perplexity",
            said,
        )

    def _choices(self, questions: tuple[Choice, ...]) -> Check:
        part = self.suite.multiple_choice
        assert part is not None
        before, after = self._both(lambda: self._chosen(questions))
        right = [
            sum(got == one.answer for got, one in zip(answers, questions, strict=True))
            for answers in (before, after)
        ]
        count = len(questions)
        drop = 100 * (right[0] - right[1]) / count
        missed = tuple(
            f"{one.prompt!r}: base {one.choices[old].strip()!r}, patched "
            f"{one.choices[new].strip()!r}, right {one.choices[one.answer].strip()!r}"
            for one, old, new in zip(questions, before, after, strict=True)
            if old == one.answer != new
        )
        passed = drop <= part.at_most_drop + 1e-9
        expected = f"at most {part.at_most_drop:g} points less"
        shares = (right[0] / count, right[1] / count)
        return Check("multiple_choice", *shares, expected, passed, count, missed=missed)

    def _chosen(self, questions: tuple[Choice, ...]) -> list[int]:
        """Return the index of each question's most probable choice, by mean log-probability."""
        pairs = [(one.prompt, choice) for one in questions for choice in one.choices]
        prompts, targets = [list(column) for column in zip(*pairs, strict=True)]
        found = models.score(
            self.model, self.tokenizer, prompts, targets, batch_size=self.batch_size
        )
        scores = iter([score.mean for score in found])
        means = [[next(scores) for _ in one.choices] for one in questions]
        return [row.index(max(row)) for row in means]


def _changed(question: Question, before: Answer, after: Answer) -> tuple[float, float]:
    return exact_match(before, question.answers), exact_match(after, question.answers)


def _kept(question: Question, before: Answer, after: Answer) -> tuple[float, float]:
    if question.answers:
        return 1.0, same_answer(before, after, question.answers)
    return 1.0, float(same_sentence(before.text, after.text))


def _share(
    name: str,
    values: tuple[float | None, float | None],
    least: float,
    count: int,
    missed: tuple[str, ...],
) -> Check:
    before, after = values
    passed = after is not None and after >= least - 1e-9
    return Check(name, before, after, f">= {100 * least:g}%", passed, count, missed=missed)


def _is_missed(record: Mapping[str, Any], protocol: str) -> bool:
    outcome = record["protocols"].get(protocol)
    return outcome is not None and outcome["after"] < 1.0


def _missed(record: Mapping[str, Any]) -> str:
    before, said = record["text_before"].strip(), record["text_after"].strip()
    asked = f"{record['edit']}: {record['prompt']!r}"
    if record["metric"] == "locality":
        return f"{asked}: base {before!r}, patched {said!r}"
    expected = f", expected {record['answers'][0]!r}" if record["answers"] else ""
    return f"{asked}: found {said!r}{expected}"


def _line(name: str, question: Question, before: str, after: str) -> str:
    if name == "must_not_change":
        return f"{question.prompt!r}: base {before.strip()!r}, patched {after.strip()!r}"
    return f"{question.prompt!r}: found {after.strip()!r}, expected {question.answers[0]!r}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
