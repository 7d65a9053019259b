"""A build whose process dies once the first part of what it solved for is written down."""

from __future__ import annotations

import os
import signal
import sys

from tests.tiny import TEXT, tiny_model

from emend.ledger import Ledger, build

SETTINGS = {"steps": 4, "texts": tuple(TEXT), "templates": ("{}", "Now {}")}


def main(path: str) -> None:
    """Build the ledger at ``path``, and die."""
    model, tokenizer = tiny_model("gpt2")
    ledger = Ledger.open(path)
    keep, calls = ledger.keep_values, []

    def keep_once(*args, **kwargs):
        if calls:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(keep(*args, **kwargs))

    ledger.keep_values = keep_once
    build(ledger, model, tokenizer, **SETTINGS)


if __name__ == "__main__":
    main(sys.argv[1])
