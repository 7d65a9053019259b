"""Tasks of lm-evaluation-harness on a model before and after its patches, by the harness itself.

The harness reads the model through its own class for models of transformers, with its own
tokenisation and prompts, so that the values are comparable with those that it gives elsewhere. A
patch of the weights acts there as in a merged checkpoint. Memories and prompts act where a prompt
ends, which the harness does not state: they are refused.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emend import _identity, models
from emend.errors import InvalidInput, MissingExtra, UnsupportedModel, first_line

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

Values = dict[str, dict[str, float]]
"""By task and metric."""


@dataclass(frozen=True)
class Tasks:
    """Which tasks are run, and how.

    Attributes:
        names: Tasks or groups of the harness, or of `include_path`.
        include_path: A directory with task files (YAML) of one's own; only these are known then.
        limit: The first N documents of each task; None for all.
        batch_size: Requests in one forward pass.
    """

    names: tuple[str, ...]
    include_path: str | None = None
    limit: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.names:
            raise InvalidInput("no tasks are named, expected at least one: name it")
        if self.include_path is not None and not Path(self.include_path).is_dir():
            raise InvalidInput(
                f"include_path {self.include_path} is no directory, expected one with task files"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What the values depend on, for `_identity.key`: the task files by their content."""
        path = self.include_path
        files = None if path is None else _identity.directory_digest(Path(path))
        return {"names": self.names, "files": files, "limit": self.limit}

    def run(self, model: nn.Module, tokenizer: Any) -> Values:
        """Run the tasks on a model with what is attached to it.

        Args:
            model: A causal language model of transformers.
            tokenizer: Its tokenizer.

        Returns:
            The harness' aggregated metrics of each task ("acc", "acc_norm").

        Raises:
            InvalidInput: A task is unknown or cannot be read.
            MissingExtra: lm-evaluation-harness is not installed.
            UnsupportedModel: The model is an endpoint, or a patch acts where prompts end.
        """
        _check(model)
        harness, wrapper, manager = _harness()
        try:
            known = manager(include_path=self.include_path, include_defaults=not self.include_path)
            with _as_it_was(model):
                found = harness.simple_evaluate(
                    model=wrapper(
                        pretrained=model,
                        tokenizer=copy.deepcopy(tokenizer),  # it gets a padding token there
                        batch_size=self.batch_size,
                    ),
                    tasks=list(self.names),
                    task_manager=known,
                    limit=self.limit,
                    bootstrap_iters=0,
                    log_samples=False,
                )
        except (KeyError, ValueError, OSError, TypeError) as error:
            names = ", ".join(self.names)
            raise InvalidInput(
                f"lm-evaluation-harness cannot run {names}: {first_line(error)} "
                "(`lm-eval ls tasks` lists its tasks)"
            ) from error
        return _values(found["results"])

    def compare(self, model: nn.Module, tokenizer: Any) -> dict[str, dict[str, Any]]:
        """Run the tasks with all patches suspended, and with them acting; see `run`.

        Returns:
            By "TASK METRIC" the values `before` and `after`.
        """
        _check(model)
        with models.base(model):
            before = self.run(model, tokenizer)
        return paired(before, self.run(model, tokenizer))


def paired(before: Values, after: Values) -> dict[str, dict[str, Any]]:
    """Pair two runs of the same tasks: by "TASK METRIC" the values `before` and `after`."""
    return {
        f"{task} {name}": {"before": value, "after": after[task][name]}
        for task, metrics in before.items()
        for name, value in metrics.items()
    }


def _harness() -> tuple[Any, Any, Any]:
    """Import the harness, its class for models of transformers, and its task manager."""
    try:
        harness = importlib.import_module("lm_eval")
        wrapper = importlib.import_module("lm_eval.models.huggingface").HFLM
        manager = importlib.import_module("lm_eval.tasks").TaskManager
    except ImportError as error:
        raise MissingExtra.of("lm-eval", "lmeval", "run tasks of lm-evaluation-harness") from error
    return harness, wrapper, manager


def _check(model: nn.Module) -> None:
    if isinstance(model, models.Endpoint):
        raise UnsupportedModel("tasks need a model's probabilities, which an endpoint gives not")
    for one in models.attachments(model):
        if isinstance(one, (models.HookAttachment, models.TextAttachment)):
            raise UnsupportedModel(
                f"the {one.patch.method} patch acts where a prompt ends, which "
                "lm-evaluation-harness does not state, expected a patch of the weights: "
                "leave the tasks out"
            )


@contextmanager
def _as_it_was(model: nn.Module) -> Generator[None, None, None]:
    """Put the model back into its mode after the block; the harness calls `eval`."""
    training = model.training
    try:
        yield
    finally:
        model.train(training)


def _values(results: Mapping[str, Mapping[str, Any]]) -> Values:
    """Take the numbers of each task; "acc,none" is `acc`, another filter is named."""
    return {
        task: {
            _metric(name): float(value)
            for name, value in sorted(entry.items())
            if isinstance(value, (int, float)) and "," in name and "_stderr" not in name
        }
        for task, entry in results.items()
    }


def _metric(name: str) -> str:
    metric, _, by = name.partition(",")
    return metric if by == "none" else f"{metric} ({by})"


def tasks_of(
    names: Sequence[str], include_path: str | None = None, limit: int | None = None
) -> Tasks | None:
    """Return the tasks of a plan or command; None where none are named.

    Raises:
        InvalidInput: A directory or limit is given without tasks.
    """
    if not names:
        if include_path or limit:
            raise InvalidInput("include_path and task_limit need tasks: name them")
        return None
    return Tasks(tuple(names), include_path, limit)
