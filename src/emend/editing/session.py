"""The editing session: a method's inputs, and the engine's results for it.

A closed-form method prepares contexts and key covariance, optimises target values, writes them, and
returns the session's patch:

    session.prepare([layer], search)
    values = session.target_values(layer, session.search_settings(search))
    ...
    return session.patch({layer: change}, layer=layer)

The session records what every method would record: contexts, settings filled in, covariance,
seconds of each part, and the values, from which a later patch continues.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from emend._brief import count_text
from emend._io import cache_directory
from emend._progress import announce
from emend._settings import Count, Seed
from emend.editing.aims import Aim
from emend.editing.contexts import BEGUN, Contexts
from emend.editing.covariance import KeyCovariance, key_covariance
from emend.editing.keys import KeysAndOutputs, subject_keys
from emend.editing.layers import editable_layers, single_layer
from emend.editing.layerwise import Write, distribute_residuals
from emend.editing.memory import check_edit
from emend.editing.objective import Site
from emend.editing.preservation import about_others
from emend.editing.ridge import RIDGE, Held, Inverse, ridge_write
from emend.editing.sources import OwnSamples, TextsSetting, texts_for
from emend.editing.target_values import SearchSettings, Value
from emend.editing.value_cache import FOLDER, Saved, cached_values, edit_of, stored_values
from emend.edits import Edit
from emend.errors import UnknownName
from emend.models import ModelView
from emend.models.replay import adds_directly
from emend.patches import Factor, LowRank, MemoryPatch, Patch, WeightPatch, describe_base

UNRECORDED = ("texts", "templates")
"""Settings that a patch records elsewhere."""

OWN_RIDGE = 1.0
"""Ridge on a covariance over the few tokens of the model's own samples (docs/statistics.md)."""

ENOUGH = 0.75
"""Probability from which on a target token adds no loss (docs/defaults.md)."""

STATEMENTS, STEPS, CLAMP = 6, 20, 8.0
"""Statements of the subject that are preserved, steps of L-BFGS, and bound on |delta| / |v0|, where
a method does not take the published optimisation (docs/defaults.md)."""

PUBLISHED_CLAMP = 4.0

NORM_PENALTY = 0.5
"""Factor on |delta| / |v0|^2, as published: of methods that spread an edit over several layers, and
of models without a gated MLP or rotary positions."""

LLAMA_NORM_PENALTY = 1e-3
"""The same of one layer, for models that have one of them."""

COV_WEIGHT = 0.1
"""Lambda of MEMIT and PMET by default, in intermediate sizes."""

BLOCK_CLAMP = 0.75
"""Bound on |delta| / |z0| at a layer's output, as published."""


@dataclass(frozen=True)
class Search:
    """Settings of the optimisation of target values, which several methods share."""

    steps: Count | None = None
    """Forward passes of the optimisation; by default 20 of L-BFGS; published: 25 of Adam (gated
    MLPs or rotary positions) or 20 (others)."""
    templates: tuple[str, ...] | None = None
    """Contexts, each with one "{}", the bare one first; by default sampled from the model."""
    texts: TextsSetting | None = None
    """Texts for the key covariance: the name of a file or dataset, several files, or (in Python)
    a list of the texts themselves; by default the lab's corpus for its models, else samples of
    the model's own."""
    seed: Seed = 0
    """Seed of the sampled contexts."""


class Session:
    """One call of a method: the unedited model, the edits, and the engine's results for them.

    Args:
        model: The unedited model.
        tokenizer: Its tokenizer.
        edits: E edits, in the order in which they were given.
        previous: The patch to continue, as `About.continues` describes it.
        method: The method's name.
        config: Its settings, a dataclass.
        ablation: Fields of `SearchSettings`, and ``ridge`` (on the covariance, in parts of its mean
            diagonal), that replace those of the method.
        aim: Another loss in place of the target's negative log-likelihood.

    Attributes:
        aim: See above; a method that declares `About.aims` minimises it.
        ordered: The edits sorted by id, so that the result does not depend on their order.
        templates: The contexts, once `prepare` has run.
        covariance: The key covariance of the prepared layers.

    Raises:
        UnknownName: A field to ablate does not exist.
    """

    covariance: KeyCovariance

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        edits: Sequence[Edit],
        previous: Patch | None = None,
        *,
        method: str = "",
        config: Any = None,
        ablation: Mapping[str, Any] | None = None,
        aim: Aim | None = None,
    ) -> None:
        self.model, self.tokenizer, self.previous = model, tokenizer, previous
        self.edits, self.method, self.config = tuple(edits), method, config
        self.aim = aim
        self.ordered = tuple(sorted(edits, key=lambda edit: edit.id))
        self.templates: tuple[str, ...] = ("{}",)
        self._search = dict(ablation or {})
        self._ridge: float | None = self._search.pop("ridge", None)
        known = [field.name for field in dataclasses.fields(SearchSettings)]
        for name in self._search:
            if name not in known:
                raise UnknownName("field to ablate", name, [*known, "ridge"])
        self._own_samples = False
        self._filled: dict[str, Any] = {"ablation": dict(ablation)} if ablation else {}
        if aim is not None:
            self._filled["aim"] = aim.record()
        self._state: dict[str, Tensor] = {}
        self._seconds: dict[str, float] = {}
        self._saved = Saved()
        self._note: dict[str, Any] = {}
        self._since = time.perf_counter()

    @cached_property
    def view(self) -> ModelView:
        """The model's parts; a method that acts on prompts alone needs none."""
        return ModelView(self.model)

    @property
    def memory(self) -> MemoryPatch | None:
        """The memory to continue, of a method whose patches are memories."""
        return self.previous if isinstance(self.previous, MemoryPatch) else None

    def one_layer(self, layer: int | None) -> int:
        """Return the layer of a method that edits one; see `single_layer`."""
        return single_layer(self.view, layer)

    def several_layers(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        """Return the layers of a method that edits several; see `editable_layers`."""
        return editable_layers(self.view, layers)

    def layer_at(self, layer: int | None, depth: float) -> int:
        """Return a layer, by default the nearest that can be edited at a part of the depth."""
        if layer is None:
            return self.view.nearest_editable(round(depth * self.view.num_layers))
        return self.view.numbered([layer])[0]

    def site(self, layer: int) -> Site:
        """Return where values of a layer are optimised.

        That is the layer's output where the MLP's output is added to the residual stream unchanged,
        and the MLP's output where it is not.
        """
        return "block" if adds_directly(self.view, layer) else "mlp"

    def prepare(self, layers: Sequence[int], search: Search, contexts: Contexts = BEGUN) -> None:
        """Check that the edit fits in memory, sample the contexts and load the key covariance.

        Args:
            layers: The edited layers.
            search: The user's settings.
            contexts: How to sample contexts where neither settings nor previous patch give any.

        Raises:
            NotEnoughMemory: The edit does not fit.
            InvalidInput: The texts cannot be read.
        """
        previous = self.previous if isinstance(self.previous, WeightPatch) else None
        # Those of a patch without target values, by fine-tuning say, are no contexts.
        known = previous.templates if previous and any(map(edit_of, previous.state)) else ()
        templates = search.templates or known
        source = texts_for(self.view, self.tokenizer, search.texts)
        count = len(templates) or contexts.count
        check_edit(self.view, self.tokenizer, self.edits, count, layers)
        self.templates = tuple(
            templates or contexts.sample(self.model, self.tokenizer, seed=search.seed)
        )
        self.covariance = key_covariance(self.view, self.tokenizer, layers, source)
        self._note = dict(self.covariance.note)
        self._own_samples = isinstance(source, OwnSamples)
        self.lap("precompute")

    def search_settings(
        self,
        search: Search,
        site: Site = "mlp",
        *,
        published: bool = False,
        clamp: float | None = None,
        **own: Any,
    ) -> SearchSettings:
        """Fill in the settings of the optimisation.

        Args:
            search: The user's settings.
            site: Where values are optimised.
            published: Take published values, not emend's defaults, for what the user leaves open.
            clamp: Bound on |delta| / |v0|; None takes 4 (published) or 8 at an MLP's output, and
                0.75 elsewhere.
            own: Fields of `SearchSettings` that the method sets, such as ``preserve_factor``, the
                factor on the mean KL(before || after) of what the model states of the subject.
        """
        like_llama = self.view.is_llama_like
        usual: dict[str, Any] = {"optimizer": "lbfgs", "steps": STEPS}
        usual |= {"clamp": CLAMP, "statements": STATEMENTS, "enough": ENOUGH}
        if published:
            usual = {"steps": 25 if like_llama else 20, "clamp": PUBLISHED_CLAMP}
        # One edit at a time, so that a value is the same to the last bit whatever else is edited.
        usual |= {"chunk": 1, "norm_penalty": LLAMA_NORM_PENALTY if like_llama else NORM_PENALTY}
        given = {"steps": search.steps, "clamp": clamp}
        usual |= {name: value for name, value in given.items() if value is not None}
        if clamp is None and site != "mlp":
            usual["clamp"] = BLOCK_CLAMP
        usual["aim"] = self.aim
        settings = SearchSettings(**{**usual, **own, **self._search})
        self.fill(steps=settings.steps, norm_penalty=settings.norm_penalty)
        return settings

    def optimise(self, layer: int, settings: SearchSettings) -> list[Value]:
        """Optimise each edit's value at a layer's MLP output, in the order given."""
        view, tokenizer = self.view, self.tokenizer
        found, saved = stored_values(view, tokenizer, self.edits, self.templates, layer, settings)
        self._lap_search(saved)
        return found

    def target_values(self, layer: int, settings: SearchSettings, site: Site = "mlp") -> Tensor:
        """Optimise the values of the ordered edits that the previous patch does not hold.

        Returns:
            (E, hidden_size) float32 (float64 for a float64 model).
        """
        known = self.previous.state if isinstance(self.previous, WeightPatch) else None
        values, self._state, saved = cached_values(
            *(self.view, self.tokenizer, self.ordered, self.templates, layer),
            *(settings, site, known),
        )
        self._lap_search(saved)
        return values

    def _lap_search(self, saved: Saved) -> None:
        """Add the seconds of a search; values that were read count as when they were optimised."""
        self.lap("search")
        if saved.values:
            self._seconds["search"] += saved.seconds
            self._saved = saved
            announce(
                f"{count_text(saved.values, 'value')} of {len(self.edits)} read from "
                f"{cache_directory(FOLDER)}, and not optimised again"
            )

    def keys_and_outputs(self, layer: int) -> KeysAndOutputs:
        """Read keys and outputs of the ordered edits at a layer, in all contexts."""
        return subject_keys(self.view, self.tokenizer, self.ordered, self.templates, [layer])[layer]

    @property
    def direction_ridge(self) -> float:
        """The ridge for a method that writes a fact along one direction."""
        usual = OWN_RIDGE if self._own_samples else RIDGE
        return usual if self._ridge is None else self._ridge

    def inverse(self, layer: int, ridge: float = RIDGE) -> Inverse:
        """Return C^-1 of a prepared layer, by its Cholesky factor.

        Args:
            layer: The layer.
            ridge: Ridge in parts of C's mean diagonal.

        Raises:
            NumericalFailure: C is singular.
        """
        device = self.view.device(layer)
        # Float64 is slow or missing on other accelerators.
        place = device if device.type == "cuda" else torch.device("cpu")
        return self.covariance.inverse(layer, ridge if self._ridge is None else self._ridge, place)

    def ridge_writer(self, cov_weight: float | None) -> Write:
        """Return MEMIT's way to write a layer (its equation 14), also PMET's.

        Args:
            cov_weight: Lambda; None takes 0.1 times the layer's intermediate size.
        """

        def write(layer: int, keys: Tensor, residuals: Tensor, held: Held | None) -> Factor:
            weight = COV_WEIGHT * self.view.intermediate_size(layer)
            weight = weight if cov_weight is None else cov_weight
            return ridge_write(self.inverse(layer), keys, residuals, weight, held=held)

        return write

    def distribute(
        self,
        targets: Tensor,
        layers: Sequence[int],
        write: Write,
        site: Site,
        *,
        others: int = 0,
        **how: Any,
    ) -> dict[int, Factor]:
        """Write target values over several layers; see `distribute_residuals`.

        Args:
            targets: See there.
            layers: See there.
            write: See there.
            site: See there.
            how: See there.
            others: Most other subjects for each edit, named by the model, whose values are held.
        """
        hold = about_others(self.view, self.tokenizer, self.ordered, others)
        return distribute_residuals(
            *(self.view, self.tokenizer, self.ordered, targets, site, self.templates, layers),
            *(write,),
            hold=hold,
            **how,
        )

    def fill(self, **settings: Any) -> None:
        """Record the values of settings that the user left open."""
        self._filled |= settings

    def lap(self, part: str) -> None:
        """Add the seconds since the last call to a part of the work."""
        now = time.perf_counter()
        self._seconds[part] = self._seconds.get(part, 0.0) + now - self._since
        self._since = now

    def patch(
        self,
        changes: Mapping[int, Factor] | Mapping[str, Factor],
        *,
        statistics: Mapping[str, Any] | None = None,
        state: Mapping[str, Tensor] | None = None,
        **filled: Any,
    ) -> WeightPatch:
        """Return the method's patch.

        Args:
            changes: The change of each layer's down-projection, or of each module by its name.
            statistics: Statistics that the patch records besides the covariance's note.
            state: Tensors from which the method continues the patch, besides the values.
            filled: See `fill`.
        """
        self.fill(**filled)
        return WeightPatch(
            factors={self._module(place): self._owned(one) for place, one in changes.items()},
            edits=self.edits,
            templates=self.templates,
            statistics={**self._note, **(statistics or {})},
            state={**self._state, **(state or {})},
            **self.record(),
        )

    def record(self) -> dict[str, Any]:
        """Return what every patch records: method, settings as filled in, base and seconds."""
        self.lap("solve" if "search" in self._seconds else "search")
        spent = sum(time for part, time in self._seconds.items() if part != "precompute")
        given = {f.name: getattr(self.config, f.name) for f in dataclasses.fields(self.config)}
        settings = {**given, **self._filled}
        return {
            "method": self.method,
            "config": {name: v for name, v in settings.items() if name not in UNRECORDED},
            "base": describe_base(self.model),
            "timing": {
                "precompute": 0.0,
                **self._seconds,
                "per_edit": spent / len(self.edits),
                **({"saved_cpu": self._saved.cpu_seconds} if self._saved.values else {}),
            },
        }

    def _module(self, place: int | str) -> str:
        if isinstance(place, str):
            return place
        return self.view.name_of(self.view.down_projection(place))

    def _owned(self, change: Factor) -> Factor:
        """Mark all rows of a patch of one edit as that edit's."""
        if isinstance(change, LowRank) and len(self.edits) == 1:
            return LowRank(change.A, change.B, (self.edits[0].id,) * change.rank)
        return change
