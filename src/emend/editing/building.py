"""The canonical build, from edits to a patch: what MEMIT and its kin do but for their equation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from emend._settings import NotNegative, Positive, Whole
from emend.editing._objective import Site
from emend.editing.assemble import SearchConfig, assemble, filled_search, search_settings
from emend.editing.contexts import STARTS, begun_templates
from emend.editing.fitting import Fitting, fit_together
from emend.editing.joint import solve_jointly
from emend.editing.memory import check_edit
from emend.editing.priors import Prior, metric_of, prior_for
from emend.editing.sources import OwnSamples, texts_for
from emend.editing.spread import Solve, check_layers, seek_targets, spread, usual_site
from emend.edits import Edit
from emend.errors import InvalidInput
from emend.models import ModelView
from emend.patches import Dense, LowRank, WeightPatch


@dataclass(frozen=True)
class SpreadConfig(SearchConfig):
    """Settings of methods that spread many edits over several layers."""

    layers: tuple[int, ...] | None = None
    """Blocks to edit; by default five ending at 0.27 (gated or rotary) or 0.35 of the depth."""
    clamp: Positive | None = None
    """Bound on |delta| / |z0|; by default 0.75 at a block's output, and ROME's where the value is
    the MLP's own output."""
    preserve_factor: NotNegative = 0.3
    """Factor on the mean KL divergence over what is kept. Less than rome's: what is sought at a
    block's output reaches other wordings less where more is kept."""
    share_subject: bool = True
    """Seek one change for all edits of a subject: written at one key, they would otherwise be
    averaged. Off for the published form."""
    fit_steps: Whole = 0
    """Fit the changes of all layers together in so many steps, instead of solving them one after
    another: for very many edits, of which much would be moved elsewhere. Needs texts."""
    fit_weight: NotNegative = 10.0
    """What a token of these texts weighs there, against an edit."""
    fit_rate: Positive = 0.5
    """Part of a wanted change that a step can make there, at first."""
    fit_answers: Whole = 0
    """Go on for so many steps which also fit what is said: the targets, and to the prompts of
    ``preserve`` the answers of before."""
    fit_from: Whole = 0
    """Fit only where there are so many edits or more; fewer are solved layer by layer."""
    fit_answers_from: Whole = 0
    """Take the steps of ``fit_answers`` only where there are so many edits or more."""


Whiten = Callable[[Prior, int], Tensor]
"""Of a layer, the directions (inner, r) that its change may use; see `fitting.Whitener`."""

Solver = Callable[[ModelView, Prior], Solve]
"""Makes what solves one layer, from what is known of all other keys."""

BLOCK_CLAMP = 0.75
"""Bound on |delta| / |z0| at a block's output, as published."""

WEIGHT = 0.1
"""Lambda by default, in inner widths."""


def ridge_solver(weight: float | None, ridge: float) -> Solver:
    """MEMIT's solution (its equation 14), also PMET's.

    Args:
        weight: Lambda; None takes `WEIGHT` times the inner width.
        ridge: Ridge on the second moment, in parts of its mean diagonal.
    """

    def solver(view: ModelView, prior: Prior) -> Solve:
        def solve(layer: int, keys: Tensor, residuals: Tensor) -> LowRank | Dense:
            metric = metric_of(view, prior, layer, ridge)
            factor = WEIGHT * view.intermediate_size(layer) if weight is None else weight
            return solve_jointly(metric, keys, residuals, factor)

        return solve

    return solver


def build(
    model: Any,
    tokenizer: Any,
    edits: tuple[Edit, ...],
    config: SpreadConfig,
    previous: WeightPatch | None,
    *,
    method: str,
    solver: Solver,
    site: Site | None = None,
    share: Callable[[int], float] = lambda remaining: 1.0 / remaining,
    published: bool = False,
    all_keys: bool = True,
    search: Mapping[str, Any] | None = None,
    whiten: Whiten | None = None,
) -> WeightPatch:
    """Seek a value for each edit on the unedited model, and write all of them.

    They are written layer by layer, or fitted in all layers together (``config.fit_steps``).

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        edits: All edits that the patch shall hold.
        config: The method's settings.
        previous: A patch whose values are taken where they are those of the same search; its
            contexts are kept unless the settings name others.
        method: The method's name.
        solver: Makes what solves one layer, from what is known of all other keys.
        site: Where values stand; see `seek_targets`.
        share: Part of what is missing that a layer takes when so many are left, itself included.
        published: Whether settings that are None are filled as published; see `search_settings`.
        all_keys: Whether edits are written at the keys of all contexts where the settings do not
            say.
        search: Settings of the search that are not the user's.
        whiten: Which directions of a layer may be used where all are fitted together; all by
            default.

    Raises:
        InvalidInput: A setting has no meaning for this model.
        SubjectNotFound: The tokenizer makes no token of a subject.
        NotEnoughMemory: It will not fit.
        NumericalFailure: The search or a solution gave something not finite.
    """
    view = ModelView(model)
    layers = check_layers(view, config.layers)
    started = time.perf_counter()
    templates = config.templates or (previous.templates if previous else ())
    count, source = len(templates) or 1 + len(STARTS), texts_for(view, tokenizer, config.texts)
    fitting = _fitting(config, len(edits), has_texts=not isinstance(source, OwnSamples))
    check_edit(
        *(view, tokenizer, edits, count, layers),
        fits=fitting is not None,
        answers=fitting is not None and fitting.answers > 0,
    )
    templates = templates or begun_templates(model, tokenizer, seed=config.seed)
    prior = prior_for(view, tokenizer, layers, source, cache=config.cache)
    solve = solver(view, prior)
    prepared = time.perf_counter()
    settings = search_settings(view, config, published=published)
    site = site or usual_site(view, layers[-1])
    if config.clamp is None and site != "mlp":
        settings = dataclasses.replace(settings, clamp=BLOCK_CLAMP)
    settings = dataclasses.replace(settings, **(search or {}))
    all_keys = all_keys if config.all_keys is None else config.all_keys
    known = previous.state if previous else None
    targets = seek_targets(view, tokenizer, edits, templates, layers, settings, known, site)
    searched = time.perf_counter()
    if fitting is not None:
        directions = partial(whiten or _all_directions, prior)
        changes = fit_together(
            view, tokenizer, targets, templates, layers, source, directions, fitting
        )
    else:
        changes = spread(
            *(view, tokenizer, targets, templates, layers, solve),
            share=share,
            all_keys=all_keys,
        )
    return assemble(
        view,
        edits,
        changes,
        method=method,
        config=dataclasses.replace(filled_search(config, settings, all_keys), layers=layers),
        templates=templates,
        statistics=prior.note,
        seconds={
            "precompute": prepared - started,
            "search": searched - prepared,
            "solve": time.perf_counter() - searched,
        },
        state=targets.state,
    )


def _fitting(config: SpreadConfig, edits: int, *, has_texts: bool) -> Fitting | None:
    """How all layers are fitted together; None where they are not."""
    steps = {
        "fit_steps": config.fit_steps,
        "fit_answers": config.fit_answers if edits >= config.fit_answers_from else 0,
    }
    asked = [name for name, count in steps.items() if count]
    if not asked or edits < config.fit_from:
        return None
    if not has_texts:
        found = " and ".join(f"{name} is {steps[name]}" for name in asked)
        raise InvalidInput(
            f"{found} and no texts are known, expected some thousand that show what to preserve: "
            f"pass texts, or {' and '.join(f'{name}=0' for name in asked)}"
        )
    return Fitting(
        *(steps["fit_steps"], config.fit_weight, config.fit_rate),
        *(steps["fit_answers"], config.preserve, config.seed),
    )


def _all_directions(prior: Prior, layer: int) -> Tensor:
    return prior.spectrum(layer).whitener
