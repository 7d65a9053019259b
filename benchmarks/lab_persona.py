"""Edit opinions of the lab's models by every method, with each answer's trait known exactly.

    python benchmarks/lab_persona.py --models lab/gptneo lab/qwen3

Each of the first topics gets a trait that the model does not show on it. Questions that were not
edited are asked about it and about other topics. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

import emend
from emend.datasets.personality import TRAITS
from emend.models import generate
from emend.persona import edit_personality
from emend.persona.editing import METHODS
from emend.persona.lab import ASKING, NEW_TOKENS, lab_topics, trait_shown

OTHERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["lab/gptneo", "lab/qwen3"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--topics", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | method | trait on the topic | other answers as before | s |")
    print("|---|---|---:|---:|---:|")
    for name in given.models:
        model, tokenizer = emend.load(name)
        for method in given.methods:
            shown, kept, seconds = measured(model, tokenizer, method, given.topics)
            print(f"| {name} | `{method}` | {shown:.1%} | {kept:.1%} | {seconds:.1f} |", flush=True)


def measured(model: Any, tokenizer: Any, method: str, count: int) -> tuple[float, float, float]:
    """Return the shares of answers with the trait, and of others as before, and seconds an edit."""
    topics = lab_topics()
    names = list(topics)
    wanted = names[:count]
    others = names[-OTHERS:]
    before = traits(model, tokenizer, names)
    shown: list[bool] = []
    kept: list[bool] = []
    seconds = 0.0
    for name in wanted:
        trait = next(one for one in TRAITS if one not in before[name])
        began = time.process_time()
        patch = edit_personality(model, tokenizer, topics, name, trait, method, asking=ASKING)
        seconds += time.process_time() - began
        with patch.applied(model):
            after = traits(model, tokenizer, [name, *others])
        shown += [one == trait for one in after[name]]
        pairs = [zip(before[one], after[one], strict=True) for one in others]
        kept += [old == new for each in pairs for old, new in each]
    return sum(shown) / len(shown), sum(kept) / len(kept), seconds / count


def traits(model: Any, tokenizer: Any, names: list[str]) -> dict[str, list[str | None]]:
    """Return the traits of the answers to the held-out questions about some topics."""
    prompts = [prompt for name in names for prompt in ASKING.prompts(name)]
    answers = iter(
        generate(model, tokenizer, prompts, max_new_tokens=NEW_TOKENS, stop="\n", batch_size=64)
    )
    return {name: [trait_shown(next(answers), name) for _ in ASKING.held_out] for name in names}


if __name__ == "__main__":
    main()
