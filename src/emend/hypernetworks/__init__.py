"""Networks that turn the gradient of an edit into a change of weights, and their training."""

from __future__ import annotations

from emend.hypernetworks._network import Factors, Hypernetwork, NetworkSettings
from emend.hypernetworks._state import load_network, networks, save_network, state_directory
from emend.hypernetworks.apply import edit_by_network
from emend.hypernetworks.scope import ScopeSettings, train_scope
from emend.hypernetworks.split import lab_split
from emend.hypernetworks.trainers import trainer
from emend.hypernetworks.training import Progress, train

__all__ = [
    "Factors",
    "Hypernetwork",
    "NetworkSettings",
    "Progress",
    "ScopeSettings",
    "edit_by_network",
    "lab_split",
    "load_network",
    "networks",
    "save_network",
    "state_directory",
    "train",
    "train_scope",
    "trainer",
]
