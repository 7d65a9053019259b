"""Kinds of patches that keep edits beside the weights: one file for each, found by its name.

`load_patch` finds the kind that ``emend.json`` names here, or under the entry-point group
``emend.memories``: a subclass of `emend.patches.MemoryPatch` bound to the module's name.
"""

from __future__ import annotations
