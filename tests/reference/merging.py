"""TIES, DARE and sums of task vectors as their papers write them, number by number.

Yadav et al. 2023, arXiv 2306.01708, algorithm 1; Yu et al. 2023, arXiv 2311.03099, section 3.
"""

from __future__ import annotations

import math


def trimmed(vector, density):
    """Keep the largest numbers by magnitude, and set the others to 0."""
    count = max(1, int(density * len(vector)))
    kept = sorted(range(len(vector)), key=lambda place: -abs(vector[place]))[:count]
    return [number if place in set(kept) else 0.0 for place, number in enumerate(vector)]


def elected(vectors, weights):
    """Return the sign of the weighted sum of each number; that of 0 is positive."""
    sums = [math.fsum(w * v[place] for w, v in zip(weights, vectors, strict=True))
            for place in range(len(vectors[0]))]  # fmt: skip
    return [1 if one >= 0 else -1 for one in sums]


def disjoint_mean(vectors, weights, signs, *, normalize=True):
    """Average the numbers that have the elected sign, by their weights."""
    found = []
    for place, sign in enumerate(signs):
        agreeing = [
            (w, w * v[place])
            for w, v in zip(weights, vectors, strict=True)
            if w * v[place] * sign > 0
        ]
        total = math.fsum(number for _, number in agreeing)
        share = math.fsum(weight for weight, _ in agreeing)
        found.append(total / share if normalize and share else total)
    return found


def ties(vectors, weights, density, *, normalize=True):
    """Trim, elect, and merge."""
    vectors = [trimmed(vector, density) for vector in vectors]
    return disjoint_mean(vectors, weights, elected(vectors, weights), normalize=normalize)


def dare(vector, kept, density, rescale="paper"):
    """Drop the numbers that are not kept, and rescale the others."""
    thinned = [number if keep else 0.0 for number, keep in zip(vector, kept, strict=True)]
    if rescale == "paper":
        return [number / density for number in thinned]
    whole, left = (math.fsum(map(abs, one)) for one in (vector, thinned))
    return [number * whole / left for number in thinned] if left > 1e-7 else thinned


def weighted_sum(vectors, weights, *, normalize=False):
    """Add vectors by their weights."""
    whole = math.fsum(weights) if normalize else 1.0
    return [
        math.fsum(w * v[place] for w, v in zip(weights, vectors, strict=True)) / whole
        for place in range(len(vectors[0]))
    ]
