"""Hooks that change a forward pass for the time of a block, and nothing after it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from emend.models.placing import at_least_float32
from emend.models.sharing import Stop, hooked, is_stop, together
from emend.models.structure import projection_shape
from emend.models.view import ModelView


@contextmanager
def stopping(module: nn.Module, *, before: bool = False) -> Generator[None, None, None]:
    """Leave the block once ``module`` has put out what it does, or ``before`` it runs.

    Hooks of the module that were set before have seen it then.
    """

    def stop(*_: Any) -> None:
        raise Stop

    try:
        with hooked(module, stop, before=before):
            yield
    except Exception as error:
        if not is_stop(error):
            raise


@contextmanager
def frozen(model: nn.Module) -> Generator[None, None, None]:
    """No parameter asks for a gradient inside the block; the flags come back as they were.

    Of threads that do so at the same time the last one gives the flags back.
    """

    def freeze() -> Callable[[], None]:
        # By name: an offloaded parameter is another object after every pass.
        asking = [
            (module, name)
            for module in model.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.requires_grad
        ]
        for module, name in asking:
            module.get_parameter(name).requires_grad_(False)

        def restore() -> None:
            for module, name in asking:
                module.get_parameter(name).requires_grad_(True)

        return restore

    with together(("frozen", id(model)), freeze):
        yield


@contextmanager
def editing_output(
    module: nn.Module, edit: Callable[[Tensor], Tensor]
) -> Generator[None, None, None]:
    """Pass a module's output through ``edit``; of a tuple, as attention returns, its first part."""

    def change(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (edit(output[0]), *output[1:])
        return edit(output)

    with hooked(module, change):
        yield


@contextmanager
def adding(
    module: nn.Module, delta: Tensor, at: Tensor | None = None
) -> Generator[None, None, None]:
    """Add ``delta`` to a module's output.

    Args:
        module: One that returns (B, S, hidden_size), the same folded to two axes (OPT), or a
            tuple that begins with it.
        delta: (B, hidden_size) with ``at``, else (B, S, hidden_size).
        at: (B,) int64, the column of each row; None for all.
    """

    def add(output: Tensor) -> Tensor:
        if at is None:
            return output + delta.reshape(output.shape)
        apart = output.reshape(len(at), -1, output.shape[-1])
        return add_at(apart, delta, at).reshape(output.shape)

    with editing_output(module, add):
        yield


@contextmanager
def putting(
    module: nn.Module, rows: int, chosen: slice, column: int, values: Tensor
) -> Generator[None, None, None]:
    """Replace a module's output at one column of some rows.

    Args:
        module: As for `adding`.
        rows: Number of rows, B.
        chosen: The n rows to change.
        column: Which of the S tokens.
        values: (n, hidden_size).
    """

    def put(output: Tensor) -> Tensor:
        changed = output.reshape(rows, -1, output.shape[-1]).clone()
        changed[chosen, column] = values.to(changed)
        return changed.reshape(output.shape)

    with editing_output(module, put):
        yield


@contextmanager
def thinned(
    view: ModelView, layer: int, shape: tuple[int, int], rows: Tensor, columns: Tensor
) -> Generator[None, None, None]:
    """Run the MLP of one block at some tokens only; at all others it puts out zero.

    Its projections work token by token, so what comes before them can be left out at the others.

    Args:
        view: The model.
        layer: The block.
        shape: Rows and tokens of what the block is given, (B, S).
        rows: (N,) int64, rows of the tokens.
        columns: (N,) int64, their columns.
    """
    down = view.down_projection(layer)
    inside = set(view.attention(layer).modules())
    places = torch.unique(rows * shape[1] + columns)  # (n,), in B*S
    leading: list[torch.Size] = []  # (B, S), or (B*S,) as OPT folds them

    def thin(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        leading.append(args[0].shape[:-1])
        flat = args[0].reshape(shape[0] * shape[1], -1)
        return (flat[places.to(flat.device)], *args[1:])  # (n, features)

    def fill(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        whole = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        whole = whole.index_copy(0, places.to(output.device), output)
        return whole.reshape(*leading[-1], -1)

    with ExitStack() as stack:
        for module in view.layer(layer).modules():
            if projection_shape(module) and module is not down and module not in inside:
                stack.enter_context(hooked(module, thin, before=True))
        stack.enter_context(hooked(down, fill))
        yield


def plus_change(given: Tensor, output: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """Compute a module's output with its weight changed: ``y + x A^T B^T``.

    Args:
        given: (..., in), x, the module's input; it may be on the device of the module before.
        output: (..., out), y.
        matrices: What x is multiplied by, one after another: A (r, in) and B (out, r), or the
            whole change (out, in).

    Returns:
        (..., out), summed in float32 (float64 for a float64 output) and rounded once to y's dtype.
    """
    dtype = at_least_float32(output.dtype)
    change = given.to(device=output.device, dtype=dtype)  # (..., in)
    # Autocast would round the factors to half precision.
    with torch.autocast(change.device.type, enabled=False):
        for matrix in matrices:
            change = change @ matrix.to(change).T  # (..., r), then (..., out)
    return (output.to(dtype) + change).to(output.dtype)


@contextmanager
def changing(module: nn.Module, *matrices: Tensor) -> Generator[None, None, None]:
    """Add a change of a module's weight to its output, as an attached patch does.

    Args:
        module: A projection.
        matrices: The change, see `plus_change`.
    """

    def add(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return plus_change(args[0], output, matrices)

    with hooked(module, add):
        yield


def wiped(hidden: Tensor, padding: Tensor | None) -> Tensor:
    """Zeros at padding. Softmax over nothing gives NaN in some models, and 0 * NaN spreads."""
    if padding is None:
        return hidden
    return hidden.masked_fill(padding[..., None].to(hidden.device), 0.0)


def add_at(hidden: Tensor, delta: Tensor, at: Tensor) -> Tensor:
    """(B, S, width) with (B, width) added at column ``at`` (B,)."""
    index = torch.arange(len(hidden), device=hidden.device), at.to(hidden.device)
    if hidden.dtype not in (torch.float16, torch.bfloat16):
        return hidden.index_put(index, delta.to(hidden), accumulate=True)
    # Added in float32 and rounded once, as an attached patch does.
    wide = hidden[index].float() + delta.to(device=hidden.device, dtype=torch.float32)
    return hidden.index_put(index, wide.to(hidden.dtype))
