"""RippleEdits' measure: which facts follow an edit, and which stay.

Cohen et al. 2023, arXiv 2307.12976, section 4. A test counts if the unedited model answers its
condition queries, and passes if any (or all) of its queries are answered; a query is answered if
the text that the model generates contains a name of each of its answers. A criterion's score is
the mean, over the edits that took and have a test that counts, of the share of passed tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend import models
from emend._brief import brief
from emend._io import write_json, write_json_lines
from emend._progress import progress
from emend.datasets.rippleedits import Query, RippleCase, RippleTest
from emend.edits import Edit, normalised
from emend.errors import InvalidInput
from emend.metrics._report import results_directory, versions
from emend.patches import Patch, describe_base

if TYPE_CHECKING:
    from torch import nn

CRITERIA = (
    "Logical_Generalization",
    "Compositionality_I",
    "Compositionality_II",
    "Subject_Aliasing",
    "Forgetfulness",
    "Relation_Specificity",
)
"""In the paper's order; `Forgetfulness` is its "preservation"."""


@brief
@dataclass(frozen=True)
class RippleReport:
    """Records of RippleEdits' tests, plain JSON-able data.

    Attributes:
        records: One dict an edit: ``id``, ``took``, ``text`` (what is generated after its prompt)
            and ``tests``, each with ``criterion``, ``counts``, ``passed`` and ``queries``.
        settings: Model, method, versions.
    """

    records: Sequence[Mapping[str, Any]]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def summary(self) -> dict[str, Any]:
        """Success of the edits, and of each criterion the score, edits and tests that count."""
        took = [record for record in self.records if record["took"]]
        return {
            "n": len(self.records),
            "success": len(took) / len(self.records),
            "criteria": {name: _score(took, name) for name in CRITERIA},
        }

    def save(self, directory: str | Path) -> Path:
        """Write ``records.jsonl`` and ``summary.json``.

        Raises:
            InvalidInput: The path is a file.
        """
        directory = results_directory(directory)
        write_json_lines(directory / "records.jsonl", self.records)
        write_json(directory / "summary.json", {"summary": self.summary, "settings": self.settings})
        return directory


def _score(records: Sequence[Mapping[str, Any]], criterion: str) -> dict[str, Any]:
    shares: list[float] = []
    tests = 0
    for record in records:
        counting = [
            test["passed"]
            for test in record["tests"]
            if test["criterion"] == criterion and test["counts"]
        ]
        tests += len(counting)
        if counting:
            shares.append(sum(counting) / len(counting))
    mean = sum(shares) / len(shares) if shares else None
    return {"score": mean, "edits": len(shares), "tests": tests}


def evaluate_ripple(
    model: nn.Module,
    tokenizer: Any,
    cases: Sequence[RippleCase],
    make: Callable[[list[Edit]], Patch],
    *,
    batch_size: int = 32,
    new_tokens: int = 30,
) -> RippleReport:
    """Make each edit alone and run its tests.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        cases: Edits with their tests; see `emend.datasets.rippleedits.load_cases`.
        make: Makes a patch of edits.
        batch_size: Prompts in one forward pass; the results do not depend on it.
        new_tokens: Tokens that an answer may have. (The published code passes a number of
            characters here.)

    Raises:
        InvalidInput: No cases, or a number below 1.
    """
    if not cases:
        raise InvalidInput("no cases are given, expected at least one: nothing to ask")
    if new_tokens < 1:
        raise InvalidInput(f"new_tokens is {new_tokens}, expected 1 or more: raise it")

    def texts(prompts: Iterable[str]) -> dict[str, str]:
        different = list(dict.fromkeys(prompts))
        found = models.generate(
            model, tokenizer, different, max_new_tokens=new_tokens, batch_size=batch_size
        )
        return dict(zip(different, found, strict=True))

    conditions = [query for case in cases for test in case.tests for query in test.conditions]
    before = texts(query.prompt for query in conditions)
    records: list[dict[str, Any]] = []
    for case in progress(cases, "ripple effects", total=len(cases)):
        counted = [_all_answered(test.conditions, before) for test in case.tests]
        asked = [
            query
            for test, counts in zip(case.tests, counted, strict=True)
            for query in test.queries
            if counts
        ]
        with make([case.edit]).applied(model):
            after = texts([case.edit.text, *(query.prompt for query in asked)])
        records.append(_record(case, counted, after))
    settings = {"model": describe_base(model), "new_tokens": new_tokens, "versions": versions()}
    return RippleReport(records, settings)


def _record(case: RippleCase, counted: Sequence[bool], after: Mapping[str, str]) -> dict[str, Any]:
    text = after[case.edit.text]
    return {
        "id": case.edit.id,
        "took": normalised(case.edit.target) in normalised(text),
        "text": text,
        "tests": [
            _test_record(test, counts, after)
            for test, counts in zip(case.tests, counted, strict=True)
        ],
    }


def _test_record(test: RippleTest, counts: bool, after: Mapping[str, str]) -> dict[str, Any]:
    found = {"criterion": test.criterion, "counts": counts, "passed": None, "queries": []}
    if not counts:
        return found
    right = [_answered(query, after[query.prompt]) for query in test.queries]
    queries = [{"prompt": query.prompt, "text": after[query.prompt]} for query in test.queries]
    passed = all(right) if test.needed == "all" else any(right)
    return {**found, "passed": passed, "queries": queries}


def _all_answered(queries: Sequence[Query], texts: Mapping[str, str]) -> bool:
    return all(_answered(query, texts[query.prompt]) for query in queries)


def _answered(query: Query, text: str) -> bool:
    """Return whether a text contains a name of every answer, as published."""
    held = normalised(text)
    return all(any(normalised(name) in held for name in names) for names in query.answers)
