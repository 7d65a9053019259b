"""What an erasure costs other facts, on facts from which settings are chosen.

    python benchmarks/erasure_neighbours.py '{"others": 0, "shortest": false}' '{"others": 10}'

The first 12 facts of CounterFact from record 2,000 on that SmolLM2-135M generates are erased by
`memit` with the aim of head projection, once for each argument, a JSON object of settings of
`memit` and ``shortest`` of the aim. Measured: neighbours of the first 52 known records, 60 known
facts of later records (share still generated, and the mean change of the answer's log-probability,
in nats), and attacks at B = 20. The facts of docs/erasing.md's table begin at record 5,000.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from lab_attacks import known_counterfact

import emend
from emend import Probe, methods
from emend.erasure import attack
from emend.erasure.aims import HeadProjection
from emend.erasure.attacks._layers import spread_layers
from emend.erasure.erasing import PROTECTED
from emend.models import ModelView, score
from erasure import real_probes

ATTACKS = ("head_projection", "sampling", "rephrasing", "greedy")
FIRST, SECRETS, OTHERS, NEAR = 2000, 12, 60, 52


def answered(model: Any, tokenizer: Any, probes: list[Probe]) -> list[tuple[float, bool]]:
    """Log-probability of each answer, and whether it is generated greedily."""
    asked = [probe.prompt for probe in probes], [probe.answers[0] for probe in probes]
    return [(one.total, one.token_accuracy == 1) for one in score(model, tokenizer, *asked)]


def main() -> None:
    """Erase with each setting, and print a line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("settings", nargs="+", help="JSON objects")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load("smollm2-135m", dtype="float32")
    every = known_counterfact(model, tokenizer, SECRETS + OTHERS, FIRST)
    secrets = every[:SECRETS]
    near, others = real_probes(every[:NEAR], every[SECRETS:])
    groups = {"neighbours": near, "other facts": others}
    before = {name: answered(model, tokenizer, some) for name, some in groups.items()}
    view = ModelView(model)
    protected = tuple(n for n in spread_layers(view, PROTECTED, None) if n < view.num_layers - 1)
    for text in given.settings:
        settings = json.loads(text)
        aim = HeadProjection(protected, shortest=settings.pop("shortest", True))
        edits, began = [one.edit(one.answer) for one in secrets], time.process_time()
        patch = methods.find("memit").edit(model, tokenizer, edits, aim=aim, **settings)
        line: dict[str, Any] = {"settings": text, "cpu_seconds": time.process_time() - began}
        with patch.applied(model):
            known = (True,) * SECRETS
            found = attack(model, tokenizer, secrets, ATTACKS, known=known, control=False)
            for name, some in groups.items():
                after = answered(model, tokenizer, some)
                pairs = list(zip(before[name], after, strict=True))
                knew = [new[1] for old, new in pairs if old[1]]
                shares = [sum(old[1] for old, _ in pairs), sum(new[1] for _, new in pairs)]
                line[name] = {
                    "right": [count / len(pairs) for count in shares],
                    "known before and still": sum(knew) / len(knew),
                    "log-probability": sum(new[0] - old[0] for old, new in pairs) / len(pairs),
                }
        line["rates"] = {name: one.share for name, one in found.rates.items()}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
