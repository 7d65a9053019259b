"""What the closed-form methods do alike around their equation: settings in, patch out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from emend._settings import Count, NotNegative, Part, Positive, Seed, Whole
from emend.editing.sources import TextsSetting
from emend.editing.values import CHUNK, Optimizer, SearchSettings
from emend.edits import Edit
from emend.models import ModelView
from emend.models.replay import adds_directly
from emend.patches import Dense, LowRank, WeightPatch, describe_base

UNRECORDED = ("texts", "templates", "cache")
"""Settings that a patch records elsewhere, or that leave no trace."""


@dataclass(frozen=True)
class SearchConfig:
    """Settings that all methods share that seek a value. None is taken from the model's shape."""

    steps: Count | None = None
    """Forward passes of the search; by default 25 (gated or rotary) or 20."""
    learning_rate: Positive = 0.5
    """Step size of Adam."""
    optimizer: Optimizer | None = None
    """What seeks: adam, as published, or lbfgs, which comes as far in a quarter of the steps."""
    weight_decay: NotNegative | None = None
    """Factor on |delta| / |v0|^2; by default 1e-3 (gated or rotary) or 0.5."""
    clamp: Positive | None = None
    """Bound on |delta| / |v0|; by default 4 as published, 8 where statements are kept."""
    kl_factor: NotNegative = 0.0625
    """Factor on the KL divergence that keeps what the subject is."""
    preserve: tuple[str, ...] = ()
    """Further prompts, each with one "{}" for the subject, whose answers are to stay as they are
    (their first three tokens); those that ask for what is edited are found and left out."""
    preserve_factor: NotNegative = 1.0
    """Factor on the mean KL divergence at the end of these."""
    statements: Whole | None = None
    """How many of the model's own statements of a subject are kept as they are; those that name
    the object that is replaced are left out. 0 for the published form."""
    enough: Part | None = None
    """Probability of a target's token from which on the search leaves it alone, and only what is to
    be kept counts; 1 for the published form."""
    all_keys: bool | None = None
    """Write at the keys of all contexts, so that each of them responds alike; False writes at their
    mean, as published."""
    templates: tuple[str, ...] | None = None
    """Contexts, each with one "{}", the bare one first; by default sampled from the model."""
    chunk: Count | None = None
    """Edits sought together; by default 6, and 1 by lbfgs, which magnifies how sums round. With 1,
    a value is the same to the last bit whatever else is sought."""
    seed: Seed = 0
    """Seed of the sampled contexts."""
    texts: TextsSetting | None = None
    """Texts for the second moments: the name of a file or data set, several files, or (in Python)
    a list of the texts themselves; by default the lab's corpus for its models, else samples of
    the model's own."""
    cache: bool = True
    """Keep second moments on disk, under $EMEND_CACHE or ~/.cache/emend."""


STATEMENTS, ENOUGH, STEPS = 6, 0.75, 20
"""Statements that are kept, the probability of a target that is enough, and steps of L-BFGS, where
a method does not take the published search; see docs/defaults.md."""


def search_settings(
    view: ModelView, config: SearchConfig, *, published: bool = False
) -> SearchSettings:
    """Return what the search takes of a method's settings.

    Args:
        view: The model, whose shape fills some settings that are None.
        config: The settings.
        published: Whether the others are filled as published, or with emend's own defaults.
    """
    optimizer = config.optimizer or ("adam" if published else "lbfgs")
    steps = config.steps
    if steps is None:
        steps = 25 if view.is_llama_like else 20
        steps = steps if optimizer == "adam" else STEPS
    usual = 1 if optimizer == "lbfgs" else CHUNK
    chunk = usual if config.chunk is None else config.chunk
    clamp = 4.0 if published else 8.0
    decay = config.weight_decay
    if decay is None:
        decay = 1e-3 if view.is_llama_like else 0.5
    return SearchSettings(
        steps,
        config.learning_rate,
        decay,
        _first(config.clamp, clamp),
        config.kl_factor,
        config.preserve,
        config.preserve_factor,
        share_subject=getattr(config, "share_subject", False),
        chunk=chunk,
        optimizer=optimizer,
        statements=_first(config.statements, 0 if published else STATEMENTS),
        enough=_first(config.enough, 1.0 if published else ENOUGH),
    )


C = TypeVar("C", bound=SearchConfig)


def filled_search(config: C, settings: SearchSettings, all_keys: bool) -> C:
    """A method's settings with what the search took in the place of None."""
    return dataclasses.replace(
        config,
        steps=settings.steps,
        optimizer=settings.optimizer,
        weight_decay=settings.weight_decay,
        clamp=settings.clamp,
        statements=settings.statements,
        enough=settings.enough,
        all_keys=all_keys,
    )


N = TypeVar("N", int, float)


def _first(given: N | None, default: N) -> N:
    return default if given is None else given


def single_layer(view: ModelView, layer: int | None) -> int:
    """The layer of a method that edits one; None gives the default.

    That is at 0.17 of the depth (gated MLPs or rotary positions) or 0.35 (others), and at 0.06
    where what an MLP puts out is changed before it joins the stream, as by the norm of Gemma and
    OLMo 2 (docs/defaults.md).

    Raises:
        InvalidInput: The model has no such layer.
        UnsupportedModel: It cannot be edited.
    """
    if layer is not None:
        (chosen,) = view.numbered([layer])
        view.down_projection(chosen)  # refused now, and not when minutes have been spent
        return chosen
    usual = view.nearest_editable(round((0.17 if view.is_llama_like else 0.35) * view.num_layers))
    if adds_directly(view, usual):
        return usual
    return view.nearest_editable(min(max(1, round(0.06 * view.num_layers)), view.num_layers - 1))


def assemble(
    view: ModelView,
    edits: tuple[Edit, ...],
    changes: Mapping[int, LowRank | Dense],
    *,
    method: str,
    config: Any,
    templates: Sequence[str],
    statistics: Mapping[str, Any],
    seconds: Mapping[str, float],
    state: Mapping[str, Tensor] | None = None,
) -> WeightPatch:
    """The patch of a closed-form method.

    Args:
        view: The model that it is for.
        edits: The edits, in the order in which they were given.
        changes: The change of each layer's down-projection.
        method: The method's name.
        config: Its settings, filled.
        templates: The context templates that were used.
        statistics: What is known of the second moments.
        seconds: Time of each part; "precompute" does not count to that of an edit.
        state: What the method needs to go on from the patch.
    """
    factors: dict[str, LowRank | Dense] = {}
    for layer, change in changes.items():
        if isinstance(change, LowRank) and len(edits) == 1:
            change = LowRank(change.A, change.B, (edits[0].id,) * change.rank)
        factors[view.name_of(view.down_projection(layer))] = change
    spent = sum(time for part, time in seconds.items() if part != "precompute")
    record = dataclasses.asdict(config)
    return WeightPatch(
        factors=factors,
        edits=edits,
        method=method,
        config={name: record[name] for name in record if name not in UNRECORDED},
        base=describe_base(view.model),
        templates=tuple(templates),
        statistics=statistics,
        timing={**seconds, "per_edit": spent / len(edits)},
        state=state or {},
    )
