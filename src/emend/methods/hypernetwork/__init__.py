"""Networks that turn the gradient of an edit into a change of weights (KE, MEND, MALMEN).

_network.py            what a hypernetwork is: from token gradients to factors of changes; on disk
_editing_network.py    what MEND and MALMEN share
_training.py           training on edits, with checkpoints
_apply.py              editing with a trained network
"""

from __future__ import annotations
