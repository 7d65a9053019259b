"""Networks that turn the gradient of an edit into a change of weights, and their training."""

from __future__ import annotations

from emend.methods.hypernetwork._apply import edit_by_network
from emend.methods.hypernetwork._network import Factors, Hypernetwork, NetworkSettings
from emend.methods.hypernetwork._split import lab_split
from emend.methods.hypernetwork._state import load_network, networks, save_network, state_directory
from emend.methods.hypernetwork._training import Progress, train

__all__ = [
    "Factors",
    "Hypernetwork",
    "NetworkSettings",
    "Progress",
    "edit_by_network",
    "lab_split",
    "load_network",
    "networks",
    "save_network",
    "state_directory",
    "train",
]
