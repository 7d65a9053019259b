"""Settings of every registered method and training: types and ranges, checked in one place."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest
from tests.tiny import tiny_model

from emend._settings import Range, alternatives, checked, hints_of
from emend.edits import Edit
from emend.errors import InvalidInput, UnknownName
from emend.methods import registry, trained, trainer

NAMES = registry().names()
OWNERS = [
    *((name, registry().get(name).config_type) for name in NAMES),
    *((f"training of {name}", trainer(name).settings_type) for name in trained()),
]
SETTINGS = [
    pytest.param(owner, config_type, field.name, id=f"{owner}-{field.name}")
    for owner, config_type in OWNERS
    for field in dataclasses.fields(config_type)
]
EDIT = Edit("{} was born in", "Marie Curie", "Paris")
OF_THE_MODEL = {"layer", "layers"}
"""Numbers whose range depends on the model."""


def numbers_in(hint):
    """The numbers that an annotation admits, each with its ranges; those in tuples too."""
    for kind, notes in alternatives(hint):
        if typing.get_origin(kind) is tuple:
            yield from (n for one in typing.get_args(kind)[:1] for n in numbers_in(one))
        elif kind in (int, float):
            yield kind, [note for note in notes if isinstance(note, Range)]


def refused(owner, config_type, name, value):
    with pytest.raises(InvalidInput) as caught:
        checked(owner, config_type, {name: value})
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"setting {name} is ")
    assert ", expected " in line


@pytest.mark.parametrize(("owner", "config_type", "name"), SETTINGS)
def test_wrong_type_is_refused_in_one_line(owner, config_type, name) -> None:
    """Fault 24: `steps=2.5` was a TypeError from inside torch."""
    if name == "texts":
        with pytest.raises(InvalidInput, match="texts are a complex"):
            checked(owner, config_type, {name: 1j})
        return
    refused(owner, config_type, name, object())
    kinds = [kind for kind, _ in alternatives(hints_of(owner, config_type, ())[name])]
    if float not in kinds:
        refused(owner, config_type, name, 2.5)
    if str not in kinds and tuple[str, ...] not in kinds:
        refused(owner, config_type, name, "many words")
    if bool not in kinds:
        refused(owner, config_type, name, True)


@pytest.mark.parametrize(("owner", "config_type", "name"), SETTINGS)
def test_number_outside_its_range_is_refused(owner, config_type, name) -> None:
    """Fault 24: `clamp=-1`, `ridge=-1` and `learning_rate=0` were taken."""
    for kind, ranges in numbers_in(hints_of(owner, config_type, ())[name]):
        if name in OF_THE_MODEL:
            continue
        assert ranges, f"{name} of {owner} has no range"
        for one in ranges:
            for bound, step in ((one.least, -1), (one.most, 1)):
                if bound is not None:
                    refused(owner, config_type, name, kind(bound + step))
            for bound in (one.above, one.below):
                if bound is not None:
                    refused(owner, config_type, name, kind(bound))
        if kind is float:
            for strange in (float("nan"), float("inf"), -float("inf")):
                refused(owner, config_type, name, strange)


@pytest.mark.parametrize(("owner", "config_type"), OWNERS)
def test_defaults_fit_their_own_types(owner, config_type) -> None:
    config = config_type()
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert config_type(**checked(owner, config_type, given)) == config


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_the_model_has_not(name) -> None:
    method = registry().get(name)
    known = {field.name for field in dataclasses.fields(method.config_type)}
    model, tokenizer = tiny_model("gpt2")
    for setting, value in (("layer", 999), ("layers", [999]), ("layers", [])):
        if setting in known:
            with pytest.raises(InvalidInput, match=r"layer"):
                method.edit(model, tokenizer, [EDIT], **{setting: value})


def test_what_fits_is_converted() -> None:
    rome, memit = registry().get("rome"), registry().get("memit")
    config = rome.configure(clamp=3, layer=np.int64(1), templates=["{}", "Yes. {}"])
    assert (config.clamp, type(config.clamp)) == (3.0, float)
    assert (config.layer, type(config.layer)) == (1, int)
    assert config.templates == ("{}", "Yes. {}")
    assert rome.configure(templates="{}").templates == ("{}",)
    assert memit.configure(layers=range(2, 4)).layers == (2, 3)
    assert memit.configure(layers=None).layers is None


def test_ablations_are_recorded_and_refused_where_they_mean_nothing() -> None:
    model, tokenizer = tiny_model("gpt2")
    rome, ft = registry().get("rome"), registry().get("ft")
    settings = {"templates": ("{}",), "steps": 2}
    patch = rome.edit(model, tokenizer, [EDIT], ablation={"optimizer": "adam"}, **settings)
    assert patch.config["ablation"] == {"optimizer": "adam"}
    with pytest.raises(UnknownName, match="did you mean 'optimizer'"):
        rome.edit(model, tokenizer, [EDIT], ablation={"optimiser": "adam"}, **settings)
    with pytest.raises(InvalidInput, match="ft optimises no target values"):
        ft.edit(model, tokenizer, [EDIT], ablation={"optimizer": "adam"})
