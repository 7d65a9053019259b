"""Measure the peak memory of whole edits, and hold it against the model's weights and the estimate.

    python benchmarks/edit_memory.py                 # rome, emmet, memit, alphaedit
    python benchmarks/edit_memory.py --edits 30 --only memit
    python benchmarks/edit_memory.py --json

A random model of GPT-2 small's shape, float32, one thread. Each edit runs in a process of its own,
on key covariances that another has collected before; the peak is the kernel's count of resident
memory (VmHWM, set back before the edit). Two peaks are printed: of a first edit, which factors C
(or finds its eigenvectors), and of a second, which finds them on disk.

"over the weights" is all that the process holds at the peak beyond what it held before the model
was made, over the size of the weights; the aim is 1.3 times the weights and the activations of one
batch. Those are measured too, as the growth of the peak in one plain pass, without a way back, of
the rows of one chunk of the search through the model. "beyond" is the worse peak less the weights,
and "estimated" what `estimate_edit` said of it. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _shapes import Words, contexts, even_edits, random_texts, small_model, table
from transformers import GPT2LMHeadModel

import emend
from emend.editing.jobs import chunks, make_jobs
from emend.editing.memory import estimate_edit
from emend.editing.target_values import CHUNK
from emend.models import ModelView

LAYER, LAYERS = 4, (3, 4, 5, 6, 7, 8)
METHODS = ("rome", "emmet", "memit", "alphaedit")
STEPS = 3  # each is like the next, so that more would show no other peak
MEGA = 1e6
TEXT_TOKENS = 1024  # few: a key covariance is as large whatever it is the mean over


def resident(field: str = "VmRSS") -> float:
    """Megabytes of this process: VmRSS now, VmHWM at the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / MEGA
    raise RuntimeError(f"no {field} in /proc/self/status: this benchmark needs Linux")


def peak_of(function: Callable[[], Any]) -> float:
    """Megabytes at the peak while a function runs."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back
    function()
    return resident("VmHWM")


def settings_of(method: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Contexts, layers and the rest of one method."""
    settings: dict[str, Any] = {"steps": STEPS, "texts": texts}
    if method in ("emmet", "memit"):  # rome's published form also sums in the published order
        settings["original"] = True
    if method == "rome":
        settings["ablation"] = {"optimizer": "adam", "statements": 0, "enough": 1.0}
    if method in ("rome", "emmet"):
        return {**settings, "layer": LAYER, "templates": contexts((4, 9), 10)}
    return {**settings, "layers": LAYERS, "templates": contexts((11,), 5)}


def one_pass(model: GPT2LMHeadModel, rows: int, tokens: int) -> float:
    """Megabytes by which the peak grows in a plain pass through the blocks."""
    ids = torch.ones(rows, tokens, dtype=torch.long)
    before = resident()
    with torch.no_grad():
        grown = peak_of(lambda: model.transformer(input_ids=ids, use_cache=True)) - before
    ctypes.CDLL(None).malloc_trim(0)  # else what it has freed would be counted with the edit
    return grown


def measured(method: str, count: int) -> dict[str, Any]:
    """What one edit takes in this process."""
    texts, tokenizer, edits = random_texts(TEXT_TOKENS), Words(), even_edits(count, 3, 5)
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    empty = resident()
    model = small_model()
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) / MEGA
    view, settings = ModelView(model), settings_of(method, texts)
    templates = settings["templates"]
    layers = [LAYER] if "layer" in settings else list(LAYERS)
    tokens = sum(len((t + edits[0].text).split()) for t in templates) / len(templates)
    parts = chunks(make_jobs(view, tokenizer, edits, templates), CHUNK)
    rows = max(sum(len(job.rows) for job in part) for part in parts)
    activations = one_pass(model, rows, round(tokens))
    loaded = resident()
    estimate = estimate_edit(view, count, len(templates), layers, tokens=round(tokens))
    run = lambda: emend.edit(model, tokenizer, edits, method, **settings)  # noqa: E731
    first, again = peak_of(run), peak_of(run)
    return {
        "method": method,
        "edits": count,
        "weights": weights,
        "loaded": loaded - empty,
        "activations": activations,
        "first": first - empty,
        "again": again - empty,
        "beyond": max(first, again) - empty - weights,
        "estimated": estimate.memory / MEGA,
        "search": estimate.search / MEGA,
    }


def collect(names: Sequence[str]) -> None:
    """Take the key covariances that the edits need; those of memit serve alphaedit."""
    model, texts = small_model(), random_texts(TEXT_TOKENS)
    for method in dict.fromkeys("memit" if name == "alphaedit" else name for name in names):
        settings = {**settings_of(method, texts), "steps": 1}
        emend.edit(model, Words(), even_edits(1, 3, 5), method, **settings)
    for path in Path(os.environ["EMEND_CACHE"]).rglob("*.cholesky*"):
        path.unlink()


def child(*arguments: str) -> str:
    """What this file prints when called with these arguments."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=5, help="edits of each method; rome takes 1")
    parser.add_argument("--only", choices=METHODS, help="one method")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child == "collect":
        collect([arguments.only] if arguments.only else METHODS)
        return
    if arguments.child:
        print(json.dumps(measured(arguments.child, arguments.edits)))
        return
    names = [arguments.only] if arguments.only else METHODS
    with tempfile.TemporaryDirectory() as directory:
        os.environ["EMEND_CACHE"] = directory
        chosen = ["--only", arguments.only] if arguments.only else []
        child("--child", "collect", *chosen)
        counts = {name: 1 if name == "rome" else arguments.edits for name in names}
        results = [
            json.loads(child("--child", name, "--edits", str(counts[name]))) for name in names
        ]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    head = ["megabytes", "edits", "weights", "first", "again", "over the weights", "a batch's"]
    rows: list[list[Any]] = [[*head, "aim", "beyond", "estimated"]]
    for one in results:
        weights, worst = one["weights"], max(one["first"], one["again"])
        sizes = [f"{one[key]:.0f}" for key in ("weights", "first", "again")]
        over = f"{worst / weights:.2f}"
        aim = f"{1.3 + one['activations'] / weights:.2f}"
        rest = [f"{one['activations']:.0f}", aim, f"{one['beyond']:.0f}", f"{one['estimated']:.0f}"]
        rows.append([one["method"], one["edits"], *sizes, over, *rest])
    print(table(rows))


if __name__ == "__main__":
    main()
