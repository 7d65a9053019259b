"""`emend studio`: edit facts in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from emend.cli import _options, serve
from emend.cli._engine import EngineFlags
from emend.cli._options import flag

EXAMPLES = _options.examples(
    "emend studio --model smollm2-135m",
    "emend studio --model lab/gptneo --ledger lab.db --port 8001 --method rome",
)


def command(
    *,
    model: _options.Model,
    ledger: Annotated[
        Path, flag("The edits that are made; the file is made where there is none.", metavar="FILE")
    ] = Path("facts.db"),
    port: Annotated[int, flag("The port to listen on.", min=0, max=65535)] = 8000,
    method: _options.Method = "memit",
    settings: _options.Settings,
    loading: _options.Loading,
) -> None:
    """Edit facts in a browser on this machine, and see what else changes.

    It is `emend serve` with a token of its own, in the address that is printed: open it.
    """
    serve.command(
        model=model,
        ledger=ledger,
        engine=EngineFlags(),
        port=port,
        method=method,
        settings=settings,
        loading=loading,
    )
