"""Integrated gradients of knowledge neurons, the plain way: whole model, one step at a time.

Dai et al. 2022, arXiv 2104.08696, equation 5, with autograd through the scaled activations.
"""

from __future__ import annotations

import torch

from emend.models import ModelView, join_target


def attribute(model, tokenizer, prompt, answer, steps):
    """(depth, inner) attributions of the answer's tokens, their mean."""
    view = ModelView(model)
    ids, tokens = join_target(tokenizer, prompt, answer)
    total = [torch.zeros(view.intermediate_size(layer)) for layer in range(view.num_layers)]
    for count, token in enumerate(tokens):
        row = torch.tensor([[*ids, *tokens[:count]]])
        for layer in range(view.num_layers):
            total[layer] += _one(model, view.down_projection(layer), row, token, steps)
    return torch.stack(total) / len(tokens)


def _one(model, down, row, token, steps):
    seen = []

    def look(_module, args):
        seen.append(args[0].detach())

    handle = down.register_forward_pre_hook(look)
    with torch.no_grad():
        model(input_ids=row)
    handle.remove()
    whole = seen[0]  # (1, T, inner), or (T, inner) in OPT
    activation = whole.reshape(-1, whole.shape[-1])[-1]
    gradients = torch.zeros_like(activation)
    for step in range(1, steps + 1):
        leaf = (activation * step / steps).requires_grad_(True)

        def put(_module, args, leaf=leaf):
            flat = args[0].reshape(-1, args[0].shape[-1])
            return (torch.cat([flat[:-1], leaf[None]]).reshape(args[0].shape), *args[1:])

        handle = down.register_forward_pre_hook(put)
        chance = model(input_ids=row).logits[0, -1].float().softmax(-1)[token]
        handle.remove()
        (gradient,) = torch.autograd.grad(chance, leaf)
        gradients += gradient
    return activation * gradients / steps
