"""Published scores that several datasets share, by the names that papers give them."""

from __future__ import annotations

from collections.abc import Mapping

from emend.datasets._format import HarmonicMean, PublishedScore, Score

COUNTERFACT: Mapping[str, PublishedScore] = {
    "ES": Score("reliability", "probability"),
    "PS": Score("generalization", "probability", "rephrase"),
    "NS": Score("locality", "probability", "neighborhood"),
    "S": HarmonicMean(("ES", "PS", "NS")),
    "EM": Score("reliability", "magnitude"),
    "PM": Score("generalization", "magnitude", "rephrase"),
    "NM": Score("locality", "magnitude", "neighborhood"),
}
"""CounterFact's (Meng et al. 2022, arXiv 2202.05262, section 3.4): how often the new answer is more
probable than the true one (ES, PS; on neighbours the reverse, NS), their harmonic mean, and by how
much."""

KNOWEDIT: Mapping[str, PublishedScore] = {
    "edit success": Score("reliability", "teacher_forced"),
    "portability": Score("portability", "teacher_forced"),
    "subject aliasing": Score("portability", "teacher_forced", "subject_alias"),
    "reasoning": Score("portability", "teacher_forced", "one_hop"),
    "logical generalization": Score("portability", "teacher_forced", "reverse_relation"),
    "locality": Score("locality", "teacher_forced"),
    "relation specificity": Score("locality", "teacher_forced", "relation_specificity"),
    "forgetfulness": Score("locality", "teacher_forced", "forgetfulness"),
    "fluency": Score("fluency", "entropy"),
}
"""KnowEdit's (Zhang et al. 2024, arXiv 2401.01286, section 5): shares of tokens, given the ones
before; of locality of tokens that are as before."""
