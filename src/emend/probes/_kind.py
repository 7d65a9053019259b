"""The kind of a subject that is in no list, asked of the model itself."""

from __future__ import annotations

from emend import models
from emend.probes._asking import Asker
from emend.probes._data import kinds_to_try

_PROMPT = "The word {} is the name of a famous"
_NOTHING = "this"
_PRIOR = 0.5
_GAIN = 0.5


def kind_by_model(asker: Asker, subject: str) -> tuple[str, ...]:
    """Find the kind that the model takes a subject for.

    The model is asked for the probability of each kind's word after "The word {} is the name of a
    famous". Words that are probable of every subject count less: by half of their log-probability
    without a subject.

    Args:
        asker: The unedited model.
        subject: The subject.

    Returns:
        The kind alone; nothing where its word is less than `_GAIN` nats more probable than
        without the subject, and of an endpoint, which gives no probabilities.
    """
    if isinstance(asker.model, models.Endpoint):
        return ()
    kinds = kinds_to_try()
    prompts = [_PROMPT.format(name) for name in (subject, _NOTHING) for _ in kinds]
    scores = models.score(
        asker.model, asker.tokenizer, prompts, [*kinds, *kinds], batch_size=asker.batch_size
    )
    own = [one.total for one in scores[: len(kinds)]]
    usual = [one.total for one in scores[len(kinds) :]]
    _, gain, kind = max(
        (log_prob - _PRIOR * without, log_prob - without, kind)
        for log_prob, without, kind in zip(own, usual, kinds, strict=True)
    )
    return (kind,) if gain >= _GAIN else ()
