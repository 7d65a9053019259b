"""A third party's package, as an installer would leave it on the path."""

from __future__ import annotations


def declare(directory, group, points):
    """Write the metadata of a package in ``directory`` with entry points of one group."""
    information = directory / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n{points}")
