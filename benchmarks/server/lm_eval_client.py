"""lm-evaluation-harness as a client of `emend serve`, against its own run of the same model.

    python -m venv bench && bench/bin/pip install 'emend[server]' 'lm-eval[api]==0.4.13'
    bench/bin/python benchmarks/server/lm_eval_client.py [--model lab/gptneo]

A task of multiple choice over facts of the lab's world is scored by `local-completions`, which
finds the tokenizer by /tokenizer_info and /tokenize, on base and edited model; the edited facts are
asked too. HFLM scores the same requests on the same model, with the same patch applied. Both must
agree on every log-probability to 1e-4, and on every greedy flag. One line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.server

from tests.server.process import Process

import emend
from emend.lab import SEED, build_world
from emend.lab.consequences import draw_edits

TASK = "emend_facts"


def write_task(folder: Path, facts: list[emend.Edit]) -> None:
    """Write a task of multiple choice: who was asked for, and the targets of the others."""
    targets = sorted({one.target.strip() for one in facts})
    with (folder / "facts.jsonl").open("w") as file:
        for one in facts:
            answer = targets.index(one.target.strip())
            record = {"text": one.text, "choices": targets, "answer": answer}
            file.write(json.dumps(record) + "\n")
    config = {
        "task": TASK, "dataset_path": "json", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(folder / "facts.jsonl")}},
        "output_type": "multiple_choice", "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / f"{TASK}.yaml").write_text(json.dumps(config))  # JSON is YAML


def scored(tasks: TaskManager, model: Any, **arguments: Any) -> tuple[float, list[Any]]:
    """Return accuracy, and (log-probability, greedy) of every choice of every question."""
    found = lm_eval.simple_evaluate(
        model, tasks=[TASK], task_manager=tasks, log_samples=True, bootstrap_iters=0, **arguments
    )
    samples = sorted(found["samples"][TASK], key=lambda one: one["doc_id"])
    pairs = [tuple(pair) for one in samples for (pair,) in one["resps"]]
    return found["results"][TASK]["acc,none"], pairs


def main() -> None:
    """Score base and edited model through the server and without it, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="lab/gptneo")
    parser.add_argument("--facts", type=int, default=8)
    options = parser.parse_args()
    edits = draw_edits(build_world(SEED), options.facts, seed=3)
    edits = [emend.Edit(one.prompt, one.subject, one.target) for one in edits]
    model, tokenizer = emend.load(options.model)
    table = []
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder), edits)
        tasks = TaskManager(include_path=folder, include_defaults=False)
        local = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
        with Process(Path(folder), options.model, "--method", "memit") as server:
            for one in edits[:2]:
                record = {"prompt": one.prompt, "subject": one.subject, "target": one.target}
                server.edit(record).raise_for_status()
            patch = emend.edit(model, tokenizer, edits[:2], "memit")
            for name in (server.base, server.edited):
                url = f"{server.url}/v1/completions"
                arguments = {"model": name, "base_url": url, "num_concurrent": 4, "max_retries": 1}
                accuracy, remote = scored(tasks, "local-completions", model_args=arguments)
                if name == server.base:
                    own, plain = scored(tasks, local)
                else:
                    with patch.applied(model):
                        own, plain = scored(tasks, local)
                pairs = list(zip(remote, plain, strict=True))
                difference = max(abs(float(a[0]) - float(b[0])) for a, b in pairs)
                flags = sum(str(a[1]) == str(b[1]) for a, b in pairs)
                greedy = sum(str(b[1]) == "True" for _, b in pairs)
                table.append({
                    "model": name, "requests": len(pairs), "acc_served": accuracy, "acc_hflm": own,
                    "largest_difference": difference, "equal_flags": flags, "greedy": greedy,
                })  # fmt: skip
            status = server.end()
    print(json.dumps({"table": table, "exit_status": status}))
    assert all(one["largest_difference"] < 1e-4 for one in table)
    assert all(one["equal_flags"] == one["requests"] for one in table)


if __name__ == "__main__":
    main()
