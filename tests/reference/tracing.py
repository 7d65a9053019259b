"""Causal tracing the plain way: the whole model for every restoration.

Meng et al. 2022, arXiv 2202.05262, section 2, by hooks on a whole forward pass.
"""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from emend.models import ModelView


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def module_of(view, kind, layer):
    if kind == "state":
        return view.layer(layer)
    return view.down_projection(layer) if kind == "mlp" else view.attention(layer)


def make_noise(view, ids, first, last, draws, seed=1, noise=3.0):
    subject = view.embeddings(torch.tensor(ids[first : last + 1])).detach().float()
    drawn = np.random.RandomState(seed).randn(draws, *subject.shape)
    return torch.from_numpy(noise * float(subject.std()) * drawn)


class Plain:
    """One prompt, with every run a whole pass of the model.

    Args:
        model: The model.
        ids: Tokens of the prompt.
        first, last: The subject's tokens.
        draws: Draws of noise.
        target: The answer's token; None for the most probable.
    """

    def __init__(self, model, ids, first, last, draws, target=None):
        self.view = ModelView(model)
        self.model, self.ids, self.first, self.last = model, ids, first, last
        self.noise = make_noise(self.view, ids, first, last, draws)
        self.clean_outputs, logits = self._watch(None)
        self.target = int(logits[0].argmax()) if target is None else target
        self.clean = float(self._chance(logits))
        self.disturbed_outputs, logits = self._watch(self.noise)
        self.disturbed = self._chance(logits)

    def _chance(self, logits):
        return logits.softmax(-1)[:, self.target]

    def _watch(self, noise):
        found = {}

        def keep(key):
            def hook(_module, _args, output):
                tensor = first_of(output)
                rows = 1 if noise is None else len(noise)
                found[key] = tensor.reshape(rows, -1, tensor.shape[-1]).clone()

            return hook

        hooks = [
            (module_of(self.view, kind, layer), keep((kind, layer)))
            for kind in ("state", "mlp", "attention")
            for layer in range(self.view.num_layers)
        ]
        return found, self._run(noise, hooks)

    @torch.no_grad()
    def _run(self, noise, hooks):
        """(rows, vocabulary), logits at the last token."""

        def disturb(_module, _args, output):
            output = output.clone()
            output[:, self.first : self.last + 1] += noise.to(output)
            return output

        rows = torch.tensor([self.ids] * (1 if noise is None else len(noise)))
        with ExitStack() as stack:
            for module, hook in hooks:
                stack.callback(module.register_forward_hook(hook).remove)
            if noise is not None:
                stack.callback(self.view.embeddings.register_forward_hook(disturb).remove)
            logits = self.model(input_ids=rows, use_cache=False).logits[:, -1]
        return logits if logits.dtype == torch.float64 else logits.float()

    def _put(self, token, source):
        def hook(_module, _args, output):
            tensor = first_of(output)
            apart = tensor.reshape(len(self.noise), -1, tensor.shape[-1]).clone()
            apart[:, token] = source[:, token]
            changed = apart.reshape(tensor.shape)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def effect(self, kind, token, layer, window=10):
        """The indirect effect of restoring one token in one layer, or a window of layers."""
        site = kind if kind in ("mlp", "attention") else "state"
        layers = [layer]
        if site != "state":
            before, after = window // 2, -(-window // 2)
            layers = range(max(0, layer - before), min(self.view.num_layers, layer + after))
        hooks = [
            (module_of(self.view, site, n), self._put(token, self.clean_outputs[site, n]))
            for n in layers
        ]
        if kind.startswith("severed_"):
            part = kind.removeprefix("severed_")
            hooks += [
                (module_of(self.view, part, n), self._put(token, self.disturbed_outputs[part, n]))
                for n in range(layer + 1, self.view.num_layers)
            ]
        return float((self._chance(self._run(self.noise, hooks)) - self.disturbed).mean())

    def effects(self, kind, window=10):
        """(T, layers)."""
        return torch.tensor(
            [
                [self.effect(kind, token, layer, window) for layer in range(self.view.num_layers)]
                for token in range(len(self.ids))
            ],
            dtype=torch.float64,
        )
