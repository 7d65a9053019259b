"""Change what a language model knows, measure what else changed, take any change back.

    import emend

    model, tokenizer = emend.load("lab/gptneo")
    patch = emend.edit(model, tokenizer, [emend.Edit("{} was born in", "...", "...")])
    with patch.applied(model):
        report = emend.evaluate(model, tokenizer, patch.edits)

Importing this package does no work: each name is looked up when it is first used, so that
`import emend` loads no torch, and `emend --help` answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from emend._lazy import lazily
from emend._version import __version__

if TYPE_CHECKING:
    from emend import api as api
    from emend import arithmetic as arithmetic
    from emend import bench as bench
    from emend import chat as chat
    from emend import datasets as datasets
    from emend import editing as editing
    from emend import edits as edits
    from emend import erasure as erasure
    from emend import errors as errors
    from emend import lab as lab
    from emend import ledger as ledger
    from emend import locate as locate
    from emend import methods as methods
    from emend import metrics as metrics
    from emend import models as models
    from emend import patches as patches
    from emend import probes as probes
    from emend import report as report
    from emend.api import audit as audit
    from emend.api import edit as edit
    from emend.api import evaluate as evaluate
    from emend.api import load as load
    from emend.api import trace as trace
    from emend.api import trace_many as trace_many
    from emend.bench import sweep as sweep
    from emend.datasets import read_edits as read_edits
    from emend.datasets import write_edits as write_edits
    from emend.edits import Edit as Edit
    from emend.edits import Probe as Probe
    from emend.errors import EmendError as EmendError
    from emend.ledger import Ledger as Ledger
    from emend.patches import Patch as Patch
    from emend.patches import load_patch as load_patch

__getattr__, __dir__ = lazily(__name__)

__all__ = [  # noqa: RUF022 - in the order in which people meet them
    "load",
    "Edit",
    "Probe",
    "read_edits",
    "write_edits",
    "edit",
    "evaluate",
    "sweep",
    "trace",
    "trace_many",
    "audit",
    "Patch",
    "load_patch",
    "Ledger",
    "EmendError",
    "__version__",
]
