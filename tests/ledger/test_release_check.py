"""The result: what holds is let through, what falls short is named, a broken suite is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from tests.ledger.killed_build import SETTINGS
from tests.tiny import TEXT, tiny_model

from emend import models
from emend.edits import Edit, Probe
from emend.errors import BrokenFile, InvalidInput, MissingFile
from emend.ledger import Ledger, check, junit_xml, parse_suite, read_suite
from emend.models import generate, score

EDITS = [
    Edit(
        "{} was born in",
        "Ana Bel",
        "Paris",
        id="a",
        probes=(Probe("rephrase", "The birthplace of Ana Bel is", ("Paris",)),),
    ),
    Edit("{} works for", "Carl Dorn", "the city", id="b"),
]
STRONG = {"method": "ft", "steps": 200, "learning_rate": 0.05, "original": True}
"""What makes even a random model say something else."""
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("gpt2")


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "facts.db") as made:
        made.add(EDITS)
        yield made


@pytest.fixture
def run(ledger, tiny):
    def call(record, **settings):
        return check(ledger, *tiny, parse_suite(record), **{**SETTINGS, **settings})

    return call


def only(result):
    (one,) = result.checks
    return one


def test_a_share_is_measured_and_the_threshold_decides(run, ledger):
    result = run({"metrics": {"reliability": 0.0, "generalization": 1.0}})
    lax, strict = result.checks
    assert lax.passed
    assert (lax.count, strict.count) == (2, 1)
    assert not strict.passed
    assert strict.found == 0.0
    assert "The birthplace of Ana Bel is" in strict.missed[0]
    assert not result.passed
    (measured,) = ledger.measurements(result.built.build.id)
    assert measured.suite == "suite"
    assert measured.results == json.loads(json.dumps(result.to_dict()))


def test_what_cannot_be_measured_does_not_hold(run, ledger):
    one = only(run({"metrics": {"locality": 0.0}}))
    assert not one.passed
    assert one.found is None
    assert "no active edit has probes" in one.missed[0]
    ledger.revert("a", "b")
    assert not only(run({"metrics": {"reliability": 0.0}})).passed


def test_must_change_asks_the_patched_model(ledger, tiny):
    built = check(ledger, *tiny, parse_suite({"must_change": probe("x", "y")}), **STRONG).built
    text = EDITS[0].text
    with built.patch.applied(tiny[0]):
        said = generate(*tiny, [text], max_new_tokens=4)[0].split()[0]
    before = generate(*tiny, [text], max_new_tokens=4)[0].split()[0]
    assert said != before
    for answer, holds in ((said, True), (before, False)):
        one = only(
            check(ledger, *tiny, parse_suite({"must_change": probe(text, answer)}), **STRONG)
        )
        assert one.passed == holds
        assert one.base == float(not holds)
        assert (one.missed == ()) == holds


def probe(prompt, *answers):
    return {"probes": [{"prompt": prompt, "answers": list(answers)}]}


def test_must_not_change_sees_a_change_and_a_share_of_them_may(ledger, tiny):
    prompts = [{"prompt": EDITS[0].text}, {"prompt": TEXT[5][:20]}]
    texts = {
        one["prompt"]: generate(*tiny, [one["prompt"]], max_new_tokens=12)[0] for one in prompts
    }
    suite = parse_suite({"must_not_change": {"probes": prompts}})
    result = check(ledger, *tiny, suite, **STRONG)
    with result.built.patch.applied(tiny[0]):
        changed = [
            prompt
            for prompt, text in texts.items()
            if generate(*tiny, [prompt], max_new_tokens=12)[0] != text
        ]
    one = only(result)
    assert EDITS[0].text in changed
    assert len(one.missed) == len(changed)
    assert one.found == 1 - len(changed) / 2
    assert not one.passed
    lax = replace(suite, must_not_change=replace(suite.must_not_change, at_least=one.found))
    assert check(ledger, *tiny, lax, **STRONG).passed


def test_nothing_edited_is_as_general_as_the_base(run, ledger):
    ledger.revert("a", "b")
    result = run(
        {
            "perplexity": {"at_most_increase": 0, "texts": list(TEXT)},
            "multiple_choice": choices(0),
            "must_not_change": {"probes": [{"prompt": text[:20]} for text in TEXT]},
        }
    )
    assert result.passed
    assert all(one.base == one.found for one in result.checks)


def choices(drop, answer="Lyon"):
    question = {"prompt": "Ana Bel was born in", "choices": ["Paris", "Lyon"], "answer": answer}
    return {"at_most_drop": drop, "questions": [question]}


def test_multiple_choice_compares_with_the_base(ledger, tiny):
    prompt = EDITS[0].text
    words = sorted({word for text in TEXT for word in text.rstrip(".").split()})
    built = check(ledger, *tiny, parse_suite({"must_change": probe("x", "y")}), **STRONG).built
    before = [one.mean for one in score(*tiny, [prompt] * len(words), words)]
    with built.patch.applied(tiny[0]):
        after = [one.mean for one in score(*tiny, [prompt] * len(words), words)]
    pairs = [(a, b) for a in range(len(words)) for b in range(len(words)) if before[a] > before[b]]
    turned = next((a, b) for a, b in pairs if after[a] < after[b])
    kept = next((a, b) for a, b in pairs if after[a] > after[b])
    for pair, holds in ((turned, False), (kept, True)):
        options = [words[at] for at in pair]
        question = {"prompt": prompt, "choices": options, "answer": options[0]}
        record = {"at_most_drop": 0, "questions": [question]}
        one = only(check(ledger, *tiny, parse_suite({"multiple_choice": record}), **STRONG))
        assert (one.base, one.found, one.passed) == (1.0, float(holds), holds)


def test_a_rise_of_the_perplexity_is_missed(ledger, tiny):
    built = check(ledger, *tiny, parse_suite({"must_change": probe("x", "y")}), **STRONG).built
    before = [models.perplexity(*tiny, [text]) for text in TEXT]
    with built.patch.applied(tiny[0]):
        after = [models.perplexity(*tiny, [text]) for text in TEXT]
    rises = [new / old - 1 for new, old in zip(after, before, strict=True)]
    at = max(range(len(TEXT)), key=lambda each: rises[each])
    assert rises[at] > 1e-3
    for slack, holds in ((1e-4, True), (-1e-4, False)):
        part = {"at_most_increase": rises[at] + slack, "texts": [TEXT[at]]}
        one = only(check(ledger, *tiny, parse_suite({"perplexity": part}), **STRONG))
        assert (one.base, one.found) == pytest.approx((before[at], after[at]))
        assert one.passed == holds


@pytest.mark.parametrize("tokenizer", ["bytes", "bytes_bos", "metaspace"])
def test_perplexity_is_that_of_a_plain_forward_pass(tokenizer):
    model, words = tiny_model("llama", tokenizer=tokenizer, positions=16)
    total, count = 0.0, 0
    front = [words.bos_token_id] if tokenizer.endswith("_bos") else []
    size = 16 - len(front)
    for text in TEXT:
        row = words(text, add_special_tokens=False)["input_ids"]
        for at in range(0, len(row), size):
            ids = torch.tensor([[*front, *row[at : at + size]]])
            if ids.shape[1] > 1:
                with torch.no_grad():
                    logits = model(ids).logits.log_softmax(-1)[0, :-1]
                total -= logits.gather(-1, ids[0, 1:, None]).sum().item()
                count += ids.shape[1] - 1
    found = models.perplexity(model, words, TEXT, batch_size=3)
    assert found == pytest.approx(math.exp(total / count), rel=1e-4)


def test_perplexity_of_nothing_is_refused(tiny):
    with pytest.raises(InvalidInput, match="two tokens"):
        models.perplexity(*tiny, [" ", ""])


def test_junit_has_a_case_per_check_and_survives_odd_characters(run):
    result = run(
        {
            "name": "nightly <&> \x01",
            "metrics": {"reliability": 0},
            "must_change": {"probes": [{"prompt": "odd \x0b", "answers": ["]]>"]}]},
        }
    )
    root = ElementTree.fromstring(junit_xml(result).encode())
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    good, bad = suite.findall("testcase")
    assert good.find("failure") is None
    failure = bad.find("failure")
    assert "found 0.0%, expected >= 100%" in failure.get("message")
    assert "]]>" in failure.text


BROKEN = {
    "methd": "memit",
    "method": "rme",
    "metrics": {"reliabilty": 0.9, "locality": 90, "generalization": "high"},
    "must_change": {"probes": [{"prompt": "", "answers": []}, "x"]},
    "must_not_change": {"at_least": True, "probes": []},
    "perplexity": {"at_most_increase": -1, "file": "none.txt"},
    "multiple_choice": {
        "questions": [{"prompt": "p", "choices": ["a", "b"], "answer": "c"}],
    },
}
PLACES = (
    *("methd is an unknown field", "method is 'rme'", "metrics.reliabilty is an unknown field"),
    *("metrics.locality is 90", "metrics.generalization is a text"),
    *("must_change.probes[0].prompt", "must_change.probes[0].answers", "must_change.probes[1] is"),
    *("must_not_change.at_least is true or false", "must_not_change.probes has 0"),
    *("perplexity.at_most_increase is -1", "perplexity.file is ", "multiple_choice.at_most_drop"),
    "multiple_choice.questions[0].answer is 'c'",
)


def test_a_broken_suite_has_a_line_for_each_problem(tmp_path):
    (tmp_path / "suite.json").write_text(json.dumps(BROKEN))
    with pytest.raises(BrokenFile) as caught:
        read_suite(tmp_path / "suite.json")
    problems = caught.value.problems
    for place in PLACES:
        assert sum(place in line for line in problems) == 1, (place, problems)
    assert len(problems) == len(PLACES)
    assert not any("\n" in line for line in problems)


@pytest.mark.parametrize("record", [None, [], "x", {}, {"name": "x"}, {"settings": {"steps": 1}}])
def test_what_is_no_suite_is_refused(record):
    with pytest.raises(BrokenFile):
        parse_suite(record)


def test_settings_belong_to_the_method():
    good = {"method": "memit", "settings": {"steps": 3}, "metrics": {"reliability": 1}}
    assert parse_suite(good).settings == {"steps": 3}
    with pytest.raises(BrokenFile, match=r"settings\.stepz.*'steps'"):
        parse_suite({**good, "settings": {"stepz": 3}})
    with pytest.raises(BrokenFile, match="without a method"):
        parse_suite({"settings": {"steps": 3}, "metrics": {"reliability": 1}})


def test_texts_are_read_from_beside_the_suite(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "general.txt").write_text("one line\n\nanother\n", encoding="utf-8")
    (tmp_path / "nightly.yaml").write_text(
        "perplexity:\n  at_most_increase: 0.1\n  file: general.txt\n"
    )
    suite = read_suite(tmp_path / "nightly.yaml")
    assert suite.perplexity.texts == ("one line", "another")
    assert suite.name == "nightly"
    (tmp_path / "general.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BrokenFile, match="UTF-8"):
        read_suite(tmp_path / "nightly.yaml")
    with pytest.raises(MissingFile, match="a suite"):
        read_suite(tmp_path / "none.yaml")


def test_the_example_is_a_suite_and_stands_in_the_documentation():
    pytest.importorskip("yaml")
    path = ROOT / "examples" / "suite.yaml"
    suite = read_suite(path)
    assert len(suite.must_change.probes) == 2
    assert suite.perplexity.texts
    page = (ROOT / "docs" / "continuous-integration.md").read_text(encoding="utf-8")
    assert path.read_text(encoding="utf-8") in page
