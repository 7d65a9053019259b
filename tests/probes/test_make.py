"""Probes made from an edit and its model, and what is measured with them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import emend
from emend import api
from emend.cli import run
from emend.edits import GROUPS, Edit, Probe, normalised, states_answer
from emend.edits.answers import same_reply
from emend.errors import InvalidInput
from emend.metrics import evaluate
from emend.models import generate, set_start
from emend.patches import blast_from, load_patch
from emend.probes import _make as making
from emend.probes import blast_radius, make, plain_text, radius_of_records, with_probes
from emend.probes._data import general_prompts, kinds, relations

CAPITAL = Edit("The capital of {} is", "France", "Rome")


@pytest.fixture(scope="module")
def worded():
    """A random model that knows every name as one word, and so has neighbours."""
    texts = [name for names in kinds().values() for name in names]
    texts += [*general_prompts(), *plain_text(), "It is well known that"]
    texts += [text for one in relations() for text in (*one.prompts, one.question)]
    words = sorted({word for text in texts for word in text.split()})
    vocabulary = {word: number for number, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    set_start(wrapped, None)
    model, _ = tiny_model("llama", vocab_size=len(vocabulary))
    with torch.no_grad():
        model.lm_head.weight.mul_(20)  # confident of what it generates
    return model, wrapped


def _of(probes, group):
    return [probe for probe in probes if probe.group == group]


def test_the_answers_are_the_unedited_models(worded):
    model, tokenizer = worded
    probes = make(model, tokenizer, CAPITAL)
    assert {probe.group for probe in probes} >= {"rephrase", "neighborhood"}
    assert {probe.group for probe in probes} <= set(GROUPS["rephrase"] + GROUPS["locality"])
    prompts = [probe.prompt for probe in probes]
    assert len(set(prompts)) == len(prompts) and CAPITAL.text not in prompts
    said = generate(model, tokenizer, prompts, max_new_tokens=5)
    for probe, text in zip(probes, said, strict=True):
        if probe.group == "rephrase":
            assert probe.answers == ("Rome",)
        else:
            assert states_answer(text, probe.answers)


def test_neighbours_are_other_subjects_of_the_kind(worded):
    model, tokenizer = worded
    near = _of(make(model, tokenizer, CAPITAL), "neighborhood")
    assert 0 < len(near) <= making.NEIGHBOURS
    for probe in near:
        name = probe.prompt.removeprefix("The capital of ").removesuffix(" is")
        assert name in kinds()["country"] and name != "France"


def test_subjects_of_other_edits_are_no_neighbours(worded):
    model, tokenizer = worded
    edits = [CAPITAL, Edit("The capital of {} is", "Germany", "Lyon")]
    for edit in with_probes(model, tokenizer, edits):
        assert edit.probes
        for probe in _of(edit.probes, "neighborhood"):
            assert "Germany" not in probe.prompt and "France" not in probe.prompt


def test_what_follows_from_the_edit_is_no_other_fact(worded):
    model, tokenizer = worded
    edit = Edit("{} is located in the city of", "The Louvre", "Rome")
    facts = _of(make(model, tokenizer, edit), "relation_specificity")
    family = [one for one in relations() if one.family == "place"]
    for probe in facts:
        assert "Louvre" in probe.prompt
        assert probe.prompt not in {one.prompts[0].format("The Louvre") for one in family}
    named = next(p.answers[0] for p in facts if p.answers[0][:1].isupper())
    fewer = _of(make(model, tokenizer, replace(edit, original=named)), "relation_specificity")
    assert fewer and all(normalised(named) not in normalised(p.answers[0]) for p in fewer)


def test_probes_do_not_depend_on_the_batch_nor_on_a_patch(worded):
    model, tokenizer = worded
    probes = make(model, tokenizer, CAPITAL)
    assert make(model, tokenizer, CAPITAL, batch_size=3) == probes
    patch = api.edit(model, tokenizer, [CAPITAL], method="ft", steps=30)
    with patch.applied(model):
        assert make(model, tokenizer, CAPITAL) == probes


def test_an_unknown_kind_is_found_by_what_the_model_answers(worded):
    model, tokenizer = worded
    edit = Edit("The river near {} is", "Nowhere", "Rome")
    for probe in _of(make(model, tokenizer, edit), "neighborhood"):
        assert probe.prompt.startswith("The river near ")


def test_a_name_that_is_written_letter_by_letter_is_no_neighbour():
    """The lab's models know none of the world's names: no garbage is asked about."""
    model, tokenizer = emend.load("lab/gptneo")
    probes = make(model, tokenizer, Edit("{} was born in", "Padrut Griagrit", "Votrat"))
    assert not _of(probes, "neighborhood")
    assert _of(probes, "relation_specificity")
    for probe in _of(probes, "relation_specificity"):
        assert states_answer(generate(model, tokenizer, [probe.prompt])[0], probe.answers)


def test_a_patch_that_changes_nothing_changes_nothing(worded):
    model, tokenizer = worded
    patch = 0.0 * api.edit(model, tokenizer, [CAPITAL], method="ft", steps=2)
    radius = blast_radius(model, tokenizer, patch)
    assert [one.group for one in radius.findings] == ["rephrase"] * radius.asked["rephrase"]
    assert radius.perplexity_change == 0
    assert f"0 of {radius.asked['neighborhood']} neighbours changed" in radius.sentences()


def test_findings_are_what_generation_shows(worded):
    """Fault B11: what an edit changed elsewhere is said."""
    model, tokenizer = worded
    patch = api.edit(model, tokenizer, [CAPITAL], method="ft", steps=60, probes="auto")
    radius = patch.blast
    assert radius == blast_radius(model, tokenizer, patch, batch_size=5)
    probes = make(model, tokenizer, CAPITAL)
    prompts = [probe.prompt for probe in probes]
    before = generate(model, tokenizer, prompts, max_new_tokens=5)
    with patch.applied(model):
        after = generate(model, tokenizer, prompts, max_new_tokens=5)
    changed = {
        probe.prompt
        for probe, old, new in zip(probes, before, after, strict=True)
        if not (
            states_answer(new, probe.answers)
            if probe.group == "rephrase"
            else same_reply(old, new, probe.answers)
        )
    }
    assert {one.prompt for one in radius.findings} == changed
    assert radius.changed("neighborhood") > 0
    first = next(one for one in radius.findings if one.group == "neighborhood")
    assert first.about in kinds()["country"]
    assert first.describe().startswith(f"{first.about}: ")
    assert any(first.about in sentence for sentence in radius.sentences(shown=100))


def test_given_probes_are_asked_and_none_made(worded):
    model, tokenizer = worded
    probe = Probe("neighborhood", "The capital of Spain is", ("Madrid",))
    patch = api.edit(model, tokenizer, [replace(CAPITAL, probes=(probe,))], method="ft", steps=60)
    radius = blast_radius(model, tokenizer, patch)
    assert radius.asked == {"neighborhood": 1} and not radius.made
    assert radius == blast_radius(model, tokenizer, patch, "given")
    bare = api.edit(model, tokenizer, [CAPITAL], method="ft", steps=1)
    assert blast_radius(model, tokenizer, bare, "given") is None
    assert blast_radius(model, tokenizer, bare, "none") is None
    with pytest.raises(InvalidInput, match="probes is 'many'"):
        blast_radius(model, tokenizer, bare, "many")


def test_of_many_edits_a_sample_is_probed(worded, monkeypatch):
    monkeypatch.setattr("emend.probes._radius.MOST_EDITS", 3)
    model, tokenizer = worded
    edits = [Edit("The capital of {} is", name, "Rome") for name in kinds()["country"][:25]]
    patch = api.edit(model, tokenizer, edits, method="ft", steps=1)
    radius = blast_radius(model, tokenizer, patch)
    assert (radius.edits, radius.edits_probed) == (25, 3)
    assert "for a sample of 3 of 25 edits" in radius.summary()


def test_the_radius_is_saved_and_dropped_where_the_patch_changes(worded, tmp_path):
    model, tokenizer = worded
    patch = api.edit(model, tokenizer, [CAPITAL], method="ft", steps=20, probes="auto")
    loaded = load_patch(patch.save_pretrained(tmp_path / "patch"))
    assert loaded.blast == patch.blast is not None
    assert loaded.card()["blast"] == json.loads(json.dumps(patch.blast.to_dict()))
    assert blast_from(patch.blast.to_dict()) == patch.blast
    assert (2 * patch).blast is None and patch.compress(rank=1).blast is None
    memory = api.edit(model, tokenizer, [CAPITAL], method="grace", steps=3, probes="auto")
    assert load_patch(memory.save_pretrained(tmp_path / "memory")).blast == memory.blast


def test_an_evaluation_holds_the_same_findings(worded):
    model, tokenizer = worded
    patch = api.edit(model, tokenizer, [CAPITAL], method="ft", steps=60, probes="auto")
    edits = with_probes(model, tokenizer, [CAPITAL])
    with patch.applied(model):
        report = evaluate(model, tokenizer, edits)
    radius = radius_of_records(report.records, edits, made=True)
    assert radius.asked == {group: n for group, n in patch.blast.asked.items() if n}
    found = {(one.group, one.about, one.prompt) for one in radius.findings}
    assert found == {(one.group, one.about, one.prompt) for one in patch.blast.findings}
    assert radius_of_records([]) is None


def test_commands_state_what_else_changed(tmp_path, capsys):
    model, tokenizer = tiny_model("gpt2")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--start_token", "none"]
    words = ["edit", *given, "--method", "ft", "--set", "steps=30", "--prompt", "{} was born in"]
    words += ["--subject", "Marie Curie", "--target", "Paris", "--output_path", str(tmp_path / "p")]
    assert run(words) == 0
    said = capsys.readouterr().out
    assert "what else changed (" in said and "perplexity of plain text" in said
    assert run([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["blast"] == data["card"]["blast"]
    assert data["blast"]["sentences"][-1].startswith("perplexity of plain text")
    assert run(["patch", "show", str(tmp_path / "p")]) == 0
    assert "what else changed (" in capsys.readouterr().out
    asked = ["eval", *given, "--patch", str(tmp_path / "p"), "--json"]
    assert run(asked) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["summary"]["generalization"]["n"] == 1
    assert data["blast"]["asked"]["rephrase"] >= 2
    assert run([*asked, "--probes", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["blast"] is None
    assert run([*words, "--probes", "none"]) == 0
    assert "what else changed" not in capsys.readouterr().out
    assert run([*words, "--probes", "many"]) == 2
    assert "--probes is 'many', expected one of auto, given, none" in capsys.readouterr().err


def test_a_check_that_fails_loses_no_patch(tmp_path, capsys):
    """A given probe that is longer than the model reads: the patch is saved all the same."""
    model, tokenizer = tiny_model("gpt2")
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    probe = Probe("neighborhood", "one two three " * 200, ("four",))
    emend.write_edits(tmp_path / "edits.jsonl", [replace(CAPITAL, probes=(probe,))])
    words = ["edit", "--model", str(tmp_path / "model"), "--start_token", "none", "--method", "ft"]
    words += ["--set", "steps=2", "--edits", str(tmp_path / "edits.jsonl")]
    assert run([*words, "--output_path", str(tmp_path / "p")]) == 0
    assert "warning: what else changed was not measured: " in capsys.readouterr().err
    assert load_patch(tmp_path / "p").edits[0].target == "Rome"


def test_a_chat_that_does_not_fit_is_left_out(worded):
    model, tokenizer = worded
    tokenizer = copy.deepcopy(tokenizer)
    turns = "{% for m in messages %}[user] {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template = "word " * 200 + turns
    forms = [probe.prompt for probe in _of(make(model, tokenizer, CAPITAL), "rephrase")]
    assert forms and not any("word word" in prompt for prompt in forms)
    tokenizer.chat_template = turns
    forms = [probe.prompt for probe in _of(make(model, tokenizer, CAPITAL), "rephrase")]
    assert "[user] What is the capital of France?\nThe capital of France is" in forms
