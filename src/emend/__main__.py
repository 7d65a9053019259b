"""`python -m emend` does what the script `emend` does."""

from __future__ import annotations

from emend.cli import main

if __name__ == "__main__":
    main()
