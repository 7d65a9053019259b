"""100,000 edits searched: milliseconds a query on one core, by words and by vectors.

    python benchmarks/retrieval.py [--texts 100000] [--width 384]

Texts are statements of the lab's relations about invented subjects. "vectors" are random unit
vectors of a usual encoder's width: the encoder's own time is not part of it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from emend.lab.language import RELATIONS
from emend.retrieval import DenseIndex, NamedIndex, WordIndex

QUERIES = 200


class Looked:
    """An encoder that looks vectors up by the number that a text is."""

    name = "looked-up"

    def __init__(self, count: int, width: int) -> None:
        vectors = np.random.default_rng(0).standard_normal((count, width), dtype=np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str]) -> Any:
        """The vectors of some numbers, with some noise where a text ends with a question mark."""
        rows = self.vectors[[int(text.rstrip("?")) for text in texts]]
        if not texts[0].endswith("?"):
            return rows
        noise = np.random.default_rng(1).standard_normal(rows.shape, dtype=np.float32)
        rows = rows + 0.02 * noise
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def statements(count: int) -> tuple[list[str], list[str], list[str]]:
    """Texts, their subjects, and a question about each of the first."""
    generator = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "el", "or", "in", "u")]
    texts, names, questions = [], [], []
    for _ in range(count):
        name = " ".join("".join(generator.choices(syllables, k=3)).capitalize() for _ in range(2))
        relation = generator.choice(RELATIONS)
        texts.append(f"{generator.choice(relation.statements).format(name)} something.")
        names.append(name)
        questions.append(generator.choice(relation.questions).format(name))
    return texts, names, questions[:QUERIES]


def measure(title: str, build: Any, queries: Sequence[str], wanted: Sequence[int]) -> None:
    """Print one row: seconds to build, milliseconds a query, and how many were found first."""
    started = time.perf_counter()
    index = build()
    built = time.perf_counter() - started
    index.search(queries[:2], 1)
    times: list[float] = []
    found = 0
    for query, place in zip(queries, wanted, strict=True):
        started = time.perf_counter()
        hits = index.search([query], 1)[0]
        times.append(1000 * (time.perf_counter() - started))
        found += hits[0].place == place
    times.sort()
    share = found / len(queries)
    print(
        f"| {title} | {built:.1f} | {times[len(times) // 2]:.2f} | "
        f"{times[int(0.95 * len(times))]:.2f} | {share:.3f} |",
        flush=True,
    )


def main() -> None:
    """Print a row for each kind of index."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=384)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts, names, questions = statements(arguments.texts)
    wanted = list(range(len(questions)))
    print(f"{arguments.texts:,} texts, {len(questions)} queries, one thread\n")
    print("| index | s to build | ms a query (median) | ms (95th percentile) | found first |")
    print("|---|---:|---:|---:|---:|")
    measure("words (BM25)", lambda: WordIndex(texts), questions, wanted)
    measure("words, named first", lambda: NamedIndex(WordIndex(texts), names), questions, wanted)
    numbers = [str(number) for number in range(arguments.texts)]
    encoder = Looked(arguments.texts, arguments.width)
    asked = [f"{number}?" for number in wanted]
    everything = arguments.texts + 1
    measure("vectors, exact", lambda: DenseIndex(numbers, encoder, large=everything), asked, wanted)
    try:
        import faiss

        faiss.omp_set_num_threads(1)
    except ImportError:
        return
    measure("vectors, FAISS graph", lambda: DenseIndex(numbers, encoder), asked, wanted)


if __name__ == "__main__":
    main()
