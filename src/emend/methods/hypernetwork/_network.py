"""What a hypernetwork is: a module from the token gradients of edits to factors of changes."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from emend._brief import brief
from emend._registry import Registry
from emend._settings import Count, Positive, Seed
from emend.editing.gradients import TokenGradients, linear_modules, token_gradients
from emend.editing.rows import Row
from emend.edits import Edit
from emend.errors import BrokenFile
from emend.methods._training import STATE, Progress, load_state, save_state
from emend.methods.hypernetwork._even import Objective, even_gradients
from emend.models import ModelView, encode
from emend.models.hooks import hooked
from emend.models.placing import device_of, widened

Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of each edited matrix, by its module's full name."""


@dataclass(frozen=True)
class NetworkSettings:
    """Settings that all hypernetworks share: how they are trained."""

    layers: tuple[int, ...] | None = None
    """Blocks whose MLP matrices are edited; by default the last third, at least three."""
    steps: Count = 600
    """Steps of training, at most."""
    batch_size: Count = 10
    """Edits in one step, each edited apart (MALMEN: together)."""
    learning_rate: Positive = 1e-3
    """Step size of the optimiser; published ones (1e-6) are for models a thousand times larger."""
    validate_every: Count = 50
    """Steps between validations; a checkpoint is written after each."""
    patience: Count = 6
    """Validations without a better score after which training stops."""
    seed: Seed = 0
    """Seed of the first weights and of all draws."""
    objective: Objective = "target"
    """What an edit is for: to make its target probable (target), or as probable as its original
    (even, BiasEdit)."""


@brief
@dataclass(frozen=True)
class Factors:
    """A change of one matrix: sum over n of outputs[n] inputs[n]^T.

    Attributes:
        inputs: (N, in).
        outputs: (N, out).
        rows: (N,) int64, the edit that each row belongs to; None where all edits share the rows.
    """

    inputs: Tensor
    outputs: Tensor
    rows: Tensor | None


@dataclass(frozen=True)
class Reading:
    """What a hypernetwork reads of E edits.

    Attributes:
        gradients: Token gradients of each edited matrix.
        vectors: (E, T, hidden_size) embeddings of "old >> new || input"; None where it reads no
            text.
        lengths: (E,) int64, how many of the T are real.
    """

    gradients: Mapping[str, TokenGradients]
    vectors: Tensor | None = None
    lengths: Tensor | None = None


class Hypernetwork(nn.Module, ABC):
    """A network for the named matrices of one model.

    Args:
        shapes: The edited matrices.
        width: Size of the model's embeddings.
        settings: Its settings.

    Attributes:
        reads_text: Whether it is given the text of the edit.
    """

    reads_text: ClassVar[bool] = False
    settings_type: ClassVar[type[NetworkSettings]] = NetworkSettings

    def __init__(self, shapes: Shapes, width: int, settings: Any) -> None:
        super().__init__()
        self.shapes = {name: (int(out), int(taken)) for name, (out, taken) in shapes.items()}
        self.width = width
        self.settings = settings

    @abstractmethod
    def observe(self, reading: Reading) -> None:
        """Take what is about to be trained on into the running statistics."""

    @abstractmethod
    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Return the change of each matrix."""

    @abstractmethod
    def optimizer(self) -> torch.optim.Optimizer:
        """Return a fresh optimiser of everything that is trained."""

    @abstractmethod
    def objective(self, edited: Tensor, moved: Tensor) -> Tensor:
        """Return the loss of a step.

        Args:
            edited: Mean negative log-likelihood of the targets after the edit.
            moved: Mean KL divergence of the locality texts, base model from edited.
        """

    def after_gradient(self) -> None:
        """Change the gradients between the backward pass and the optimiser's step."""

    def after_step(self) -> None:
        """Change the weights after the optimiser's step."""

    def validated(self, success: float) -> None:
        """Take note of the share of validation edits that succeed."""

    def describe(self) -> dict[str, Any]:
        """Return what is needed to build it again, JSON-able."""
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "width": self.width,
            "settings": dataclasses.asdict(self.settings),
        }


def networks() -> Registry[type[Hypernetwork]]:
    """Return the hypernetworks there are."""
    return Registry(
        kind="hypernetwork",
        packages=["emend.methods.hypernetwork"],
        group="emend.hypernetworks",
        attribute="Network",
    )


def read_edits_for(
    network: Hypernetwork,
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    rows: Sequence[Row],
    batch_size: int = 32,
) -> Reading:
    """Compute what the network reads of edits.

    Args:
        network: Determines which matrices, and whether it reads the text.
        view: The model, with nothing attached.
        tokenizer: Its tokenizer.
        edits: The edits.
        rows: Their prompts and targets; see `_even.rows_to_read`.
        batch_size: Rows in one pass.
    """
    modules = linear_modules(view, list(network.shapes))
    gradients = token_gradients(view, rows, modules, batch_size=batch_size)
    if network.settings.objective == "even":
        gradients = even_gradients(view, rows, gradients)
    if not network.reads_text:
        return Reading(gradients)
    texts = [f"{edit.original or ''} >> {edit.target.strip()} || {edit.text}" for edit in edits]
    encoded = encode(tokenizer, texts)
    device = device_of(view.embeddings)
    with torch.no_grad():
        vectors = view.embeddings(encoded.input_ids.to(device)).float().cpu()
    return Reading(gradients, vectors, encoded.lengths)


@contextmanager
def edited(
    view: ModelView, factors: Mapping[str, Factors], owners: Tensor
) -> Generator[None, None, None]:
    """Let each row of a batch be run by the model with its own edit; gradients reach the factors.

    Args:
        view: The model.
        factors: The change of each matrix, of several edits.
        owners: (B,) int64, the edit of each row of the batch.
    """
    with ExitStack() as stack:
        for name, module in linear_modules(view, list(factors)).items():
            stack.enter_context(hooked(module, _adds(factors[name], owners)))
        yield


def _adds(factors: Factors, owners: Tensor) -> Any:
    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        given = widened(args[0].reshape(len(owners), -1, args[0].shape[-1]))  # (B, T, in)
        weights = given @ factors.inputs.to(given).T  # (B, T, N)
        if factors.rows is not None:
            own = owners[:, None] == factors.rows  # (B, N)
            weights = weights * own[:, None].to(weights)
        change = (weights @ factors.outputs.to(weights)).reshape(output.shape)
        return (widened(output) + change).to(output.dtype)

    return add


def save_network(
    directory: Path,
    method: str,
    network: Hypernetwork,
    base: Mapping[str, Any],
    validation: Progress,
) -> None:
    """Write a network: weights in bfloat16, which an edit does not show, statistics in float32."""
    trained = {name for name, _ in network.named_parameters()}
    tensors = {
        name: tensor.to(torch.bfloat16 if name in trained else torch.float32)
        for name, tensor in network.state_dict().items()
    }
    save_state(directory, method, base, validation, tensors, **network.describe())


def load_network(
    directory: Path, method: str, base: Mapping[str, Any], *, allow_other_base: bool = False
) -> Hypernetwork:
    """Read a trained network back; see `load_state`.

    Raises:
        BrokenFile: The file cannot be read.
        InvalidInput: It is of another method, or trained on another model.
    """
    tensors, card = load_state(directory, method, base, allow_other_base=allow_other_base)
    kind = networks().get(method)
    known = {field.name for field in dataclasses.fields(kind.settings_type)}
    given: dict[str, Any] = {
        name: tuple(cast("list[Any]", value)) if isinstance(value, list) else value
        for name, value in card["settings"].items()
        if name in known
    }
    shapes = {name: (shape[0], shape[1]) for name, shape in card["shapes"].items()}
    network = kind(shapes, card["width"], kind.settings_type(**given))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise BrokenFile(
            f"{directory / STATE} does not fit its own description: train the network again"
        ) from error
    return network.eval()
