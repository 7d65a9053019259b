"""How fast causal tracing is: exact effects, and those approximated by gradients.

    python benchmarks/tracing.py [--draws 2] [--plain_layers 3]

A prompt of 20 tokens on a random model of GPT-2 small's shape, one thread. The plain way
(tests/reference/tracing.py) runs the whole model for every token and layer; it is timed on some
layers, of which each takes as long as any other, and the effects there are compared. Ranks are
those of approximate and exact effects over tokens and layers; see lab_trace.py for ranks on
models that know something.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from _shapes import DEPTH, Words, load, rank_correlation, small_model, table, timed
from lab_trace import ranks, trace_lab

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.reference.tracing import Plain

from emend.locate import trace
from emend.models import load as load_model

FACTS = 10
"""Facts of the lab on which ranks are compared."""

PROMPT = (
    "In the last chapter of memoirs {} had spent nearly all of the later years working in the city"
)
SUBJECT = "Maria Elena"


def main() -> None:
    """Time both and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--plain_layers", type=int, default=2, help="layers traced the plain way")
    arguments = parser.parse_args()
    model, tokenizer = small_model(), Words()
    ids = tokenizer(PROMPT.format(SUBJECT))["input_ids"]
    settings = {"draws": arguments.draws}
    trace(model, tokenizer, PROMPT, SUBJECT, draws=1, approximate=True)  # the first is slower
    seconds, found = timed(lambda: trace(model, tokenizer, PROMPT, SUBJECT, **settings))
    short, estimate = timed(
        lambda: trace(model, tokenizer, PROMPT, SUBJECT, approximate=True, **settings)
    )
    plain = Plain(model, ids, found.first, found.last, arguments.draws)
    layers = torch.linspace(0, DEPTH - 1, arguments.plain_layers).round().int().tolist()

    def plain_effects() -> torch.Tensor:
        rows = [[plain.effect("state", token, n) for n in layers] for token in range(len(ids))]
        return torch.tensor(rows)

    some, expected = timed(plain_effects)
    whole = some * DEPTH / len(layers)
    states = found.effects["state"]
    print(f"{len(ids)} tokens, subject at {found.first} and {found.last}, {DEPTH} layers")
    print(f"{arguments.draws} draws of noise; CPU seconds of one thread; {load()}")
    rows = [
        ("way", "seconds", "times faster"),
        (f"plain (timed on {len(layers)} layers)", whole, 1.0),
        ("emend.trace", seconds, whole / seconds),
        ("emend.trace, approximate", short, whole / short),
    ]
    print(table(rows))
    error = float((states[:, layers] - expected).abs().max())
    print(f"largest difference from the plain way {error:.1e}, of {float(states.abs().max()):.1e}")
    random = rank_correlation(estimate.effects["state"][found.first :], states[found.first :])
    print("rank correlation of approximate and exact effects")
    print(f"{random:.3f} on this random model")
    lab_model, lab_tokenizer = load_model("lab/gptneo")
    exact = trace_lab(lab_model, lab_tokenizer, FACTS)
    known = ranks(exact, trace_lab(lab_model, lab_tokenizer, FACTS, approximate=True), "state")
    print(f"{known:.3f} on lab/gptneo, mean over {FACTS} facts that it knows")


if __name__ == "__main__":
    main()
