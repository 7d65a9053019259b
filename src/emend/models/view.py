"""ModelView: what an editor needs to know of any Hugging Face causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from emend.errors import InvalidInput, NumericalFailure, UnsupportedModel
from emend.models.architecture import Names, architecture_of
from emend.models.forward import text_config
from emend.models.placing import check_differentiable, device_of, dtype_of, weight_of, widened
from emend.models.structure import (
    BlockParts,
    Probe,
    find_blocks,
    projection_shape,
    read_block,
    run_probe,
)
from emend.models.wrapping import plain_modules, unwrapped

SCALES: tuple[str, ...] = (
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
)
"""Configuration fields that hold a factor on the logits. Whether a model multiplies or divides
by it is read off the model's own logits."""

CAPS: tuple[str, ...] = ("final_logit_softcapping", "logits_soft_cap")
"""Configuration fields that hold the cap c of c * tanh(logits / c)."""


class ModelView:
    """The structure of a causal language model, found by running it once on four tokens.

    Args:
        model: any Hugging Face causal language model whose blocks hold one attention and one
            MLP each. It is not changed. Of a mixture of experts only what all tokens pass
            through can be edited: dense blocks and shared experts; see `editable`.
        layers: name of the list of its blocks; None finds it. This and the other names come
            before those that a package registers for the model's type; see `Architecture`.
        attention: name of the attention in a block.
        mlp: name of the MLP in a block.
        norm: name of the norm between the last block and the head, in the model.

    Attributes:
        model: the model itself, out of what is wrapped around it (PEFT, torch.compile).
        layers: its transformer blocks.
        num_layers: number of blocks.
        hidden_size: width of the residual stream.
        vocabulary: number of logits.
        embeddings: the token embedding.
        final_norm: the norm between the last block and the head (Identity where there is none).
        lm_head: the projection to the vocabulary.
        findings: what was found out by running blocks, by what and of which block; it follows
            from the structure, so that it need not be found out again. See `partial`.

    Raises:
        UnsupportedModel: no blocks, no head, no dense MLP in any block, or logits that cannot
            be reproduced from the last block's output.
        NumericalFailure: the model's logits are not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        layers: Names | None = None,
        attention: Names | None = None,
        mlp: Names | None = None,
        norm: Names | None = None,
    ) -> None:
        model = _editable_model(model)
        check_differentiable(model)
        names = architecture_of(model, layers=layers, attention=attention, mlp=mlp, norm=norm)
        self.model = model
        self.embeddings = _part(model, "get_input_embeddings")
        self.lm_head = _part(model, "get_output_embeddings")
        self.layers = find_blocks(model, names)
        self.num_layers = len(self.layers)
        self.hidden_size = _width(model, self.embeddings)
        probe = run_probe(model, self.layers, self.hidden_size, self.lm_head)
        assert probe.logits is not None
        self.vocabulary = int(probe.logits.shape[-1])
        self._parts = [
            read_block(block, calls, self.hidden_size, names)
            for block, calls in zip(self.layers, probe.calls, strict=True)
        ]
        refusals = [part.refusal for part in self._parts]
        if all(refusals):
            raise UnsupportedModel(self._refuse(refusals[0]))
        named = names.part("norm", model)
        tail = probe.tail if named is None else [named]
        self._tail = [module for module in tail if not isinstance(module, nn.Dropout)]
        norms = (module for module in self._tail if projection_shape(module) is None)
        self.final_norm: nn.Module = next(norms, nn.Identity())
        self._finish = self._find_finish(probe)
        self.findings: dict[tuple[str, int], bool] = {}
        self._names = {id(module): name for name, module in plain_modules(model)}

    def layer(self, layer: int) -> nn.Module:
        """Return block `layer`, counted from 0; negative numbers count from the end."""
        return self.layers[self._check(layer)]

    def attention(self, layer: int) -> nn.Module:
        """Return the child of block `layer` that mixes tokens."""
        attention = self._parts[self._check(layer)].attention
        if attention is None:
            raise UnsupportedModel(self._refuse(self._parts[layer].refusal))
        return attention

    def mlp(self, layer: int) -> nn.Module:
        """Return the child of block `layer` that holds the MLP.

        OPT keeps its two projections in the block itself; there it is the down-projection.
        BLOOM's MLP adds the residual before it returns: read the MLP's own contribution from
        `down_projection`. In a block with a mixture of experts it is the expert that all tokens
        pass through.
        """
        part = self._dense(layer)
        assert part.mlp is not None
        return part.mlp

    def down_projection(self, layer: int) -> nn.Module:
        """Return the projection from intermediate to hidden size in block `layer`'s MLP."""
        part = self._dense(layer)
        assert part.down_projection is not None
        return part.down_projection

    def matrix(self, layer: int) -> Tensor:
        """Return a view of the down-projection's weight, (hidden_size, intermediate_size).

        Where the weight is offloaded it is fetched, and the view is of a copy on the CPU.

        Raises:
            InvalidInput: The weight is quantised.
        """
        weight = weight_of(self.down_projection(layer))
        return weight.T if self.is_transposed(layer) else weight

    def is_transposed(self, layer: int) -> bool:
        """Return whether the weight is stored as (in, out), as in GPT-2's Conv1D."""
        return not isinstance(self.down_projection(layer), nn.Linear)

    def intermediate_size(self, layer: int) -> int:
        """Return the inner size of block `layer`'s MLP: the length of its keys."""
        shape = projection_shape(self.down_projection(layer))
        assert shape is not None
        return shape[1]

    def device(self, layer: int) -> torch.device:
        """Return the device of the down-projection of block `layer`; see `placing.device_of`."""
        return device_of(self.down_projection(layer))

    @property
    def is_gated(self) -> bool:
        """Whether the MLPs are gated: act(gate) * up."""
        return next(part.is_gated for part in self._parts if part.refusal is None)

    @property
    def is_rotary(self) -> bool:
        """Whether attention rotates keys and queries by position (RoPE), as configured."""
        config = text_config(self.model)
        if getattr(config, "alibi", False):
            return False
        return bool(getattr(config, "rope_parameters", None) or getattr(config, "rotary_dim", None))

    @property
    def is_llama_like(self) -> bool:
        """Gated MLPs or rotary positions: models since Llama, whose usual settings differ."""
        return self.is_gated or self.is_rotary

    def name_of(self, module: nn.Module) -> str:
        """Return the full dotted name of a module of the model.

        Raises:
            UnsupportedModel: the module is not a part of the model.
        """
        name = self._names.get(id(module))
        if name is None:
            raise UnsupportedModel(
                f"this {type(module).__name__} is not a part of the model; pass one of its modules"
            )
        return name

    def logits(self, hidden: Tensor) -> Tensor:
        """Compute the model's logits from the output of its last block.

        Args:
            hidden: (..., hidden_size), any floating dtype; it is cast to the head's.

        Returns:
            (..., vocabulary) float32 (float64 of a float64 model): final norm, head, and the
            scale or soft cap of the model.
        """
        hidden = hidden.to(device=device_of(self.lm_head), dtype=dtype_of(self.lm_head))
        for module in self._tail:
            hidden = module(hidden)
        logits = self._finish(self.lm_head(hidden))
        return widened(logits)

    @property
    def editable(self) -> tuple[int, ...]:
        """The blocks that can be edited, ascending: those with a dense MLP or a shared expert."""
        return tuple(n for n, part in enumerate(self._parts) if part.refusal is None)

    def nearest_editable(self, layer: int) -> int:
        """Find the editable block nearest to `layer`; of two, the lower one."""
        return min(self.editable, key=lambda each: (abs(each - layer), each))

    def editable_from(self, layer: int) -> tuple[int, ...]:
        """List the editable blocks from `layer` on, ascending; if there are none, the last one."""
        return tuple(each for each in self.editable if each >= layer) or self.editable[-1:]

    def numbered(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Give the same blocks, in the same order, all counted from 0 and each once.

        Raises:
            InvalidInput: There are none, or the model has no such block.
        """
        if not layers or any(not -self.num_layers <= layer < self.num_layers for layer in layers):
            raise InvalidInput(
                f"layers are {tuple(layers)} of a model with {self.num_layers} blocks: "
                f"take some from 0 to {self.num_layers - 1}"
            )
        return tuple(dict.fromkeys(layer % self.num_layers for layer in layers))

    def _check(self, layer: int) -> int:
        if not -self.num_layers <= layer < self.num_layers:
            raise UnsupportedModel(
                f"layer {layer} of a model with {self.num_layers} blocks; "
                f"take one from 0 to {self.num_layers - 1}"
            )
        return layer

    def _dense(self, layer: int) -> BlockParts:
        part = self._parts[self._check(layer)]
        if part.refusal is not None:
            raise UnsupportedModel(
                f"{type(self.model).__name__} (block {layer % self.num_layers}): {part.refusal}; "
                f"take one of the blocks {_ranges(self.editable)}"
            )
        return part

    def _refuse(self, refusal: str | None) -> str:
        return (
            f"{type(self.model).__name__}: {refusal}; take a model with dense MLPs, or name its "
            "parts (docs/adding-an-architecture.md)"
        )

    def _find_finish(self, probe: Probe) -> Callable[[Tensor], Tensor]:
        """Find the configured scale or cap after the head that gives the model's logits."""
        assert probe.last is not None
        assert probe.logits is not None
        if probe.raw is None:
            raise UnsupportedModel(self._refuse("its output embeddings are not called"))
        if not bool(probe.logits.isfinite().all()):
            raise NumericalFailure(
                f"{type(self.model).__name__} gives logits that are not finite; check its weights, "
                "or load it in float32 or bfloat16"
            )
        with torch.no_grad():
            hidden = probe.last
            for module in self._tail:
                hidden = module(hidden)
            raw, expected = self.lm_head(hidden), probe.logits
            for finish in _finishes(text_config(self.model)):
                if _close(finish(raw), expected):
                    return finish
        raise UnsupportedModel(
            f"{type(self.model).__name__}: its logits are not head(norm(last block)) times a "
            f"known scale (looked for {', '.join(SCALES + CAPS)} in its configuration); "
            "ask for support of this architecture"
        )


def _editable_model(model: nn.Module) -> nn.Module:
    """Return the model inside its wrappers, which computes the same.

    Raises:
        UnsupportedModel: An adapter around it puts tokens of its own before every text.
    """
    configs: Any = getattr(model, "peft_config", None) or {}
    before = [name for name, one in configs.items() if getattr(one, "is_prompt_learning", False)]
    if before:
        raise UnsupportedModel(
            f"the model's adapter {before[0]} puts tokens before every text, expected adapters of "
            "weights: take the model inside it (model.get_base_model())"
        )
    return unwrapped(model)


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as people write them: 0, 2 to 5, 9."""
    parts: list[str] = []
    start = 0
    for index, number in enumerate(numbers):
        if index + 1 < len(numbers) and numbers[index + 1] == number + 1:
            continue
        first = numbers[start]
        parts.append(f"{first} to {number}" if number > first else str(first))
        start = index + 1
    return ", ".join(parts)


def _part(model: nn.Module, getter: str) -> nn.Module:
    find = getattr(model, getter, None)
    part = find() if callable(find) else None
    if not isinstance(part, nn.Module):
        raise UnsupportedModel(
            f"{type(model).__name__} answers nothing to {getter}(); "
            "load it with AutoModelForCausalLM"
        )
    return part


def _width(model: nn.Module, embeddings: nn.Module) -> int:
    """Return the residual width; embeddings may be narrower (OPT-350m projects them)."""
    width = getattr(text_config(model), "hidden_size", None)
    weight: Any = embeddings.weight
    return int(width or weight.shape[1])


def _finishes(config: Any) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield what may follow the head: scales and caps that are configured, the identity last."""
    values = [getattr(config, name, None) for name in SCALES]
    scales = [value for value in values if isinstance(value, (int, float)) and value not in (0, 1)]
    caps = [value for name in CAPS if (value := getattr(config, name, None))]
    for cap in (*caps, None):
        for scale in scales:
            yield partial(_finish, times=scale, cap=cap)
            yield partial(_finish, over=scale, cap=cap)
        yield partial(_finish, cap=cap)


def _finish(raw: Tensor, times: float = 1, over: float = 1, cap: float | None = None) -> Tensor:
    # Divided where the model divides, so that the last bit agrees too.
    if times != 1:
        raw = raw * times
    if over != 1:
        raw = raw / over
    return raw if cap is None else torch.tanh(raw / cap) * cap


def _close(found: Tensor, expected: Tensor) -> bool:
    tolerance = 1e-4 if expected.dtype == torch.float32 else 2e-2
    found, expected = found.float(), expected.float()
    scale = expected.abs().max().item()
    return (found - expected).abs().max().item() <= tolerance * scale
