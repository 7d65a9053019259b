"""LoRA: a low-rank adapter, trained on the new facts.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685; as an
editor, Zhang et al. 2024, arXiv 2401.01286.

    h = W x + (alpha / r) B A x,    minimise over A, B:  mean over edits of -1/n sum_t log p(o_t)

    paper   here                what
    r       rank                rows of A
    alpha   ALPHA               the change is scaled by alpha / r; the patch has it in B
    A, B    factors             A starts at random (by seed), B at zero
    W       modules, layers     by default down-projections of five early layers; as published query
                                and value projections of all layers

The adapter is PEFT's (the extra `peft`). It is injected for training and removed again, also after
an error: the modules put back are the same objects as before.

Deviations from the usual script: several edits share a batch and are trained together; the seed is
a setting and torch's global generator is restored; in a half-precision model the adapter is trained
in float32. One adapter holds all edits, so that none can be taken out alone. By default early MLPs
are adapted, whose inputs differ from subject to subject (an adapter of the attention changes the
answers for all of them alike). Steps are small and end where each target is probable enough
(`enough`), and what the model states of the subject and of others like it is preserved
(`editing/preservation.py`). The published form, ``original=True``, lowers the loss without end,
which ruins a small model.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emend._settings import Count, NotNegative, Positive, Seed
from emend.editing import ENOUGH, Session
from emend.editing.aims import TargetLikelihood
from emend.editing.layers import single_layer
from emend.editing.preservation import PRESERVED, preserved_batches
from emend.editing.training import LEARNED, TrainingSettings, answer_batches, train
from emend.errors import MissingExtra, UnknownName, UnsupportedModel
from emend.methods._method import method
from emend.models import ModelView
from emend.models.forward import evaluating
from emend.models.hooks import frozen
from emend.models.placing import device_of
from emend.models.structure import projection_shape
from emend.models.wrapping import is_adapted
from emend.patches import LowRank, WeightPatch

ADAPTER = "emend"
"""The adapter's name while it is in the model."""


REACH = 2
"""Layers on either side of the middle one that are adapted by default."""

BATCH = 32
"""Edits in one step."""

ALPHA = 32.0
"""The change is scaled by alpha / rank; with Adam another alpha is nearly another step size (the
paper, section 4.1)."""


@dataclass(frozen=True)
class Form:
    """The settings in which the published form and emend's own differ."""

    steps: int
    learning_rate: float
    dropout: float
    enough: float
    preserved: int
    stop_below: float


ORIGINAL = Form(70, 5e-3, 0.1, 1.0, 0, 0.0)
DEFAULT = Form(40, 2e-3, 0.0, ENOUGH, PRESERVED, LEARNED)


@method(
    title="LoRA: a low-rank adapter of early MLPs, trained on the new facts by PEFT",
    paper="Hu et al. 2021, arXiv 2106.09685; Zhang et al. 2024, arXiv 2401.01286",
    when="a baseline to compare with; answers about other subjects change too: `ft` is better",
    avoid="cases where answers about other subjects must stay",
    continues="sequential",
    version=3,
)
def lora(
    session: Session,
    *,
    layers: tuple[int, ...] | None = None,
    modules: tuple[str, ...] | None = None,
    rank: Count = 8,
    steps: Count | None = None,
    learning_rate: Positive | None = None,
    hold: NotNegative = 1.0,
    original: bool = False,
    seed: Seed = 0,
) -> WeightPatch:
    """Train one adapter on all edits together.

    Args:
        session: The edits and the engine.
        layers: Layers to adapt; by default five around 0.17 of the depth (gated or rotary) or 0.35
            (others), published: all.
        modules: Ends of the names of the modules to adapt, such as q_proj; by default
            down-projections (in a layer without one that can be edited, as published: queries and
            values).
        rank: Rank of the change of each matrix.
        steps: Most passes over all edits; by default 40, published 70 (30 for GPT-2 XL).
        learning_rate: Step size of Adam; by default 2e-3, published 5e-3.
        hold: Factor on the mean KL(before || after) of what is preserved.
        original: The published form: many large steps with dropout, nothing preserved.
        seed: Seed of the adapter's start and dropout, the names of other subjects, and the order
            in which they are preserved.
    """
    require_peft()
    _refuse_adapted(session.model)
    form = ORIGINAL if original else DEFAULT
    view = session.view
    chosen = _layers(view, layers, original)
    by_name = original or modules is not None
    names = adapted_modules(view, chosen, modules) if by_name else early_modules(view, chosen)
    settings = TrainingSettings(
        *(steps or form.steps, learning_rate or form.learning_rate),
        aim=TargetLikelihood(form.enough),
        stop_below=form.stop_below,
        hold=hold,
    )
    session.fill(layers=chosen, steps=settings.steps, learning_rate=settings.learning_rate)
    where = (view, session.tokenizer, session.edits, chosen[0])
    with evaluating(session.model), frozen(session.model):
        batches = answer_batches(*where, BATCH)
        count = form.preserved
        preserved = preserved_batches(*where, statements=count, others=count, seed=seed)
        adapter = {"r": rank, "lora_alpha": ALPHA, "lora_dropout": form.dropout}
        with _seeded(seed), injected(session.model, names, adapter) as adapters:
            each = (one for adapter in adapters.values() for one in _matrices(adapter))
            weights = [one.requires_grad_(True) for one in each]
            in_model = nullcontext  # the adapter acts without a hook
            label = "training the adapter"
            train(view, weights, batches, preserved, settings, in_model, label=label)
            factors = {name: _factor(one) for name, one in adapters.items()}
    return session.patch(factors)


def require_peft() -> None:
    """Check that PEFT is installed.

    Raises:
        MissingExtra: It is not installed.
    """
    # An extra, not needed by the core; checked before any work.
    if importlib.util.find_spec("peft") is None:
        raise MissingExtra.of("peft", "peft", "train LoRA adapters")


def _refuse_adapted(model: nn.Module) -> None:
    if is_adapted(model):
        raise UnsupportedModel(
            "the model has adapters of PEFT in its layers already, expected none for a method that "
            "trains one: write those into its weights (model.merge_and_unload()), take them out "
            "(model.unload()), or use another method"
        )


def _layers(view: ModelView, layers: Sequence[int] | None, original: bool) -> tuple[int, ...]:
    """Return the layers to adapt, checked, ascending."""
    if layers is None:
        layers = _early(view) if view.editable and not original else range(view.num_layers)
    return tuple(sorted(set(view.numbered(layers))))


def _early(view: ModelView) -> list[int]:
    """Return the editable layers around the one that other methods edit."""
    middle = single_layer(view, None)
    return [layer for layer in view.editable if abs(layer - middle) <= REACH]


def early_modules(view: ModelView, layers: Sequence[int]) -> list[str]:
    """Return names of the layers' down-projections; of queries and values where one has none."""
    found: list[str] = []
    for layer in layers:
        if layer in view.editable:
            found.append(view.name_of(view.down_projection(layer)))
        else:
            found += adapted_modules(view, [layer])
    return found


def adapted_modules(
    view: ModelView, layers: Sequence[int], ends: Sequence[str] | None = None
) -> list[str]:
    """Return the full names of the modules to adapt, in the order of the layers.

    Args:
        view: The model.
        layers: The layers to adapt.
        ends: Ends of names, each of one or more whole parts ("q_proj", "mlp.up_proj"). None takes
            the attention's query and value projections by name; where there are none, those with
            more outputs than the hidden size (queries, keys and values in one); where there are
            none either, all of the attention.

    Raises:
        UnknownName: No linear module of these layers has such a name.
    """
    found: list[str] = []
    for layer in layers:
        if ends is None:
            found += [view.name_of(module) for module in _queries_and_values(view, layer)]
            continue
        linear = [m for m in view.layer(layer).modules() if projection_shape(m)]
        named = [view.name_of(module) for module in linear]
        for end in ends:
            chosen = [name for name in named if f".{name}".endswith(f".{end}")]
            if not chosen:
                raise UnknownName("module", end, {name.rpartition(".")[2] for name in named})
            found += chosen
    return list(dict.fromkeys(found))


def _queries_and_values(view: ModelView, layer: int) -> list[nn.Module]:
    named = list(view.attention(layer).named_modules())
    shapes = {name: shape for name, module in named if (shape := projection_shape(module))}
    chosen = [n for n in shapes if re.match(r"(q|v|query|value)(_|$)", n.rpartition(".")[2])]
    chosen = chosen or [name for name, shape in shapes.items() if shape[0] > view.hidden_size]
    modules = dict(named)
    return [modules[name] for name in chosen or shapes]


@contextmanager
def injected(
    model: nn.Module, names: Sequence[str], config: Mapping[str, Any]
) -> Generator[dict[str, Any], None, None]:
    """Inject PEFT's adapter into the model inside a `with` block.

    Args:
        model: The model. The caller must restore its gradient flags (`frozen`).
        names: Full names of the modules to adapt.
        config: Rank, scale and dropout, as PEFT names them.

    Yields:
        PEFT's layers by these names. Afterwards the original modules are back, and attributes that
        PEFT set on the model are removed, also after an error.
    """
    import peft

    before = {name: model.get_submodule(name) for name in names}
    own = set(vars(model))
    settings = peft.LoraConfig(
        **config,
        target_modules=list(names),
        fan_in_fan_out=any(not isinstance(module, nn.Linear) for module in before.values()),
    )
    try:
        with _placed(before.values()):
            peft.inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
        adapters: dict[str, Any] = {name: model.get_submodule(name) for name in names}
        for adapter in adapters.values():
            adapter.lora_A.float()
            adapter.lora_B.float()
        yield adapters
    finally:
        for name, module in before.items():
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module)
        for name in set(vars(model)) - own:
            delattr(model, name)


@contextmanager
def _placed(modules: Iterable[nn.Module]) -> Generator[None, None, None]:
    """Place stand-ins for offloaded weights on the devices where their modules compute.

    PEFT puts an adapter on the device of the module's weight; on the meta device it would have no
    values.
    """
    offloaded: list[tuple[nn.Module, nn.Parameter]] = []
    try:
        for module in modules:
            weight = module.get_parameter("weight")
            if weight.device.type == "meta":
                empty = torch.empty(1, dtype=weight.dtype, device=device_of(module))
                offloaded.append((module, weight))  # one number, expanded
                module.register_parameter(
                    "weight", nn.Parameter(empty.expand(weight.shape), requires_grad=False)
                )
        yield
    finally:
        for module, weight in offloaded:
            module.register_parameter("weight", weight)


@contextmanager
def _seeded(seed: int) -> Generator[None, None, None]:
    """Seed torch's global generators, from which PEFT and dropout draw, and restore them after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _matrices(adapter: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Return A (r, in) and B (out, r), whatever the layout of the module's weight."""
    return adapter.lora_A[ADAPTER].weight, adapter.lora_B[ADAPTER].weight


def _factor(adapter: Any) -> LowRank:
    a, b = _matrices(adapter)
    return LowRank(a.detach(), b.detach() * adapter.scaling[ADAPTER])
