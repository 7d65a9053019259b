"""What is done with a ledger and a model: patches built, checked, and carried to what follows."""

from __future__ import annotations

from emend.versioning.build import Built, build
from emend.versioning.similar import Similar, similar

__all__ = ["Built", "Similar", "build", "similar"]
