"""The hypernetworks there are: one file each, the class under the name of its module."""

from __future__ import annotations
