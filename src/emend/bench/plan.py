"""What a benchmark measures: models x methods x datasets x schedules, cut into small units.

    models: [smollm2-135m]
    methods: [rome, "memit:cov_weight=0.2", grace]
    datasets:
      - {name: counterfact, path: counterfact-train.json, first: 5000, last: 5100}
      - {name: lab}
    schedules: [single, batch:10, sequential:10]

A schedule is `single` (each edit alone), `batch:N` (N edits at once) or `sequential:N` (N edits at
a time, each on top of all before). A unit is measured and written at once, and found again by the
hash of all that it depends on.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from emend import _identity, metrics, models
from emend._parse import read_document
from emend._validate import Fault, Problems, Record, shown
from emend.bench._expected import FIELDS as EXPECTED_FIELDS
from emend.bench._expected import Expected
from emend.bench._grid import Variant
from emend.bench._tasks import Tasks, tasks_of
from emend.bench._units import Schedule, Source, Unit, case_parts, parts_of
from emend.errors import InvalidInput, UnknownName

T = TypeVar("T")

FIELDS = (
    *("models", "methods", "datasets", "schedules", "evaluate", "metrics"),
    *("limit", "seed", "perplexity", "perplexity_tokens", "batch_size", "published"),
    *("tasks", "include_path", "task_limit", "realistic", "in_chat", "judge", "judge_url"),
    *("side_effects", "expected"),
)
SOURCE_FIELDS = ("name", "path", "first", "last", "sha256")

METRICS = ("reliability", "generalization", "portability", "locality")
"""Measures by default: fluency takes longer than all of them together."""


@dataclass(frozen=True)
class Plan:
    """A benchmark.

    Attributes:
        models: Names, as `emend.load` takes them.
        variants: Methods with settings.
        sources: The datasets.
        schedules: How edits come.
        evaluate: Of "sequential": "final" (all edits after the last), "immediate" (each portion
            right after it is made) or a number k (all edits so far, after every k portions).
        metrics: Names of measures.
        limit: The largest number of edits of a dataset.
        seed: Seed of draws.
        perplexity: A file of running text; its perplexity is measured before and after.
        perplexity_tokens: How many of its tokens, from the first, are read; None for all.
        batch_size: Prompts in one forward pass.
        published: Whether datasets whose own measures need more than edits (MQuAKE, RippleEdits)
            are also measured by those.
        tasks: Tasks of lm-evaluation-harness, run before and after, but for "single".
        realistic: Whether edits are also asked as `metrics.evaluate_realistic` does.
        in_chat: Whether that is in the tokenizer's chat template.
        judge: The endpoint's model that judges these answers, "openai-chat:NAME".
        judge_url: Its address.
        side_effects: Whether `metrics.subject_drift` and a blast radius of probes that emend makes
            are measured.
        expected: Published numbers, shown next to those measured; nothing depends on them.
    """

    models: tuple[str, ...]
    variants: tuple[Variant, ...]
    sources: tuple[Source, ...]
    schedules: tuple[Schedule, ...]
    evaluate: str | int = "final"
    metrics: tuple[str, ...] = METRICS
    limit: int | None = None
    seed: int = 0
    perplexity: str | None = None
    perplexity_tokens: int | None = None
    batch_size: int = 32
    published: bool = True
    tasks: Tasks | None = None
    realistic: bool = False
    in_chat: bool = False
    judge: str | None = None
    judge_url: str | None = None
    side_effects: bool = False
    expected: tuple[Expected, ...] = ()

    @classmethod
    def read(cls, path: str | Path, **changes: Any) -> Plan:
        """Read a plan from a YAML or JSON file.

        Args:
            path: The file; paths in it are relative to its directory.
            changes: Fields that replace the file's, where not None.

        Raises:
            BrokenFile: A field is unknown, missing or wrong; each is named.
            InvalidInput: A method, setting or schedule in it is wrong.
            MissingFile: There is no such file.
        """
        path = Path(path)
        document = read_document(path, "a benchmark")
        problems = Problems(str(path), document.line_of)
        top = Record.of(document.content, problems, FIELDS, what="the benchmark")
        fields = {} if top is None else _fields(top, path.parent)
        problems.check()
        given = {name: value for name, value in changes.items() if value is not None}
        return cls(**{**fields, **given})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data that JSON can hold, for `Runner.changes`."""
        fields = {**vars(self), "variants": [one.text for one in self.variants]}
        fields |= {"schedules": [str(one) for one in self.schedules]}
        fields |= {"sources": [dataclasses.asdict(one) for one in self.sources]}
        fields |= {"expected": [dataclasses.asdict(one) for one in self.expected]}
        fields |= {"tasks": self.tasks and self.tasks.identity}
        return json.loads(json.dumps(fields))

    def units(self) -> Iterator[Unit]:
        """Yield the units, those of one model together."""
        read = {source: source.edits(self.limit, self.seed) for source in self.sources}
        cases = {s: s.cases(self.limit) if self.published else () for s in self.sources}
        text = self._text_identity()
        common: dict[str, Any] = {"metrics": sorted(self.metrics), "seed": self.seed}
        if self.realistic:
            common["realistic"] = [self.in_chat, self.judge, self.judge_url]
        if self.side_effects:
            common["side_effects"] = True
        weights = {model: _weights(model) for model in self.models}
        points = itertools.product(self.models, self.variants, self.sources, self.schedules)
        for model, variant, source, schedule in points:
            inputs: dict[str, Any] = {
                **common,
                "weights": weights[model],
                "perplexity": None if schedule.kind == "single" else text,
            }
            if self.tasks is not None and schedule.kind != "single":
                inputs["tasks"] = self.tasks.identity
            inputs["evaluate"] = self.evaluate if schedule.kind == "sequential" else None
            form = "" if source.form is None else source.form.name
            place = model, variant, source.name, schedule
            for part in parts_of(read[source], schedule):
                yield Unit(*place, part, inputs, form)
            if source.form is not None and cases[source]:
                name, asked = source.form.cases, {"weights": weights[model]}
                for group, edits in case_parts(name, cases[source], schedule):
                    yield Unit(*place, edits, asked, form, name, group)

    def _text_identity(self) -> Any:
        if self.perplexity is None:
            return None
        digest = _identity.file_digest(Path(self.perplexity))
        return digest if self.perplexity_tokens is None else [digest, self.perplexity_tokens]


def _weights(model: str) -> str | None:
    """Hash the files of a model that is a file or directory; None for one known by its name."""
    path = Path(model)
    if path.is_dir():
        return _identity.directory_digest(path)
    return _identity.file_digest(path) if path.is_file() else None


def _fields(top: Record, directory: Path) -> dict[str, Any]:
    """Read the fields of a plan, noting every fault."""
    known = metrics.registry().names()
    measures = top.texts("metrics", lambda value: _choice(value, known)) or METRICS
    sources = (_source(one, directory) for one in top.records("datasets", SOURCE_FIELDS, least=1))
    texts = top.text("perplexity", required=False)
    return {
        "models": top.texts("models", least=1, distinct=True),
        "variants": _parsed(top, "methods", Variant.parse),
        "sources": _present(sources),
        "schedules": _parsed(top, "schedules", Schedule.parse),
        "evaluate": _evaluate(top),
        "metrics": measures,
        "limit": _count(top, "limit"),
        "seed": int(top.number("seed", 0)),
        "perplexity": None if texts is None else str(directory / texts),
        "perplexity_tokens": _count(top, "perplexity_tokens"),
        "batch_size": int(top.number("batch_size", 32, least=1)),
        "published": top.flag("published", True),
        "tasks": _tasks(top, directory),
        "realistic": top.flag("realistic", False),
        "in_chat": top.flag("in_chat", False),
        "judge": _judge(top),
        "judge_url": top.text("judge_url", required=False),
        "side_effects": top.flag("side_effects", False),
        "expected": _present(map(Expected.of, top.records("expected", EXPECTED_FIELDS))),
    }


def _count(record: Record, name: str) -> int | None:
    """Read a number of at least 1 that may be left out."""
    return int(record.number(name, least=1)) if name in record.values else None


def _present(found: Iterable[T | None]) -> tuple[T, ...]:
    """Leave out what could not be read, which is noted."""
    return tuple(one for one in found if one is not None)


def _tasks(top: Record, directory: Path) -> Tasks | None:
    """Read which tasks are run."""
    names, path = top.texts("tasks", distinct=True), top.text("include_path", required=False)
    limit = _count(top, "task_limit")
    try:
        return tasks_of(names, None if path is None else str(directory / path), limit)
    except InvalidInput as error:
        top.note("tasks", Fault(f"is wrong: {error}", "", ""))
        return None


def _judge(top: Record) -> str | None:
    """Read who judges."""
    name = top.text("judge", required=False)
    realistic = top.values.get("realistic") is True
    if not realistic and any(field in top.values for field in ("judge", "judge_url", "in_chat")):
        top.note("realistic", Fault("is not true", "true where judge or in_chat is given", ""))
    if name is not None and not models.is_endpoint(name):
        expected = "openai:NAME or openai-chat:NAME"
        top.note("judge", Fault(f"is {shown(name)}", expected, "name the endpoint's model"))
    return name


def _parsed(top: Record, name: str, parse: Any) -> tuple[Any, ...]:
    """Read a list of texts, each by a function that refuses a wrong one."""
    found: list[Any] = []
    for number, text in enumerate(top.texts(name, least=1, distinct=True)):
        try:
            found.append(parse(text))
        except (InvalidInput, UnknownName) as error:
            top.note(f"{name}[{number}]", Fault(f"is wrong: {error}", "", ""))
    return tuple(found)


def _source(record: Record, directory: Path) -> Source | None:
    name, path = record.text("name"), record.text("path", required=False)
    first = int(record.number("first", 0))
    last = _count(record, "last")
    if name is None:
        return None
    digest = record.text("sha256", required=False)
    return Source(name, None if path is None else str(directory / path), first, last, digest)


def _evaluate(top: Record) -> str | int:
    value = top.values.get("evaluate", "final")
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if value in ("final", "immediate"):
        return str(value)
    top.note("evaluate", Fault(f"is {value!r}", "final, immediate or a number above 0", "fix it"))
    return "final"


def _choice(value: object, known: Sequence[str]) -> Fault | None:
    if value in known:
        return None
    return Fault(f"is {value!r}", f"one of {', '.join(known)}", "take one of them")
