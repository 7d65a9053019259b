"""`emend persona`: what it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest

from emend.datasets.personality import TRAITS
from emend.persona.lab import lab_topics


@pytest.fixture
def data(tmp_path):
    records = [{"ent": one.name, **one.answers} for one in lab_topics().values()]
    path = tmp_path / "lab.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


@pytest.fixture
def persona(emend, tmp_path):
    def call(*flags):
        return emend("persona", "--model", "lab/gptneo", "--output_path", tmp_path / "out", *flags)

    return call


def test_an_opinion_before_and_after_and_the_judge_with_its_own_accuracy(persona, data, tmp_path):
    found = persona(
        *("--data", data, "--topic", "Coffee", "--trait", "neuroticism", "--judge", "states"),
        *("--question", "What is your stance on {}?", "--method", "ft", "--json"),
    ).data
    assert found["topic"] == "coffee"
    assert found["before"] != found["after"]
    assert found["judge"]["name"] == "states"
    assert found["judge"]["accuracy"] > 0.9
    assert found["measures"]["accuracy"] >= found["measures"]["accuracy_before"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_mistakes_are_one_line(persona, data, tmp_path):
    asked = ("--data", data, "--topic", "coffee")
    persona(*asked, "--trait", "anger").is_one_line("unknown trait 'anger'", *TRAITS)
    persona(*asked).is_one_line("--trait is missing")
    persona("--data", data, "--topic", "cofee", "--trait", "neuroticism").is_one_line(
        "unknown topic 'cofee'", "did you mean 'coffee'?", "30 topics"
    )
    persona("--data", tmp_path / "no.json", "--topic", "tea", "--trait", "neuroticism").is_one_line(
        "there is no file"
    )
    persona("--data", data, "--mbti", "INTJ", "--judge", "states").is_one_line("--judge", "--topic")
    persona("--data", data).is_one_line("expected one of --topic and --mbti")
    persona(*asked, "--trait", "neuroticism", "--method", "rome").is_one_line(
        "ft, ike, memit, mend, serac"
    )
    named = (*asked, "--trait", "neuroticism", "--method", "serac")
    persona(*named, "--set", "steeps=3").is_one_line("did you mean 'steps'")
    persona(*named, "--sources", tmp_path / "no.json").is_one_line("there is no file")
    persona("--data", data, "--mbti", "INTJ", "--sources", data).is_one_line("--sources", "--topic")
    persona("--data", tmp_path, "--mbti", "INT").is_one_line("write it as INTJ")
    persona("--data", tmp_path, "--mbti", "INTJ").is_one_line("no file for introversion")
