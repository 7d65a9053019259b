"""MEND's network: u and delta of each token, normalised and mended, times a learnt step."""

from __future__ import annotations

from typing import ClassVar

from emend.hypernetworks._network import Factors, Reading
from emend.hypernetworks._stepped import SteppedNetwork


class mend(SteppedNetwork):  # noqa: N801 - found by the module's name
    """Mitchell et al. 2022, equations 3 and 4; see `emend.methods.mend`."""

    first: ClassVar[float] = 0.1

    def forward(self, reading: Reading) -> dict[str, Factors]:
        """Delta W = -alpha sum_t delta~_t u~_t^T."""
        found: dict[str, Factors] = {}
        for number, name in enumerate(self.shapes):
            gradients = reading.gradients[name]
            inputs, deltas = self.editing(name, gradients)
            step = self.step[number] * self.calibration[number]
            found[name] = Factors(inputs, -step * deltas, gradients.rows)
        return found
