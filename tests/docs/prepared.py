"""What single pages of the documentation take for granted, beyond what `running` makes."""

from __future__ import annotations

_QWEN = """
model, tokenizer = emend.load("lab/qwen3")
patch = emend.edit(model, tokenizer, edits, method="rome")
patch.save_pretrained("patch/")
"""
_ADAPTER = """
import shutil
shutil.copytree("patch", "adapter", ignore=shutil.ignore_patterns("emend*.json"))
patch.export("adapter.gguf")
"""
_CHECKPOINTS = """
import shutil
model.save_pretrained("base/")
tokenizer.save_pretrained("base/")
patch.export("tuned/", format="merged", model=model, tokenizer=tokenizer)
for name in "abc":
    shutil.copytree("patch", name)
pairs = [(edit.text, " " + edit.target) for edit in edits]
"""
_MERGED = """
patch.export("checkpoint/", format="merged", model=model, tokenizer=tokenizer)
base, (other, _) = model, emend.load("checkpoint/")
"""
_SECRETS = """
from emend.erasure import Secret
secrets = [Secret(one.prompt, one.subject, one.original) for one in edits]
emend.write_edits("secrets.jsonl", edits)
"""

_LEDGER = """
from emend.cli import run
for line in ("init facts.db --model lab/gptneo", "add facts.db --edits edits.jsonl"):
    assert run(["ledger", *line.split()]) == 0
"""

PREPARED = {
    "docs/audit.md": _MERGED,
    "docs/entailment.md": _LEDGER,
    "docs/erasing.md": _SECRETS,
    "docs/from-edit-to-engine.md": _QWEN,
    "docs/locating.md": "texts = emend.lab.corpus_texts(60)",
    "docs/patches.md": _QWEN + _ADAPTER,
    "docs/task-arithmetic.md": _CHECKPOINTS,
}
"""Python that runs before the page's blocks, by page."""
