from __future__ import annotations

import torch

from emend.editing.optimizers import Adam


def test_steps_are_those_of_torch_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 8, generator=generator)
    expected = [row.clone().requires_grad_(True) for row in start]
    optimizers = [torch.optim.Adam([row], lr=0.5) for row in expected]
    found, adam = start.clone(), Adam(start, 0.5)
    for step in range(6):
        if step == 3:  # the second row is done
            kept = torch.tensor([True, False, True])
            found = found[kept]
            adam.select(kept)
            expected, optimizers = expected[::2], optimizers[::2]
        gradient = torch.randn(found.shape, generator=generator)
        found = adam.step(found, gradient)
        for row, optimizer, each in zip(expected, optimizers, gradient, strict=True):
            row.grad = each.clone()
            optimizer.step()
        assert torch.equal(found, torch.stack([row.detach() for row in expected]))
