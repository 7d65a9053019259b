"""Values that were optimised before are read, not optimised again.

A value is optimised on the unedited model, and does not depend on other edits. So a patch carries
its values, for the patch that continues it (`cached_values`), and each value is written to a file
as soon as it is found (`stored_values`): a killed run resumes after its last edit, and another
method, schedule or weight of the covariance optimises nothing that was optimised already. Both are
known by a key of all that a value depends on (`_identity`): the model, its tokenizer, the request,
the contexts, the layer and the settings of the optimisation. Under another key it is computed
again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emend import _identity
from emend._io import cache_directory
from emend.editing import tensor_cache
from emend.editing.objective import Site
from emend.editing.sources import texts_for
from emend.editing.target_values import Found, SearchSettings, Value, optimise_values
from emend.edits import Edit
from emend.models import ModelView, attachments, model_fingerprint, tokens_fingerprint

PREFIX = "value."
"""Prefix of the names of values in a patch's state, which end with the edit's id."""

FOLDER = "values"
"""The folder of `$EMEND_CACHE` that holds a file for each value."""

WORTH = 0.5
"""Seconds of an optimisation from which on its value is written to a file."""

TENSORS = ("initial", "target", "keys", "outputs")
"""Fields of `Value` that a file holds as tensors."""


@dataclass(frozen=True)
class Saved:
    """What was read and not optimised.

    Attributes:
        values: Number of values.
        seconds: What they took when they were optimised, by the clock.
        cpu_seconds: The same of the CPU.
    """

    values: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def edit_of(name: str) -> str | None:
    """Return the id of the edit whose value has this name; None for other tensors."""
    return name.removeprefix(PREFIX).partition(".")[2] if name.startswith(PREFIX) else None


def stored_values(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings,
    site: Site = "mlp",
) -> tuple[list[Value], Saved]:
    """Do what `optimise_values` does, but read each value that has a file, and write the others.

    Nothing is read or written where a value depends on what else is optimised (a chunk above 1), or
    while a patch acts on the model, which the key does not hold.

    Returns:
        E values, in the order of the edits, and what was read.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    keys = _keys(view, tokenizer, edits, templates, layer, settings, site)
    return _stored(view, tokenizer, edits, keys, (templates, layer, settings), site)


def _stored(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    keys: Sequence[str],
    asked: tuple[Sequence[str], int, SearchSettings],
    site: Site,
) -> tuple[list[Value], Saved]:
    """Do what `stored_values` does, with each edit's key; `asked` is what is the same for all."""
    _, layer, settings = asked
    if settings.chunk != 1 or attachments(view.model):
        return optimise_values(view, tokenizer, edits, *asked, site=site), Saved()
    device = view.device(view.numbered([layer])[0])
    paths = [_path(key, device) for key in keys]
    read = {n: found for n, path in enumerate(paths) if (found := _read(path, device))}
    if settings.share_subject:  # those of a subject are optimised together
        torn = {edit.subject for n, edit in enumerate(edits) if n not in read}
        read = {n: found for n, found in read.items() if edits[n].subject not in torn}
    missing = [n for n in range(len(edits)) if n not in read]

    def write(found: Found) -> None:
        for number, value in zip(found.edits, found.values, strict=True):
            _write(paths[missing[number]], value, found)

    values = {n: value for n, (value, _) in read.items()}
    if missing:
        some = [edits[n] for n in missing]
        new = optimise_values(view, tokenizer, some, *asked, site=site, on_found=write)
        values |= zip(missing, new, strict=True)
    notes = [note for _, note in read.values()]
    spent = [sum(note[name] for note in notes) for name in ("seconds", "cpu_seconds")]
    return [values[n] for n in range(len(edits))], Saved(len(notes), *spent)


def _path(key: str, device: torch.device) -> Path:
    name = _identity.digest([key, device.type])
    return cache_directory(FOLDER) / name[:2] / f"{name}.safetensors"


def _read(path: Path, device: torch.device) -> tuple[Value, dict[str, Any]] | None:
    """Return a value with its note; None where there is no file, or a broken one."""
    note = tensor_cache.read_note(path)
    tensors = None if note is None else tensor_cache.read(path, *TENSORS)
    if note is None or tensors is None or not {"losses", "seconds", "cpu_seconds"} <= set(note):
        return None
    return Value(*(one.to(device) for one in tensors), losses=tuple(note["losses"])), note


def _write(path: Path, value: Value, found: Found) -> None:
    """Write a value that took long enough; of several found together each took its part."""
    count = len(found.values)
    if found.seconds / count < WORTH:
        return
    note = {
        "losses": value.losses,
        "seconds": found.seconds / count,
        "cpu_seconds": found.cpu_seconds / count,
    }
    tensor_cache.write(path, {name: getattr(value, name).clone() for name in TENSORS}, note)


def cached_values(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings,
    site: Site = "mlp",
    known: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor], Saved]:
    """Return the value of each edit, found by `stored_values` where a patch does not hold it.

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
        The values, (E, hidden_size) float32 (float64 for a float64 model), the same by name, and
        what was read from files.

    Raises:
        SubjectNotFound: The tokenizer makes no token of a subject.
        NumericalFailure: A loss is not finite.
    """
    keys = _keys(view, tokenizer, edits, templates, layer, settings, site)
    names = [f"{PREFIX}{key}.{edit.id}" for key, edit in zip(keys, edits, strict=True)]
    state = {name: known[name] for name in names if known and name in known}
    new = {names[n]: n for n in range(len(edits)) if names[n] not in state}
    saved = Saved()
    if new:
        some, their_keys = [edits[n] for n in new.values()], [keys[n] for n in new.values()]
        found, saved = _stored(
            view, tokenizer, some, their_keys, (templates, layer, settings), site
        )
        for name, value in zip(new, found, strict=True):
            state[name] = value.target.cpu()
    return torch.stack([state[name] for name in names]), state, saved


def _keys(
    view: ModelView,
    tokenizer: Any,
    edits: Sequence[Edit],
    templates: Sequence[str],
    layer: int,
    settings: SearchSettings,
    site: Site,
) -> list[str]:
    """Hash all that the value of each edit depends on."""
    asked = dataclasses.asdict(dataclasses.replace(settings, aim=None))
    del asked["chunk"]  # no result depends on it
    del asked["share_subject"]  # what it decides is in the companions
    if not (settings.preserve or settings.statements):
        del asked["preserve_factor"]  # nothing is preserved
    if settings.aim is not None:
        asked["aim"] = settings.aim.record()
    common = {
        "model": model_fingerprint(view.model),
        "tokenizer": tokens_fingerprint(view.model, tokenizer),
        "templates": templates,
        "layer": view.numbered([layer])[0],
        "site": site,
        "settings": asked,
    }
    requests = [_request(edit, settings) for edit in edits]
    together = _companions(edits, requests) if settings.share_subject else {}
    return [
        _identity.key(
            "target value",
            **common,
            request=request,
            companions=together.get(edit.subject, []),
        )
        for edit, request in zip(edits, requests, strict=True)
    ]


def _companions(edits: Sequence[Edit], requests: Sequence[list[str]]) -> dict[str, list[list[str]]]:
    """Collect the requests of each subject, whose values depend on one another."""
    found: dict[str, list[list[str]]] = {}
    for edit, request in zip(edits, requests, strict=True):
        found.setdefault(edit.subject, []).append(request)
    return {subject: sorted(requests) for subject, requests in found.items() if len(requests) > 1}


def _request(edit: Edit, settings: SearchSettings) -> list[str]:
    rephrasings = edit.probes_of("rephrase") if settings.loss.rephrasings else []
    # The object that an edit replaces decides which statements of the model are preserved.
    original = edit.original or "" if settings.statements else ""
    return [edit.prompt, edit.subject, edit.target, original, *(one.prompt for one in rephrasings)]


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
