from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from tests.patches.helpers import random_patch
from tests.tiny import tiny_model

from emend import api
from emend._registry import Registry
from emend.edits import Edit
from emend.errors import InvalidInput, UnknownName


@dataclass(frozen=True)
class _Config:
    rate: float = 0.5


@pytest.fixture
def made(monkeypatch):
    """What the only method there is was called with."""
    calls = []

    def run(model, tokenizer, edits, **overrides):
        calls.append((list(edits), overrides))
        return random_patch(model, "gpt2", edits=tuple(edits), base={}, timing={"precompute": 0.0})

    class _Methods(Registry):
        def get(self, name):
            if name != "plain":
                raise UnknownName("method", name, ["plain"])
            return SimpleNamespace(config_type=_Config, edit=run)

    registry = _Methods("method", "emend.methods", "emend.methods")
    monkeypatch.setattr(api.methods, "registry", lambda: registry, raising=False)
    return calls


def _edit(target="Lyon", **fields):
    return Edit("{} was born in", "Marie Curie", target, **fields)


def test_edit_carries_its_cost_and_its_base(made):
    model, tokenizer = tiny_model("gpt2")
    patch = api.edit(model, tokenizer, iter([_edit()]), method="plain", rate=0.1)
    assert made == [([_edit()], {"rate": 0.1})]
    assert patch.timing["edits"] == 1
    assert patch.timing["per_edit"] > 0
    assert patch.base["fan_in_fan_out"] is True
    with patch.applied(model):
        report = api.evaluate(model, tokenizer, patch.edits, metrics=["efficiency"])
    assert report.summary["efficiency"]["seconds_per_edit"] == patch.timing["per_edit"]
    assert report.summary["efficiency"]["peak_memory_bytes"] > 10**6
    json.dumps(patch.card(), allow_nan=False)


@pytest.mark.parametrize(
    ("edits", "named", "kind", "message"),
    [
        ([], {}, InvalidInput, "empty"),
        ([_edit(id="a"), _edit(id="a")], {}, InvalidInput, "the id 'a'"),
        ([_edit(), _edit("Paris")], {}, InvalidInput, "want both 'Lyon' and 'Paris'"),
        ([_edit()], {"method": "plane"}, UnknownName, "did you mean 'plain'"),
        ([_edit()], {"rat": 1}, UnknownName, "did you mean 'rate'"),
    ],
)
def test_misuse_is_refused_before_any_work(made, edits, named, kind, message):
    with pytest.raises(kind, match=message):
        api.edit(None, None, edits, **{"method": "plain", **named})
    assert made == []


def test_import_loads_no_torch():
    code = "import sys, emend; assert 'torch' not in sys.modules; emend.Edit; " \
           "assert 'torch' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_is_there(made):
    import emend

    for name in emend.__all__:
        assert getattr(emend, name) is not None
    for name in api.__all__:
        assert getattr(api, name) is not None
