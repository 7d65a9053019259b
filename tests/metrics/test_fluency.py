from __future__ import annotations

import pytest

from emend.metrics.fluency import ngram_entropy


def test_entropy_by_hand():
    # "a b a b": bigrams ab ab... are ab, ba, ab; trigrams aba, bab.
    h2 = -(2 / 3) * -0.5849625007211562 - (1 / 3) * -1.584962500721156
    assert ngram_entropy("a b a b") == pytest.approx(100 * (2 / 3 * h2 + 4 / 3 * 1.0) / 2)


def test_repetition_is_less_fluent_and_short_texts_are_zero():
    assert ngram_entropy("the the the the the the") == 0.0
    assert ngram_entropy("a fox ran over the green hill") > ngram_entropy("a fox a fox a fox a")
    assert ngram_entropy("one") == 0.0
    assert ngram_entropy("") == 0.0
