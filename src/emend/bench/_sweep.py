"""Which layer to edit: try them on a few facts and measure.

Causal tracing finds where a fact is recalled, and that says little of where an edit works best
(Hase et al. 2023, arXiv 2301.04213): so layers are tried.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend import api, methods, metrics
from emend._progress import progress
from emend.bench._results import ResultsFile
from emend.edits import Edit, check_edits
from emend.errors import InvalidInput, NumericalFailure, UnsupportedModel
from emend.patches import WeightPatch

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

METRICS = ("reliability", "generalization", "locality")
"""What is measured; what an edit should imply (portability) is left out, it costs as much again."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured at one layer or window of layers, in shares from 0 to 1.

    Attributes:
        setting: What to pass to the method: ``{"layer": 3}`` or ``{"layers": [1, 2, 3]}``.
        reliability: The new fact is generated, in the edit's own wording.
        generalization: The same in other wordings.
        neighborhood: Answers about neighbouring facts stay.
        locality: The same over all kinds of facts that should stay.
        seconds_per_edit: Time of one edit, without what is computed once for the model.
        error: Why this layer cannot be edited; None where it can.
    """

    setting: Mapping[str, Any]
    reliability: float | None = None
    generalization: float | None = None
    neighborhood: float | None = None
    locality: float | None = None
    seconds_per_edit: float | None = None
    error: str | None = None

    @property
    def score(self) -> float | None:
        """Harmonic mean of reliability, generalization and specificity, of those measured.

        Specificity is the neighborhood (as in CounterFact's Score), or else the locality.
        """
        specificity = self.locality if self.neighborhood is None else self.neighborhood
        values = [self.reliability, self.generalization, specificity]
        known = [value for value in values if value is not None]
        if not known:
            return None
        return len(known) / sum(1 / value for value in known) if all(known) else 0.0

    @property
    def flag(self) -> str:
        """Write the setting as it is given on the command line, e.g. "layers=1,2,3"."""
        (name, value), *_ = self.setting.items()
        return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"

    def rank(self) -> tuple[float, ...]:
        """Return a sort key: best Score first, then better locality, then lower layer."""
        (value, *_) = self.setting.values()
        last = value[-1] if isinstance(value, list) else value
        return (self.error is not None, -(self.score or 0.0), -(self.locality or 0.0), last)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data, with the Score."""
        return {**dataclasses.asdict(self), "score": self.score}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> Row:
        """Make a row of a line of a results file."""
        return cls(**{name: line[name] for name in cls.__dataclass_fields__ if name in line})


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What was found, the best first.

    Attributes:
        method: Name of the method.
        edits: How many facts each layer was tried on.
        together: Whether all facts were edited at once, or each alone on the clean model.
        rows: One for each layer or window of layers; by Score, then locality.
        seconds: What all of it took; less where rows were read and not measured.
    """

    method: str
    edits: int
    together: bool
    rows: tuple[Row, ...]
    seconds: float

    @property
    def best(self) -> Row | None:
        """The row with the highest Score; None where no layer could be edited."""
        return next((row for row in self.rows if row.error is None), None)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        best = self.best
        return {
            "method": self.method,
            "edits": self.edits,
            "together": self.together,
            "seconds": self.seconds,
            "best": None if best is None else dict(best.setting),
            "rows": [row.to_dict() for row in self.rows],
        }


def sweep(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    edits: Iterable[Edit],
    method: str | methods.Method = "rome",
    *,
    layers: Sequence[int] | None = None,
    width: int | None = None,
    together: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    path: str | Path | None = None,
) -> Sweep:
    """Try a method at each layer on a few facts, and measure.

    A method with a setting ``layer`` is tried at each layer; one with ``layers`` at windows of
    neighbouring layers that end at each layer, as many as the method takes by default (fewer
    at the first layers).

    Args:
        model: A causal language model; it is not changed.
        tokenizer: Its tokenizer.
        edits: About 20 facts with their probes; other ones than those to be edited later.
        method: Name of the method, or the `Method` itself.
        layers: The layers, or last layers of windows, to try; None for all. Negative numbers
            count from the end.
        width: Layers in a window, for methods that edit several.
        together: Edit all facts at once, or each alone on the clean model. By default together
            for methods that solve for all edits jointly (MEMIT, PMET, AlphaEdit), else alone.
        settings: Further settings of the method.
        batch_size: Prompts per forward pass; the results do not depend on it.
        path: A file of JSON lines to keep results in; what it holds of the same model, edits and
            settings is not measured again.

    Raises:
        InvalidInput: No edits, a layer that the model has not, or a method or setting that
            leaves no layer to choose.
        UnknownName: There is no such method or setting.
    """
    started = time.perf_counter()
    trial = _Trial(model, tokenizer, check_edits(edits), method, together, dict(settings or {}))
    trial.batch_size = batch_size
    results = ResultsFile(path, "sweep", trial.inputs(), trial.about())
    rows: list[Row] = []
    for setting in progress(trial.choices(layers, width), f"trying layers of {trial.method.name}"):
        line = results.find({"setting": setting})
        if line is None:
            line = results.add(trial.measure(setting).to_dict())
        rows.append(Row.from_line(line))
    seconds = time.perf_counter() - started
    ranked = tuple(sorted(rows, key=Row.rank))
    return Sweep(trial.method.name, len(trial.edits), trial.together, ranked, seconds)


class _Trial:
    """One method on one model with the same facts again and again."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        edits: Sequence[Edit],
        method: str | methods.Method,
        together: bool | None,
        settings: dict[str, Any],
    ) -> None:
        self.model, self.tokenizer, self.edits = model, tokenizer, edits
        self.method = methods.find(method)
        # A misspelt setting is refused before any work.
        known = {field.name for field in dataclasses.fields(self.method.config_type)}
        self.flag = next((name for name in ("layer", "layers") if name in known), None)
        if self.flag is None:
            raise InvalidInput(
                f"{self.method.name} has no setting for layers, so there is none to choose: take a "
                "method that edits a layer, e.g. rome"
            )
        if self.flag in settings:
            raise InvalidInput(
                f"{self.flag} is given as a setting and swept too: say which to try by layers"
            )
        self.takes_templates = "templates" in known
        self.settings = settings
        self.together = self.method.continues == "joint" if together is None else together
        self.batch_size = 64

    def inputs(self) -> dict[str, Any]:
        """Return all that a result depends on except the layer."""
        from emend.editing.value_cache import settings_content
        from emend.models import ModelView, model_fingerprint, tokens_fingerprint

        config = self.method.configure(**self.settings)
        return {
            "model": model_fingerprint(self.model),
            "tokenizer": tokens_fingerprint(self.model, self.tokenizer),
            "method": [self.method.name, self.method.version],
            "settings": settings_content(config, ModelView(self.model), self.tokenizer),
            "together": self.together,
            "metrics": METRICS,
            "edits": self.edits,
        }

    def about(self) -> dict[str, Any]:
        """Return the fields of each result that are for people to read."""
        return {"method": self.method.name, "together": self.together, "edits": len(self.edits)}

    def choices(self, layers: Sequence[int] | None, width: int | None) -> list[dict[str, Any]]:
        """List the settings to try."""
        from emend.models import ModelView

        view = ModelView(self.model)
        chosen = range(view.num_layers) if layers is None else layers
        ends = view.numbered(chosen)
        if self.flag == "layer":
            if width not in (None, 1):
                raise InvalidInput(
                    f"width is {width} but {self.method.name} edits one layer: leave it out"
                )
            return [{"layer": end} for end in ends]
        wide = self.usual_width() if width is None else width
        if wide < 1:
            raise InvalidInput(f"width is {wide}, expected at least 1")
        return [{"layers": list(range(max(end - wide + 1, 0), end + 1))} for end in ends]

    def usual_width(self) -> int:
        """Find how many layers the method edits by default, from a patch that it makes."""
        patch = self._edit(self.edits[:1], {})
        found = patch.config.get("layers") if isinstance(patch, WeightPatch) else None
        return len(found) if found else 1

    def measure(self, setting: Mapping[str, Any]) -> Row:
        """Edit at one layer (or window) and measure."""
        setting = dict(setting)
        given = {name: tuple(v) if isinstance(v, list) else v for name, v in setting.items()}
        try:
            report = self._report(given)
        except (NumericalFailure, UnsupportedModel) as error:
            return Row(setting, error=str(error))
        summary = report.summary
        groups = summary["locality"]["groups"]
        return Row(
            setting,
            reliability=summary["reliability"]["after"],
            generalization=summary["generalization"]["after"],
            neighborhood=groups.get("neighborhood", {}).get("after"),
            locality=summary["locality"]["after"],
            seconds_per_edit=report.timing.get("per_edit"),
        )

    def _report(self, setting: dict[str, Any]) -> metrics.Report:
        options: dict[str, Any] = {"metrics": METRICS, "batch_size": self.batch_size}
        if self.together:
            patch = self._edit(self.edits, setting)
            with patch.applied(self.model):
                return metrics.evaluate(self.model, self.tokenizer, self.edits, **options)
        # Where edits do not know of one another, they are made at once and taken apart.
        split = self.method.continues == "additive"
        patches: Any = (
            self._edit(self.edits, setting) if split else lambda edit: self._edit([edit], setting)
        )
        return metrics.evaluate_each(self.model, self.tokenizer, self.edits, patches, **options)

    def _edit(self, edits: Sequence[Edit], setting: Mapping[str, Any]) -> Any:
        given = {**self.settings, **setting}
        how = {"method": self.method, "probes": "none"}  # the sweep's measures ask
        patch = api.edit(self.model, self.tokenizer, edits, **how, **given)
        # Contexts are of the model: those of the first patch serve all others.
        if self.takes_templates and isinstance(patch, WeightPatch) and patch.templates:
            self.settings.setdefault("templates", patch.templates)
        return patch
