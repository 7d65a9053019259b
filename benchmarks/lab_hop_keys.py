"""Can an editor tell questions over two facts apart, by the keys that it reads at their subject?

    python benchmarks/lab_hop_keys.py [lab/qwen3] [--people 15] [--questions 8]

Keys are read at the last layer that memit edits, at the subject's last token; the mean key is
taken off. Printed are cosines between the keys of one subject in two questions, and of two
subjects in one question.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from statistics import mean

import torch

import emend
from emend.editing import subject_keys
from emend.editing.layers import default_layers
from emend.edits import Edit
from emend.lab import shipped_world
from emend.ledger import lab_rules
from emend.models import ModelView

PERSONAL = ("spouse", "employer", "birthplace")


def main() -> None:
    """Print the cosines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="lab/qwen3")
    parser.add_argument("--people", type=int, default=15)
    parser.add_argument("--questions", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = emend.load(given.model)
    view = ModelView(model)
    layer = default_layers(view)[-1]
    people = sorted(shipped_world().aliases)[: given.people]
    rules = [rule for rule in lab_rules().compositions if rule.first in PERSONAL]
    prompts = [rule.prompts[0] for rule in rules][: given.questions]
    edits = [Edit(prompt, one, "-") for one in people for prompt in prompts]
    keys = subject_keys(view, tokenizer, edits, ["{}"], [layer])[layer].keys[:, 0].double()
    keys = torch.nn.functional.normalize(keys - keys.mean(0), dim=1)
    keys = keys.reshape(len(people), len(prompts), -1)  # (people, questions, inner)
    within = [float(one[a] @ one[b]) for one in keys for a, b in combinations(range(len(one)), 2)]
    across = [
        float(keys[i, a] @ keys[j, a])
        for a in range(len(prompts))
        for i, j in combinations(range(len(people)), 2)
    ]
    for title, found in (("one subject, two questions", within), ("two subjects", across)):
        print(f"{title}: mean {mean(found):.3f}, from {min(found):.3f} to {max(found):.3f}")


if __name__ == "__main__":
    main()
