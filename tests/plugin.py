"""A third party's package, as an installer would leave it on the path."""

from __future__ import annotations


def declare(directory, group, points, package="theirs"):
    """Write the metadata of a package in ``directory`` with entry points of one group."""
    information = directory / f"{package}-1.0.dist-info"
    information.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
    (information / "METADATA").write_text(metadata)
    (information / "entry_points.txt").write_text(f"[{group}]\n{points}")
