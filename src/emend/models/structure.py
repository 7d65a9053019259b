"""Find the parts of a causal language model by watching it run, not by knowing its name.

One forward over two rows of four tokens shows everything: which list of modules are the blocks,
which child of a block mixes tokens (the attention), which projection writes the MLP's answer to
the residual stream, and which modules stand between the last block and the logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from emend.errors import UnsupportedModel
from emend.models.architecture import Architecture
from emend.models.forward import evaluating, text_config
from emend.models.hooks import hooked
from emend.models.placing import device_of

EQUAL = 1e-2
"""Two rows count as equal below this relative difference (bfloat16 rounds to 2^-8)."""

MIXED = 1e-4
"""A module mixes tokens when equal inputs give outputs that differ by more than this."""

PROJECTIONS = (nn.Linear, Conv1D)
"""The modules that can be edited: a matrix, with or without a bias."""


ROUTED = (
    "its MLP is a mixture of experts without one that all tokens share, and emend does not edit "
    "experts that only some tokens are sent to"
)
"""Why a block is refused whose MLP is routed."""


@dataclass
class Call:
    """What went in and out of one module at the last position of the two probe rows."""

    module: nn.Module
    taken: Tensor | None  # (2, features)
    given: Tensor | None  # (2, features)


@dataclass
class BlockParts:
    """The modules of one block; `refusal` says why there is no dense MLP."""

    attention: nn.Module | None = None
    mlp: nn.Module | None = None
    down_projection: nn.Module | None = None
    is_gated: bool = False
    refusal: str | None = None


@dataclass
class Probe:
    """One recorded forward.

    Attributes:
        calls: per block, the calls of its submodules in the order they ran.
        last: output of the last block, (2, 4, width).
        tail: leaf modules that ran after the last block and before the head.
        raw: what the head gave, (2, 4, vocabulary).
        logits: what the model gave, (2, 4, vocabulary).
    """

    calls: list[list[Call]] = field(default_factory=list)
    last: Tensor | None = None
    tail: list[nn.Module] = field(default_factory=list)
    raw: Tensor | None = None
    logits: Tensor | None = None


def find_blocks(model: nn.Module, names: Architecture | None = None) -> nn.ModuleList:
    """Find the list of a model's blocks.

    It is the one that is named, or else the longest outermost ModuleList of equal-typed modules;
    the configured number of layers breaks ties.

    Raises:
        UnsupportedModel: the model has no such list.
    """
    named = names.part("layers", model) if names is not None else None
    if named is not None:
        if isinstance(named, nn.ModuleList) and len(named):
            return named
        raise UnsupportedModel(
            f"the layers of {type(model).__name__} are named as a {type(named).__name__}, expected "
            "a ModuleList with some: correct the name"
        )
    depth = getattr(text_config(model), "num_hidden_layers", None)
    found = [
        blocks
        for blocks in outermost_lists(model)
        if len(blocks) and len({type(block) for block in blocks}) == 1
    ]
    if not found:
        raise UnsupportedModel(
            f"{type(model).__name__} has no list of equal blocks; emend edits decoder-only "
            "transformers: pass a Hugging Face causal language model"
        )
    return max(found, key=lambda blocks: (len(blocks) == depth, len(blocks), weigh(blocks)))


def outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    """Yield every ModuleList that is not inside another one."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from outermost_lists(child)


def weigh(module: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def projection_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (out, in) of a Linear or Conv1D; None for any other module."""
    if isinstance(module, Conv1D):
        return module.weight.shape[1], module.weight.shape[0]
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return None


def run_probe(model: nn.Module, blocks: nn.ModuleList, width: int, head: nn.Module) -> Probe:
    """Run two rows of four tokens that differ everywhere but at the end, and write down who ran.

    Before each block the last position of the second row is made equal to the first row's, so
    that in every block a module whose last position differs all the same has mixed tokens.
    """
    probe = Probe(calls=[[] for _ in blocks])
    vocabulary = int(model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 4]]) % max(vocabulary, 1)
    inside = {id(module) for module in blocks.modules()}
    with ExitStack() as stack, torch.no_grad(), evaluating(model):
        for calls, block in zip(probe.calls, blocks, strict=True):
            stack.enter_context(hooked(block, _equalise(width), before=True, with_kwargs=True))
            for module in block.modules():
                if module is not block:
                    stack.enter_context(hooked(module, _record(calls), with_kwargs=True))
        for module, hook in _watch_tail(model, probe, blocks[-1], head, inside):
            stack.enter_context(hooked(module, hook))
        device = device_of(model.get_input_embeddings())  # type: ignore[operator]
        probe.logits = model(input_ids=ids.to(device), use_cache=False).logits
    return probe


def _watch_tail(
    model: nn.Module, probe: Probe, last: nn.Module, head: nn.Module, inside: set[int]
) -> Iterator[tuple[nn.Module, Any]]:
    inside = inside | {id(module) for module in head.modules()}  # PEFT may have wrapped the head

    def keep_last(module: nn.Module, taken: Any, given: Any) -> None:
        probe.last, probe.tail = first_tensor(given), []

    def keep_tail(module: nn.Module, taken: Any, given: Any) -> None:
        if probe.last is not None and probe.raw is None:
            probe.tail.append(module)

    def keep_raw(module: nn.Module, taken: Any, given: Any) -> None:
        probe.raw = given

    yield last, keep_last
    yield head, keep_raw
    for module in model.modules():
        is_leaf = next(module.children(), None) is None
        if is_leaf and id(module) not in inside:
            yield module, keep_tail


def _equalise(width: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def equal(value: Any) -> Any:
            if not _is_hidden(value, width):
                return value
            value = value.clone()
            value[1, -1] = value[0, -1]
            return value

        return tuple(map(equal, args)), {name: equal(value) for name, value in kwargs.items()}

    return hook


def _is_hidden(value: Any, width: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.ndim == 3
        and value.shape[0] == 2
        and value.shape[-1] == width
    )


def _record(calls: list[Call]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        taken = first_tensor(args)
        if taken is None:
            taken = first_tensor(kwargs.get("hidden_states", kwargs))
        calls.append(Call(module, _last_position(taken), _last_position(first_tensor(output))))

    return hook


def first_tensor(value: Any) -> Tensor | None:
    """Find the first floating-point tensor in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        found = (first_tensor(item) for item in value)
        return next((tensor for tensor in found if tensor is not None), None)
    return None


def _last_position(tensor: Tensor | None) -> Tensor | None:
    """Copy (2, T, features) or (2*T, features) at the last token, (2, features).

    A copy: Falcon adds the attention's output to the MLP's in place after both have run.
    """
    if tensor is None or tensor.ndim < 2 or tensor.shape[0] % 2:
        return None
    return tensor.reshape(2, -1, tensor.shape[-1])[:, -1].to(torch.float32, copy=True)


def _difference(rows: Tensor | None) -> float | None:
    if rows is None:
        return None
    scale = rows.abs().max().item()
    return (rows[0] - rows[1]).abs().max().item() / (scale or 1.0)


def read_block(
    block: nn.Module, calls: list[Call], width: int, names: Architecture | None = None
) -> BlockParts:
    """Find the parts of one block: those that are named, others by the calls while it ran."""
    names = names or Architecture()
    attention = names.part("attention", block) or _find_attention(block, calls)
    if attention is None:
        return BlockParts(refusal=f"its {type(block).__name__} has no part that mixes tokens")
    mlp = names.part("mlp", block)
    experts = _expert_containers(block, attention) if mlp is None else []
    if mlp is not None:
        inside = {id(module) for module in mlp.modules()} - _inside_adapters(block)
        projections = [each.module for each in calls if id(each.module) in inside]
        projections = [each for each in projections if isinstance(each, PROJECTIONS)]
    elif experts:
        mlp, projections = _find_shared(block, attention, experts, calls, width)
        if mlp is None:
            return BlockParts(attention=attention, refusal=ROUTED)
    else:
        mlp, projections = _find_mlp(block, attention, calls)
    down = next((each for each in reversed(projections) if _shape(each)[0] == width), None)
    if mlp is None or down is None:
        return BlockParts(
            attention=attention,
            refusal=f"its {type(block).__name__} has no MLP projection back to width {width}",
        )
    inner = _shape(down)[1]
    # Two layers of the inner size before it, fused to one or not: act(gate) * up.
    before = [_shape(each)[0] for each in projections if each is not down]
    gated = sum(size for size in before if size in (inner, 2 * inner)) >= 2 * inner
    return BlockParts(
        attention=attention,
        mlp=down if isinstance(mlp, PROJECTIONS) else mlp,
        down_projection=down,
        is_gated=gated,
    )


def _find_mlp(
    block: nn.Module, attention: nn.Module, calls: list[Call]
) -> tuple[nn.Module | None, list[nn.Module]]:
    """Find the heaviest child but the attention, and its projections in the order they ran.

    Where that child is a projection itself, the MLP has no module of its own (OPT), and all
    projections that are children of the block are its parts.
    """
    children = [child for child in block.children() if child is not attention]
    adapters = _inside_adapters(block)
    ran = [
        call.module
        for call in calls
        if isinstance(call.module, PROJECTIONS) and id(call.module) not in adapters
    ]
    owned = {id(child): {id(module) for module in child.modules()} for child in children}
    children = [child for child in children if any(id(each) in owned[id(child)] for each in ran)]
    if not children:
        return None, []
    heaviest = max(children, key=weigh)
    if isinstance(heaviest, PROJECTIONS):
        loose = {id(child) for child in children}
        return heaviest, [each for each in ran if id(each) in loose]
    return heaviest, [each for each in ran if id(each) in owned[id(heaviest)]]


def _find_shared(
    block: nn.Module,
    attention: nn.Module,
    experts: list[nn.Module],
    calls: list[Call],
    width: int,
) -> tuple[nn.Module | None, list[nn.Module]]:
    """Find the expert that every token passes through, and its projections in the order they ran.

    It is the heaviest part of the block outside of the attention and the routed experts that has
    a projection of its own back to the residual width, and one before it.
    """
    routed = {id(module) for each in experts for module in each.modules()}
    skipped = routed | {id(module) for module in attention.modules()}
    best: tuple[int, nn.Module | None, list[nn.Module]] = (0, None, [])
    for part in block.modules():
        inside = {id(module) for module in part.modules()}
        if part is block or inside & skipped:
            continue
        called = [call.module for call in calls if id(call.module) in inside]
        ran = [module for module in called if projection_shape(module)]
        if len(ran) > 1 and _shape(ran[-1])[0] == width and weigh(part) > best[0]:
            best = weigh(part), part, ran
    return best[1], best[2]


def _inside_adapters(block: nn.Module) -> set[int]:
    """List the modules kept by name in a ModuleDict: what PEFT adds to a projection."""
    named = (module for module in block.modules() if isinstance(module, nn.ModuleDict))
    return {id(inside) for module in named for inside in module.modules()}


def _shape(module: nn.Module) -> tuple[int, int]:
    shape = projection_shape(module)
    assert shape is not None
    return shape


def _find_attention(block: nn.Module, calls: list[Call]) -> nn.Module | None:
    """Find the child whose last position differs most between the rows, relative to its input.

    Where attention adds little, the MLP after it is given inputs that differ little too; what
    tells them apart is by how much the difference grows.
    """
    children = {id(child) for child in block.children()}
    best: tuple[float, nn.Module] | None = None
    for call in calls:
        taken, given = _difference(call.taken), _difference(call.given)
        if id(call.module) not in children or taken is None or given is None:
            continue
        growth = given / max(taken, MIXED)
        if taken < EQUAL and given > MIXED and (best is None or growth > best[0]):
            best = (growth, call.module)
    return best[1] if best else None


def _expert_containers(block: nn.Module, attention: nn.Module) -> list[nn.Module]:
    """Find what holds routed experts: weights of three axes, or a ModuleList."""
    skipped = {id(module) for module in attention.modules()}
    return [
        module
        for module in block.modules()
        if id(module) not in skipped
        and (
            (isinstance(module, nn.ModuleList) and len(module) > 1)
            or any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))
        )
    ]
