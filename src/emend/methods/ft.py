"""FT: fine-tune down-projections on the new facts, in mini-batches, with what else is said held.

Zhu et al. 2020, arXiv 2012.00363 (the box); Meng et al. 2022, arXiv 2202.05262 (FT-L); Zhang et
al. 2024, arXiv 2401.01286 (FT-M); LocFT-BF, arXiv 2509.22072 (mini-batches at chosen layers).

    minimise over Delta:   mean over edits of  L(x, o; W + Delta)      subject to |Delta_ij| <= eps
                           + hold x mean KL(before || after)

    objective   L(x, o), prompt x and target tokens o_1..o_n
    "ft-m"      -1/n sum_t log p(o_t | x, o_1..o_(t-1)): ordinary cross-entropy on the target
    "ft-l"      -1/n sum_t log p(o_t | x): all target tokens at the prompt's last position, which
                is wrong for targets of several tokens, and published so

Adam takes no step on a batch whose loss is below 0.01, and ends when the mean over all batches of
a pass is. Naming trap: in ROME's tables "FT+L" means the box; in EasyEdit "FT-L" means the
objective, usually without a box.

Where this deviates, by default: an early block is trained and not a late one, whose inputs differ
less from subject to subject; a token that is probable enough adds no loss (`enough`); and what the
model states of the subject and says of others like it is held (`editing/held.py`).
``original=True`` gives the published form.

Where it deviates always: the model is never changed. What is trained is the change itself, in
float32, added to the output of each down-projection by a hook; for Adam without weight decay that
is the same as training the matrix. Only the blocks from the first trained one up are run. The
change of one matrix is shared by all edits, so that none can be taken out alone.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from emend._settings import Count, Positive
from emend.editing.answers import answer_batches
from emend.editing.assemble import ENOUGH, single_layer
from emend.editing.held import HeldConfig, held_batches
from emend.editing.training import LEARNED, TrainingSettings, train
from emend.edits import Edit
from emend.methods._method import method
from emend.models import ModelView
from emend.models.forward import evaluating
from emend.models.hooks import changing, frozen
from emend.patches import Dense, WeightPatch, describe_base


@dataclass(frozen=True)
class FtConfig(HeldConfig):
    """Settings of fine-tuning. Those that are None differ where `original` is set."""

    objective: Literal["ft-m", "ft-l"] = "ft-m"
    """What is minimised: cross-entropy on the target (ft-m) or at the last prompt token (ft-l)."""
    original: bool = False
    """The published form: a late block, a small step, nothing held."""
    layers: tuple[int, ...] | None = None
    """Blocks whose down-projections are trained; by default the one at 0.17 of the depth (gated or
    rotary) or 0.35 (others); original: at 0.67."""
    steps: Count = 25
    """Passes over all edits, at most."""
    learning_rate: Positive | None = None
    """Step size of Adam; by default 5e-3, original: 5e-4."""
    box: Positive | None = None
    """Bound on the change of each weight (the L-infinity box); None for none."""
    batch_size: Count = 32
    """Edits in one step."""


@method(
    title="FT: fine-tune one MLP matrix on the new facts, in mini-batches, with other answers held",
    paper="Zhu et al. 2020, arXiv 2012.00363; Zhang et al. 2024, arXiv 2401.01286",
    when="a strong and simple baseline; quick, but no edit can be taken out alone",
    version=2,
)
def ft(model: Any, tokenizer: Any, edits: tuple[Edit, ...], config: FtConfig) -> WeightPatch:
    """Train the change of the chosen matrices on all edits together."""
    started = time.perf_counter()
    view = ModelView(model)
    config = filled(config, view)
    assert config.layers is not None
    with evaluating(model), frozen(model):
        deltas = _trained(view, tokenizer, edits, config)
    seconds = time.perf_counter() - started
    names = {layer: view.name_of(view.down_projection(layer)) for layer in config.layers}
    return WeightPatch(
        factors={names[layer]: Dense(delta) for layer, delta in deltas.items()},
        edits=edits,
        method="ft",
        config=dataclasses.asdict(config),
        base=describe_base(model),
        templates=("{}",),
        timing={"precompute": 0.0, "search": seconds, "per_edit": seconds / len(edits)},
    )


def filled(config: FtConfig, view: ModelView) -> FtConfig:
    """The settings checked, with layers from the model's depth and what is None written out.

    Raises:
        InvalidInput: A setting has no meaning.
    """
    layers, original = config.layers, config.original
    if layers is None:
        late = view.nearest_editable(round(0.67 * view.num_layers))
        layers = (late if original else single_layer(view, None),)
    layers = view.numbered(layers)
    for layer in layers:
        view.down_projection(layer)  # refused now where it cannot be edited
    usual: dict[str, Any] = {
        "learning_rate": 5e-4 if original else 5e-3,
        "enough": 1.0 if original else ENOUGH,
        "statements": 0 if original else 4,
        "others": 0 if original else 4,
    }
    unset = {name: value for name, value in usual.items() if getattr(config, name) is None}
    return dataclasses.replace(config, layers=tuple(sorted(set(layers))), **unset)


def _trained(
    view: ModelView, tokenizer: Any, edits: tuple[Edit, ...], config: FtConfig
) -> dict[int, Tensor]:
    """The change (out, in) of each layer's matrix."""
    assert config.layers is not None and config.learning_rate is not None
    assert config.enough is not None
    assert config.statements is not None and config.others is not None
    first, size = config.layers[0], config.batch_size
    batches = answer_batches(
        *(view, tokenizer, edits, first, size), at_prompt=config.objective == "ft-l"
    )
    held = held_batches(
        *(view, tokenizer, edits, first),
        statements=config.statements,
        others=config.others,
        seed=config.seed,
    )
    deltas = {
        layer: torch.zeros(
            view.hidden_size,
            view.intermediate_size(layer),
            device=view.device(layer),
            requires_grad=True,
        )
        for layer in config.layers
    }

    @contextmanager
    def acting() -> Generator[None, None, None]:
        with ExitStack() as stack:
            for layer, delta in deltas.items():
                stack.enter_context(changing(view.down_projection(layer), delta))
            yield

    @torch.no_grad()
    def boxed() -> None:
        box = config.box
        if box is not None:
            for delta in deltas.values():
                delta.clamp_(-box, box)

    settings = TrainingSettings(
        config.steps, config.learning_rate, config.enough, LEARNED, config.hold
    )
    train(
        *(view, list(deltas.values()), batches, held, settings, acting),
        label="fine-tuning",
        bound=boxed,
    )
    return {layer: delta.detach() for layer, delta in deltas.items()}
