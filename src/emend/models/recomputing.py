"""Gradient checkpointing: what is computed again on the way back is computed by the same patches.

A checkpointed layer runs twice: in the forward pass, and again in the backward pass, which may
run after the patch's block was left and, on a GPU, in a thread of autograd's. transformers runs
layers through the function that `gradient_checkpointing_enable` set on them; here that function
is wrapped, so that the second run has the call of the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from emend.models import call as _call
from emend.models.blocks import acting_on, frozen_call

FUNCTION = "_gradient_checkpointing_func"
"""Where transformers keeps the function on each module that it checkpoints."""


class _Remembering:
    """Runs a checkpointed function with what the context had set when it was given.

    Args:
        checkpoint: The function that transformers set.
        host: The model.
    """

    def __init__(self, checkpoint: Callable[..., Any], host: nn.Module) -> None:
        self.checkpoint, self.host = checkpoint, host

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call, those = frozen_call(self.host), acting_on(self.host)

        def run(*inputs: Any, **named: Any) -> Any:
            with ExitStack() as stack:
                for one in those:  # their blocks may have been left
                    one.install(self.host)
                    stack.callback(one.remove)
                stack.enter_context(_call.within(call))
                return function(*inputs, **named)

        return self.checkpoint(run, *args, **kwargs)


def remember_recomputation(model: nn.Module, host: nn.Module) -> Iterator[Any]:
    """Register the hooks that see to it, on a model and on the one inside its wrappers.

    Checkpointing may be switched on at any time, so that each pass looks anew.
    """

    def look(_module: nn.Module, _args: Any) -> None:
        if host.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for module in host.modules():
                found = vars(module).get(FUNCTION)
                if found is not None and not isinstance(found, _Remembering):
                    setattr(module, FUNCTION, _Remembering(found, host))

    for each in dict.fromkeys((model, host)):
        yield each.register_forward_pre_hook(look)
