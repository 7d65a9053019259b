"""Run EasyEdit's ROME, MEMIT and AlphaEdit on records of CounterFact, by the plain evaluator.

    cd benchmarks/incumbent
    python easyedit.py --checkout ~/EasyEdit --model_path MODEL --method ROME --records 5000:5010
    python easyedit.py --checkout ~/EasyEdit --model_path MODEL --method MEMIT --together

None of its code is here: a path to your own checkout is given, and nothing in it is changed. The
environment needs torch, transformers, datasets, PyYAML, matplotlib and scipy. Both sides are scored
by benchmarks/real/evaluator.py, which imports neither; benchmarks/real/counterfact.py is emend's.

What it takes to run it: the package's own `__init__` imports every method with its dependencies,
so that its folders are put in place as bare packages; the model's path must contain "llama", so
that a link is made; second moments come from a corpus on the hub, so that they are taken here from
a text file; models with tied embeddings need another name of the head. Settings are those that it
ships for Llama-2-7B (Llama-3-8B for AlphaEdit) but for device, the last layer and these names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "real"))

from evaluator import Evaluator, Record, read_records, show  # noqa: E402

SHARED = ROOT.parent / "shared" / "data"
METHODS = {
    "ROME": ("rome.rome_main", "apply_rome_to_model", "rome.rome_hparams", "ROMEHyperParams"),
    "MEMIT": ("memit.memit_main", "apply_memit_to_model", "memit.memit_hparams",
              "MEMITHyperParams"),
    "AlphaEdit": ("alphaedit.AlphaEdit_main", "apply_AlphaEdit_to_model",
                  "alphaedit.AlphaEdit_hparams", "AlphaEditHyperParams"),
}  # fmt: skip
SHIPPED = {"ROME": "llama-7b", "MEMIT": "llama-7b", "AlphaEdit": "llama3-8b"}
TOKENS = 100_000
"""Tokens of text that second moments are taken over."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkout", type=Path, required=True, help="of EasyEdit")
    parser.add_argument("--model_path", type=Path, required=True, help="in Hugging Face form")
    parser.add_argument("--method", choices=METHODS, default="ROME")
    parser.add_argument("--records", default="5000:5010", help="FIRST:LAST of the file")
    parser.add_argument("--together", action="store_true", help="all edits at once")
    parser.add_argument("--front", default="", help="text in front of every text that is scored")
    parser.add_argument("--set", action="append", default=[], help="a setting: NAME=JSON")
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--output_path", type=Path, default=Path("results/incumbent.jsonl"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(given.model_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(given.model_path)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    front = tokenizer(given.front, add_special_tokens=False)["input_ids"] if given.front else []
    first, last = map(int, given.records.split(":"))
    records = read_records(given.data / "counterfact" / "counterfact-train.json", first, last)
    text = (given.data / "wikitext2" / "test.txt").read_text(encoding="utf-8")
    plain = Evaluator(model, tokenizer, front, text if given.together else "")
    plain.prepare(records)
    settings = {name: json.loads(value) for name, value in (s.split("=", 1) for s in given.set)}
    edit = Incumbent(given.checkout, given.model_path, given.method, model, tokenizer, settings)
    edit.texts = (given.data / "wikitext2" / "valid.txt").read_text(encoding="utf-8")
    given.output_path.parent.mkdir(parents=True, exist_ok=True)
    label = f"EasyEdit {given.method}" + (f" behind {given.front}" if given.front else "")
    show("unedited", plain.measure(records))
    rows: list[dict[str, Any]] = []
    for group in [records] if given.together else [[record] for record in records]:
        started = time.process_time()
        edit(group)
        seconds = (time.process_time() - started) / len(group)
        change = math.exp(plain.text_loss() - plain.loss) - 1 if plain.windows else math.nan
        found = [{**row, "PPL": change, "seconds": seconds} for row in plain.measure(group)]
        edit.restore()
        key = [str(given.model_path), label, given.together, [one.case_id for one in group]]
        with given.output_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "rows": found}) + "\n")
        rows += found
    show(label, rows)


class Incumbent:
    """EasyEdit's function of one method, on a model that it edits in place.

    Args:
        checkout: Its checkout.
        model_path: The model's folder.
        method: A name of `METHODS`.
        model: The model.
        tokenizer: Its tokenizer.
        settings: Fields of its settings that differ from what it ships.
    """

    def __init__(
        self, checkout: Path, model_path: Path, method: str, model: Any, tokenizer: Any,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.texts = model, tokenizer, ""
        main_name, function, hparams_name, kind = METHODS[method]
        for name in ("", "models", "models.rome", f"models.{main_name.split('.')[0]}"):
            bare_package(checkout, name)
        self._main = importlib.import_module(f"easyeditor.models.{main_name}")
        self._apply = getattr(self._main, function)
        hparams = importlib.import_module(f"easyeditor.models.{hparams_name}")
        file = settings_file(checkout, model_path, method, model.config, settings)
        self._hparams = getattr(hparams, kind).from_hparams(str(file))
        self._moments: dict[str, Tensor] = {}
        self._main.get_cov = self._moment
        self._before: dict[str, Tensor] = {}

    def __call__(self, records: list[Record]) -> None:
        """Edit the model."""
        requests = [
            {"case_id": one.case_id, "prompt": one.prompt, "subject": one.subject,
             "target_new": one.target_new, "ground_truth": one.ground_truth}
            for one in records
        ]  # fmt: skip
        more = {"reset_cache": True} if "alphaedit" in self._main.__name__ else {}
        _, self._before = self._apply(
            self.model, self.tokenizer, requests, self._hparams,
            copy=False, return_orig_weights=True, **more,
        )  # fmt: skip

    def restore(self) -> None:
        """Give the model its weights back."""
        with torch.no_grad():
            for name, weight in self._before.items():
                self.model.get_parameter(name).copy_(weight)

    def _moment(self, model: Any, tokenizer: Any, layer: str, *_: Any, **__: Any) -> Tensor:
        """Return E[k k^T] of a down-projection over plain text, in place of the hub's corpus."""
        if layer not in self._moments:
            started = time.process_time()
            wanted = [self._hparams.rewrite_module_tmp.format(n) for n in self._hparams.layers]
            self._moments |= moments(model, tokenizer, self.texts, {layer, *wanted})
            print(f"second moments: {time.process_time() - started:.0f} CPU s", flush=True)
        return self._moments[layer]


class _Enough(Exception):
    """The last module whose inputs are wanted has been reached."""


def moments(model: Any, tokenizer: Any, texts: str, layers: set[str]) -> dict[str, Tensor]:
    """Return the second moments of some modules' inputs over text, all of them in one pass."""
    found = {name: torch.zeros(()) for name in layers}
    count, reached = 0, 0

    def add(name: str, given: tuple[Tensor, ...]) -> None:
        nonlocal reached
        keys = given[0].flatten(0, 1).float()
        found[name] = found[name] + keys.T @ keys
        reached += 1
        if reached == len(layers):  # what comes after is not wanted
            raise _Enough

    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, given, n=name: add(n, given))
        for name in layers
    ]
    ids = tokenizer(texts, return_tensors="pt")["input_ids"][0][:TOKENS]
    with torch.no_grad():
        for at in range(0, len(ids), 512):
            reached = 0
            with contextlib.suppress(_Enough):
                model.model(ids[None, at : at + 512])
            count += len(ids[at : at + 512])
    for handle in handles:
        handle.remove()
    return {name: total / count for name, total in found.items()}


def bare_package(checkout: Path, name: str) -> None:
    """Put a folder of the checkout in place as a package without its `__init__`."""
    package = types.ModuleType(f"easyeditor.{name}".rstrip("."))
    package.__path__ = [str(checkout / "easyeditor" / name.replace(".", "/"))]
    sys.modules[package.__name__] = package


def settings_file(
    checkout: Path, model_path: Path, method: str, config: Any, settings: dict[str, Any]
) -> Path:
    """Write the settings that it ships for a method, for this model."""
    aside = Path(tempfile.mkdtemp())
    (aside / "llama-model").symlink_to(model_path.resolve())
    shipped = checkout / "hparams" / method / f"{SHIPPED[method]}.yaml"
    found = yaml.safe_load(shipped.read_text("utf-8"))
    found |= {"model_name": str(aside / "llama-model"), "stats_dir": str(aside / "stats")}
    found |= {"device": "cpu", "v_loss_layer": config.num_hidden_layers - 1}
    if config.tie_word_embeddings and method != "ROME":
        found["lm_head_module"] = "model.embed_tokens"
    if method == "AlphaEdit":
        found["P_loc"] = str(aside / "P.pt")
    path = aside / "settings.yaml"
    path.write_text(yaml.safe_dump(found | settings), "utf-8")
    return path


if __name__ == "__main__":
    main()
