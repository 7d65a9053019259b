from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.tiny import tiny_model

from emend import api
from emend.edits import Edit
from emend.errors import Conflict, InvalidInput, UnknownName

QUICK = {"steps": 2, "templates": ("{}",)}


def _edit(target="Lyon", **fields):
    return Edit("{} was born in", "Marie Curie", target, **fields)


def test_edit_carries_its_cost_and_its_base():
    model, tokenizer = tiny_model("gpt2")
    patch = api.edit(model, tokenizer, iter([_edit()]), method="rome", **QUICK)
    assert patch.edits == (_edit(),)
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
        ([], {}, InvalidInput, "no edits"),
        ([_edit(id="a"), _edit(id="a")], {}, InvalidInput, "the id 'a'"),
        ([_edit(), _edit("Paris")], {}, InvalidInput, "different targets for one statement"),
        ([_edit(id="a"), _edit(id="b")], {}, Conflict, "the same under two ids"),
        ([_edit()], {"method": "rom"}, UnknownName, "did you mean 'rome'"),
        ([_edit()], {"step": 1}, UnknownName, "did you mean 'steps'"),
    ],
)
def test_misuse_is_refused(edits, named, kind, message):
    model, tokenizer = tiny_model("gpt2")
    with pytest.raises(kind, match=message):
        api.edit(model, tokenizer, edits, **named)


def test_import_loads_no_torch():
    code = "import sys, emend; assert 'torch' not in sys.modules; emend.Edit; " \
           "assert 'torch' not in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_is_there():
    import emend

    for name in emend.__all__:
        assert getattr(emend, name) is not None
    for name in api.__all__:
        assert getattr(api, name) is not None
