"""Fluency: does the model still write varied text, or repeat itself?

The n-gram entropy GE of Meng et al. 2022 (arXiv 2202.05262, section 3.4; there x 100):
GE = 100 * (2/3 H2 + 4/3 H3) / 2 with Hn the entropy in bits of the text's word n-grams.

Deviations: words are found by a regular expression and not by NLTK, which would download its
data; texts are the edit prompt's greedy continuation and not sampled ones, so that the value
is the same each time, and 50 tokens long and not 100, because they cost the most of all
questions. Greedy text repeats more: compare before with after, not with papers.
"""

from __future__ import annotations

import math
import re
from collections import Counter

from emend.edits import Edit
from emend.metrics._metric import Answer, Metric, Outcomes, Question

ENTROPY = "entropy"
NEW_TOKENS = 50
_WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")


def ngram_entropy(text: str) -> float:
    """Compute GE of a text, in bits x 100; 0.0 where it is too short to have n-grams."""
    words = _WORD.findall(text)
    return 100 * (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: list[str], length: int) -> float:
    counts = Counter(zip(*(words[i:] for i in range(length)), strict=False))
    total = sum(counts.values())
    # max: a text of one n-gram has entropy 0, not -0
    return max(0.0, -sum(n / total * math.log2(n / total) for n in counts.values()))


def _ask(edit: Edit) -> list[Question]:
    return [Question(edit.text, new_tokens=NEW_TOKENS)]


def _judge(question: Question, before: Answer, after: Answer) -> Outcomes:
    texts = (question.prompt + answer.text for answer in (before, after))
    old, new = (ngram_entropy(text) for text in texts)
    return {ENTROPY: (old, new)}


fluency = Metric(
    name="fluency",
    title="writes varied text (n-gram entropy in bits x 100)",
    ask=_ask,
    judge=_judge,
    headline=ENTROPY,
    unit="bits x 100",
    by_default=False,  # it costs more than all others together
)
