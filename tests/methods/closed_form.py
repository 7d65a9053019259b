"""What the tests of the closed-form methods share."""

from __future__ import annotations

import dataclasses

import torch
from tests.reference import closed_form as reference
from tests.reference import rome
from tests.tiny import TEXT, tiny_model

from emend.edits import Edit
from emend.methods import registry

TEMPLATES = ("{}", "Yes, it is so. {}", "He said. {}")
EDITS = [
    Edit("{} was born in", "Marie Curie", "Paris", id="d"),
    Edit("The mother tongue of {} is", "Tom Berg", "French", id="a"),
    Edit("{}, the", "Anna Berg", "cello", id="c"),
    Edit("The capital of {}", "Poland", "is Rome", id="b"),
    Edit("The capital of {}", "Denmark", "is Lyon", id="e"),
]
SORTED = sorted(EDITS, key=lambda edit: edit.id)
FACTS = [(edit.prompt, edit.subject) for edit in SORTED]
SEARCH = {"steps": 5, "learning_rate": 0.1, "norm_penalty": 0.5, "kl_factor": 0.0625}
PLACES = {"gpt2": reference.GPT2, "llama": reference.LLAMA}
RIDGE = 1e-2  # a smaller one magnifies how key covariances round, which are summed in float32
PLAIN = {"weight_decay" if key == "norm_penalty" else key: v for key, v in SEARCH.items()}
"""The same by the names of the plain loop."""
PUBLISHED = {"optimizer": "adam", "statements": 0, "enough": 1.0}
COMMON = {"templates": TEMPLATES, "texts": TEXT, **SEARCH}


def edited(name, model, tokenizer, edits=EDITS, **settings):
    """A method's patch in its published form, where fields to ablate may be given too."""
    method = registry().get(name)
    names = {field.name for field in dataclasses.fields(method.config_type)}
    given = {key: value for key, value in settings.items() if key in names}
    if "original" in names:
        given.setdefault("original", True)
    ablation = {key: value for key, value in settings.items() if key not in names}
    return method.edit(model, tokenizer, edits, ablation=ablation, **given)


def wanted(model, tokenizer, site, clamp: float) -> torch.Tensor:
    """The values that the plain loop finds for the sorted edits, (E, width)."""
    found = []
    for edit in SORTED:
        rows = rome.build_rows(tokenizer, edit.prompt, edit.subject, edit.target, TEMPLATES)
        found.append(rome.search_value(model, site, rows, clamp=clamp, **PLAIN).v_star)
    return torch.stack(found)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def difference(one, other) -> float:
    """The largest relative difference of any module's change between two patches."""
    assert sorted(one.factors) == sorted(other.factors)
    return max(relative(one.delta(name), other.delta(name)) for name in one.factors)


__all__ = [
    "COMMON",
    "EDITS",
    "FACTS",
    "PLACES",
    "SORTED",
    "TEMPLATES",
    "TEXT",
    "edited",
    "tiny_model",
]
