"""Probes in other languages than English, and a line where there are none."""

from __future__ import annotations

import pytest
from tests.tiny import tiny_model

from emend.edits import Edit, normalised
from emend.patches import blast_from
from emend.probes import blast_radius
from emend.probes._asking import Asker
from emend.probes._languages import language_of, languages
from emend.probes._make import _plan


@pytest.mark.parametrize(
    ("prompt", "subject", "language", "found"),
    [
        ("The capital of {} is", "France", None, "en"),
        ("{} speaks", "Ana Bel", None, "en"),
        ("{}的首都为", "法国", None, "zh"),
        ("{}の首都である", "法国", None, "ja"),
        ("La capital de {} es", "Francia", None, "es"),
        ("{} se encuentra en la ciudad de", "La Sagrada Familia", None, "es"),
        ("عاصمة {} هي مدينة", "فرنسا", None, "ar"),
        ("پایتخت {} شهر", "فرانسه", None, "und"),
        ("Столица {} -", "Франции", None, "und"),
        ("La capitale de la {} est", "France", None, "fr"),
        ("Die Hauptstadt von {} ist", "Frankreich", None, "de"),
        ("{}:", "法国", None, "zh"),
        ("{}的首都为", "法國", "zh-Hant", "zh"),
        ("Stolica {} to", "Francji", "pl", "pl"),
    ],
)
def test_the_language_of_an_edit(prompt, subject, language, found):
    assert language_of(Edit(prompt, subject, "x", language=language)) == found


@pytest.mark.parametrize("tag", ["zh", "ja", "es", "ar"])
def test_prompts_are_in_the_edits_language(tag):
    model, tokenizer = tiny_model("llama")
    language = languages()[tag]
    subject, *others = language.kinds["country"]
    prompt = {"zh": "{}的首都为", "ja": "{}の首都は", "es": "La capital de {} es"}.get(
        tag, "عاصمة {} هي"
    )
    plan = _plan(Asker(model, tokenizer), Edit(prompt, subject, "x"), {normalised(others[0])})
    assert plan.neighbours[0] == prompt.format(others[1])
    assert prompt.format(subject) not in plan.neighbours
    assert plan.rephrased[0] == language.fronts[0].format(prompt.format(subject))
    assert all(subject in one for one in plan.facts) and len(plan.facts) >= 4
    unknown = _plan(Asker(model, tokenizer), Edit(prompt, "Xyz", "x", language=tag), set())
    assert unknown.neighbours == [] and unknown.facts


def test_a_language_without_probes_is_named():
    model, tokenizer = tiny_model("llama")
    from emend.methods import registry

    polish = Edit("Stolica {} to", "Francji", "Paris", language="pl")
    settings = {"steps": 1}
    patch = registry().get("ft").edit(model, tokenizer, [polish], **settings)
    radius = blast_radius(model, tokenizer, patch)
    assert radius.without == {"pl": 1}
    (line,) = [one for one in radius.sentences() if "other languages" in one]
    assert "no probes for 1 edit in other languages (pl)" in line
    assert blast_from(radius.to_dict()) == radius
