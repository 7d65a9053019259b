"""What a plan measures besides its measures of edits: ability, side effects, realistic answers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend import metrics, models, probes
from emend.bench._tasks import Values, paired
from emend.edits import Edit
from emend.errors import InvalidInput, UnsupportedModel
from emend.patches import Patch

if TYPE_CHECKING:
    from emend.bench.plan import Plan

logger = logging.getLogger("emend")

Made = Sequence[tuple[Patch, Sequence[Edit]]]
"""Patches with the edits in each."""

VERDICTS = "verdicts.jsonl"
"""The file of a results folder that caches what a judge wrote."""


class Further:
    """Measures what the plan names with a patch applied; values before it are measured once.

    Args:
        plan: What to measure.
        directory: The results folder.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan, self.directory = plan, directory
        self._perplexity_before: float | None = None
        self._tasks_before: Values | None = None
        self._made: dict[tuple[Edit, ...], list[Edit]] = {}

    def forget(self) -> None:
        """Forget the values before; the model is another one now."""
        self._perplexity_before = self._tasks_before = None
        self._made.clear()

    def of(self, model: Any, tokenizer: Any, made: Made) -> dict[str, Any]:
        """Measure what the plan names for edits in their patches, whatever the schedule."""
        effects = self.side_effects(model, tokenizer, made)
        return {**effects, **self.realistic(model, tokenizer, made)}

    def ability(self, model: Any, tokenizer: Any, patch: Patch) -> dict[str, Any]:
        """Measure what the model can do in general before and after."""
        found = self._perplexity(model, tokenizer, patch)
        return {**found, **self._tasks(model, tokenizer, patch)}

    def _perplexity(self, model: Any, tokenizer: Any, patch: Patch) -> dict[str, Any]:
        path = self.plan.perplexity
        if path is None:
            return {}
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read {path} ({error}): give a text file") from None
        tokens = self.plan.perplexity_tokens
        if self._perplexity_before is None:
            with models.base(model):
                self._perplexity_before = models.perplexity(model, tokenizer, [text], tokens=tokens)
        with patch.applied(model):
            after = models.perplexity(model, tokenizer, [text], tokens=tokens)
        return {"perplexity": {"before": self._perplexity_before, "after": after}}

    def _tasks(self, model: Any, tokenizer: Any, patch: Patch) -> dict[str, Any]:
        """Run the plan's tasks before and after; a message where the patch cannot act in them."""
        tasks = self.plan.tasks
        if tasks is None:
            return {}
        if self._tasks_before is None:
            with models.base(model):
                self._tasks_before = tasks.run(model, tokenizer)
        try:
            with patch.applied(model):
                return {"tasks": paired(self._tasks_before, tasks.run(model, tokenizer))}
        except UnsupportedModel as error:
            logger.warning(f"{patch.method}: {error}")
            return {"tasks": {}, "tasks_left_out": str(error)}

    def realistic(self, model: Any, tokenizer: Any, made: Made) -> dict[str, Any]:
        """Ask edits realistically, each with the patch that it is in."""
        if not self.plan.realistic:
            return {}
        records: list[Any] = []
        for patch, edits in made:
            with patch.applied(model):
                report = metrics.evaluate_realistic(
                    *(model, tokenizer, edits),
                    judge=self._judge,
                    in_chat=self.plan.in_chat,
                    batch_size=self.plan.batch_size,
                )
            records += report.records
        return {"realistic": records}

    def side_effects(self, model: Any, tokenizer: Any, made: Made) -> dict[str, Any]:
        """Measure subject drift, and a blast radius of probes that are made for every edit.

        Probes that edits have are not asked here, so that the same is asked of any dataset.
        """
        if not self.plan.side_effects:
            return {}
        drift: dict[str, float] = {}
        asked: Counter[str] = Counter()
        changed: Counter[str] = Counter()
        for patch, edits in made:
            with patch.applied(model):
                drift |= metrics.subject_drift(model, tokenizer, edits)
            asked_of = self._probed(model, tokenizer, edits)
            radius = probes.blast_radius(model, tokenizer, patch, "given", edits=asked_of)
            if radius is None:  # an endpoint has none
                continue
            for group in radius.asked:
                asked[group] += radius.asked[group]
                changed[group] += radius.changed(group)
        return {"side_effects": {"drift": drift, "asked": asked, "changed": changed}}

    def _probed(self, model: Any, tokenizer: Any, edits: Sequence[Edit]) -> list[Edit]:
        """Make probes for edits in place of their own, once for all methods of a model."""
        place = tuple(edits)
        if place not in self._made:
            bare = [replace(edit, probes=()) for edit in edits]
            self._made[place] = probes.with_probes(model, tokenizer, bare)
        return self._made[place]

    @cached_property
    def _judge(self) -> metrics.Judge | None:
        if self.plan.judge is None:
            return None
        return judge_of(self.plan.judge, self.plan.judge_url, self.directory / VERDICTS)


def judge_of(name: str, base_url: str | None, verdicts: Path | None) -> metrics.Judge:
    """Make a judge.

    Args:
        name: "openai:NAME" or "openai-chat:NAME".
        base_url: The endpoint's address; None for what the client takes from the environment.
        verdicts: A file that caches what it writes.

    Raises:
        InvalidInput: The name is no endpoint's.
        MissingExtra: The `openai` client is not installed.
    """
    if not models.is_endpoint(name):
        raise InvalidInput(f"judge is {name!r}, expected openai:NAME or openai-chat:NAME")
    endpoint, _ = models.load(name, base_url=base_url)
    if verdicts is not None:
        endpoint.keep_answers(verdicts)
    return metrics.Judge(endpoint)
