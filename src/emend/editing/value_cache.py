"""Cache optimised values in a patch, so that continuing it optimises only new ones.

A value is optimised on the unedited model, and does not depend on other edits. So it is cached
under a key of all that it depends on (`_identity`): the model, its tokenizer, the request, the
contexts, the layer and the settings of the optimisation. Under another key it is computed again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend.editing.objective import Site
from emend.editing.sources import texts_for
from emend.editing.target_values import SearchSettings, optimise_values
from emend.edits import Edit
from emend.models import ModelView, model_fingerprint, tokens_fingerprint

PREFIX = "value."
"""Prefix of the names of values in a patch's state, which end with the edit's id."""


def edit_of(name: str) -> str | None:
    """Return the id of the edit whose value has this name; None for other tensors."""
    return name.removeprefix(PREFIX).partition(".")[2] if name.startswith(PREFIX) else None


def cached_values(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings,
    site: Site = "mlp",
    known: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the value of each edit, optimised where it is not known.

    Args:
        view: The unedited model.
        tokenizer: Its tokenizer.
        edits: E edits.
        templates: Context templates, the bare one first.
        layer: The layer.
        settings: Settings of the optimisation.
        site: Where the values are added.
        known: Values by name, as this function returned them.

    Returns:
        The values, (E, hidden_size) float32 (float64 for a float64 model), and the same by name.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    layer = view.numbered([layer])[0]
    asked = dataclasses.asdict(dataclasses.replace(settings, aim=None))
    asked["chunk"] = None  # no result depends on it
    del asked["aim"]  # so that a value of the default aim has the name that it always had
    if settings.aim is not None:
        asked["aim"] = settings.aim.record()
    common = {
        "model": model_fingerprint(view.model),
        "tokenizer": tokens_fingerprint(view.model, tokenizer),
        "templates": templates,
        "layer": layer,
        "site": site,
        "settings": asked,
    }
    requests = [_request(edit, settings.loss.rephrasings) for edit in edits]
    together = _companions(edits, requests) if settings.share_subject else {}
    names = [
        _name(common, edit, request, together.get(edit.subject, []))
        for edit, request in zip(edits, requests, strict=True)
    ]
    state = {name: known[name] for name in names if known and name in known}
    new = {name: edit for name, edit in zip(names, edits, strict=True) if name not in state}
    if new:
        found = optimise_values(
            view, tokenizer, list(new.values()), templates, layer, settings, site=site
        )
        for name, value in zip(new, found, strict=True):
            state[name] = value.target.cpu()
    return torch.stack([state[name] for name in names]), state


def _companions(edits: Sequence[Edit], requests: Sequence[list[str]]) -> dict[str, list[list[str]]]:
    """Collect the requests of each subject, whose values depend on one another."""
    found: dict[str, list[list[str]]] = {}
    for edit, request in zip(edits, requests, strict=True):
        found.setdefault(edit.subject, []).append(request)
    return {subject: sorted(requests) for subject, requests in found.items()}


def _request(edit: Edit, rephrasings: int) -> list[str]:
    rephrased = [probe.prompt for probe in edit.probes_of("rephrase")] if rephrasings else []
    return [edit.prompt, edit.subject, edit.target, *rephrased]


def _name(
    common: Mapping[str, Any], edit: Edit, request: list[str], companions: list[list[str]]
) -> str:
    key = _identity.key("target value", **common, request=request, companions=companions)
    return f"{PREFIX}{key}.{edit.id}"


def settings_content(config: Any, view: ModelView, tokenizer: Any) -> dict[str, Any]:
    """Return all settings of a method, with the content of the files that they name.

    Settings left at their defaults are included, since a default may change. The texts of the
    setting ``texts`` enter by their content, and so does every file or directory whose path a
    setting is.

    Args:
        config: Settings of a method, a dataclass, as `Method.configure` gives them.
        view: The model, which decides the texts where none are named.
        tokenizer: Its tokenizer.

    Returns:
        For `_identity.key`.

    Raises:
        InvalidInput: A source of texts cannot be read.
    """
    given = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    found: dict[str, Any] = {}
    if "texts" in given:
        source = texts_for(view, tokenizer, given.pop("texts"))
        found["texts"] = [source.identity, source.packed]
    files = {name: _content_of(v) for name, v in given.items() if isinstance(v, (str, Path))}
    return {**found, "settings": given, "files": files}


def _content_of(value: str | Path) -> str | None:
    """Return the digest of the file or directory that a setting names, if there is one."""
    try:
        path = Path(value)
        if path.is_dir():
            return _identity.directory_digest(path)
        return _identity.file_digest(path) if path.is_file() else None
    except (
        OSError,
        ValueError,
    ):  # not a path: too long, or with characters that a path cannot have
        return None
