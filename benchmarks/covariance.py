"""Time the key covariances of five layers in one pass against five passes, and see they agree.

    python benchmarks/covariance.py                # some 3 CPU minutes
    python benchmarks/covariance.py --layers 3,4,5,6,7 --tokens 8192 --json

A random model of GPT-2 small's shape (12 blocks, width 768, keys of 3,072), one CPU thread,
everything in one process, documents of 40 to 600 tokens. Three ways:

  one       one pass for all layers: packed windows, the lower triangle of each k k^T in panels
  five      the same code once for each layer: what sharing the pass gains by itself
  plain     five passes as the published code makes them: documents sorted by length and padded,
            stopped at the layer, the whole of each k^T k

How much can be gained is counted too, in multiplications: a token costs a block 12 width^2 (the
last block, of which the down-projection is not run, 8 width^2), and a layer's sum inner^2, or half
of that where one triangle is taken.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from emend.editing.collecting import collect_covariance  # noqa: E402
from emend.editing.sources import Texts  # noqa: E402
from emend.models import ModelView  # noqa: E402

WIDTH, INNER, VOCABULARY = 768, 3072, 1000
END = 0
BATCH_TOKENS = 4096


class Numbers:
    """A tokenizer for the benchmark: texts are numbers with spaces between."""

    eos_token_id = pad_token_id = END

    def __call__(self, texts, **options):
        """Ids, of which none is special."""
        ids = [[int(word) for word in text.split()] for text in texts]
        return {"input_ids": ids, "special_tokens_mask": [[0] * len(row) for row in ids]}


def documents(tokens: int) -> list[str]:
    """Random documents of 40 to 600 tokens, each with its end, with this many tokens in all."""
    generator = torch.Generator().manual_seed(0)
    texts: list[str] = []
    left = tokens
    while left > 1:
        length = min(int(torch.randint(40, 600, (1,), generator=generator)), left)
        ids = torch.randint(1, VOCABULARY, (length - 1,), generator=generator)
        texts.append(" ".join(map(str, ids.tolist())))
        left -= length
    return texts


class Stop(Exception):
    """The layer has been reached."""


def plain_pass(model: GPT2LMHeadModel, rows: list[list[int]], layer: int) -> Tensor:
    """One pass as the published code makes it: the key covariance of one layer, float32."""
    total = torch.zeros(INNER, INNER)
    seen: list[Tensor] = []

    def look(_module, args):
        seen.append(args[0])
        raise Stop

    handle = model.transformer.h[layer].mlp.c_proj.register_forward_pre_hook(look)
    count = 0
    for batch in by_length(rows):
        longest = max(map(len, batch))
        ids = torch.tensor([row + [END] * (longest - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        seen.clear()
        try:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        except Stop:
            keys = seen[0][mask.bool()]  # (tokens, inner)
            total.addmm_(keys.T, keys)
            count += len(keys)
    handle.remove()
    return total / count


def by_length(rows: list[list[int]]) -> list[list[list[int]]]:
    """Batches of like length, each with this many tokens including padding."""
    groups: list[list[list[int]]] = [[]]
    for row in sorted(rows, key=len, reverse=True):
        if groups[-1] and (len(groups[-1]) + 1) * len(groups[-1][0]) > BATCH_TOKENS:
            groups.append([])
        groups[-1].append(row)
    return groups


def counted(layers: list[int]) -> dict[str, float]:
    """Multiplications for each token of the three ways, in millions."""
    block, last, whole = 12 * WIDTH**2, 8 * WIDTH**2, INNER**2
    panels = INNER // 256
    triangle = whole * (panels + 1) / (2 * panels)
    one = max(layers) * block + last + len(layers) * triangle
    five = sum(layer * block + last + triangle for layer in layers)
    plain = sum(layer * block + last + whole for layer in layers)
    return {"one": one / 1e6, "five": five / 1e6, "plain": plain / 1e6}


def timed(function):
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two matrices, over the largest element."""
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", default="3,4,5,6,7", help="such as 3,4,5")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens, about")
    parser.add_argument("--json", action="store_true", help="print one object")
    arguments = parser.parse_args()
    layers = [int(layer) for layer in arguments.layers.split(",")]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY)).eval()
    view, tokenizer, texts = ModelView(model), Numbers(), documents(arguments.tokens)
    source = Texts(texts, packed=True)

    def ours(chosen: list[int]) -> dict[int, Tensor]:
        found = collect_covariance(view, tokenizer, source, chosen)
        return {layer: moment.matrix for layer, moment in found.items()}

    def plainly() -> dict[int, Tensor]:
        rows = tokenizer(texts)["input_ids"]
        with torch.no_grad():
            return {layer: plain_pass(model, rows, layer) for layer in layers}

    collect_covariance(view, tokenizer, source, layers[:1], max_tokens=1024)  # warm up
    one_seconds, one = timed(lambda: ours(layers))
    five_seconds, five = timed(lambda: {k: v for n in layers for k, v in ours([n]).items()})
    plain_seconds, plain = timed(plainly)
    # Packed windows hold other contexts than rows do; on rows both must be the same.
    apart = collect_covariance(view, tokenizer, texts, layers)
    limits = counted(layers)
    result = {
        "layers": arguments.layers,
        "tokens": sum(len(text.split()) + 1 for text in texts),
        "one_cpu_seconds": one_seconds,
        "five_cpu_seconds": five_seconds,
        "plain_cpu_seconds": plain_seconds,
        "five_over_one": five_seconds / one_seconds,
        "plain_over_one": plain_seconds / one_seconds,
        "counted_five_over_one": limits["five"] / limits["one"],
        "counted_plain_over_one": limits["plain"] / limits["one"],
        "share_of_sums_counted": 1 - (max(layers) * 12 + 8) * WIDTH**2 / (limits["one"] * 1e6),
        "error_one_to_five": max(difference(one[n], five[n]) for n in layers),
        "error_rows_to_plain": max(difference(apart[n].matrix, plain[n]) for n in layers),
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(
            f"{name.replace('_', ' '):<28}", f"{value:.3g}" if isinstance(value, float) else value
        )


if __name__ == "__main__":
    main()
