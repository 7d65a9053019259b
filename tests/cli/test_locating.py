"""`emend trace`, `lens`, `memory`, `neurons`: what they print and write, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch
from tests.browser import Browser, find_browser
from tests.tiny import TEXT, tiny_model

from emend import locate
from emend.models import ModelView, load

PROMPT, SUBJECT = "{} was born in", "Marie Curie"
WHOLE = PROMPT.format(SUBJECT)


@pytest.fixture(scope="session")
def mixture_directory(tmp_path_factory):
    """A tiny mixture of experts, which has no dense MLP."""
    directory = tmp_path_factory.mktemp("tiny") / "mixtral"
    model, tokenizer = tiny_model("mixtral", tokenizer="bytes")
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def loaded(model_directory):
    return load(model_directory)


@pytest.fixture(scope="session")
def parisian_directory(tmp_path_factory):
    """A tiny model that says Paris, whatever it is asked."""
    directory = tmp_path_factory.mktemp("tiny") / "parisian"
    model, tokenizer = tiny_model("gpt2", tokenizer="bytes")
    (token, *_) = tokenizer(" Paris")["input_ids"]
    with torch.no_grad():
        row = model.lm_head.weight[token]
        model.transformer.ln_f.bias.add_(8 * row / row.norm() ** 2)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def texts_file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(TEXT), encoding="utf-8")
    return path


def test_trace_prints_what_the_library_finds(emend, model_directory, loaded):
    asked = ["trace", "--model", model_directory, "--prompt", PROMPT, "--subject", SUBJECT]
    settings = ["--kind", "all", "--severed", "mlp", "--window", 2, "--draws", 2]
    data = emend(*asked, *settings, "--json").data
    kinds = ("state", "mlp", "attention", "severed_mlp")
    found = locate.trace(*loaded, PROMPT, SUBJECT, kinds=kinds, window=2, draws=2)
    assert list(data["effects"]) == list(kinds)
    for kind in kinds:
        assert torch.allclose(torch.tensor(data["effects"][kind]), found.effects[kind], atol=1e-6)
    assert data["total"] == pytest.approx(found.total, abs=1e-6)
    told = emend(*asked, *settings)
    assert told.status == 0
    assert told.err == (f"emend: warning: {found.caveat}\n" if found.caveat else "")
    assert "MLP, window of 2" in told.out
    assert "States, later MLPs severed" in told.out
    other = emend(*asked, *settings, "--seed", 5, "--json").data
    assert other["disturbed"] != data["disturbed"]
    rough = emend(*asked, "--approximate")
    assert "effects are approximate" in rough.out


@pytest.mark.parametrize("ending", ["html", "png", "svg", "json"])
def test_trace_and_lens_write_files(emend, model_directory, tmp_path, ending):
    for command, subject in (("trace", ["--subject", SUBJECT, "--draws", 1]), ("lens", [])):
        path = tmp_path / f"{command}.{ending}"
        told = emend(
            *(command, "--model", model_directory, "--prompt", WHOLE, *subject),
            *("--output_path", path),
        )
        assert told.status == 0, told.err
        assert f"written to {path}" in told.out
        assert path.stat().st_size > 1000


def test_averages_over_files_of_facts(emend, parisian_directory, tmp_path):
    edits, known = tmp_path / "edits.jsonl", tmp_path / "known.json"
    edits.write_text(
        json.dumps({"prompt": PROMPT, "subject": SUBJECT, "target": "Q", "original": "Paris"})
    )
    facts = [
        {"known_id": 0, "subject": SUBJECT, "prompt": WHOLE, "attribute": "Paris"},
        {"known_id": 1, "subject": "Tom", "prompt": "Tom is", "attribute": " Zürich"},
    ]
    known.write_text(json.dumps(facts))
    results = [
        emend("trace", "--model", parisian_directory, "--facts", path, "--draws", 2, "--json").data
        for path in (edits, known)
    ]
    assert [data["facts"] for data in results] == [1, 1]
    assert [data["asked"] for data in results] == [1, 2]
    rows = results[0]["effects"]["state"]["last_subject"]
    alone = locate.trace(*load(parisian_directory), PROMPT, SUBJECT, draws=2)
    assert torch.allclose(torch.tensor(rows["mean"]), alone.effects["state"][alone.last], atol=1e-6)
    path = tmp_path / "average.svg"
    told = emend("trace", "--model", parisian_directory, "--facts", edits, "--output_path", path)
    assert told.status == 0, told.err
    assert "1 facts of 1" in told.out
    assert "last subject" in told.out
    assert path.exists()


def test_lens_prints_what_the_library_finds(emend, model_directory, loaded):
    asked = ["lens", "--model", model_directory, "--prompt", WHOLE, "--answer", "Paris"]
    data = emend(*asked, "--top", 2, "--json").data
    found = locate.lens(*loaded, WHOLE, "Paris", top=2)
    assert data["answer_ranks"] == found.answer_ranks.tolist()
    told = emend(*asked)
    assert f"rank {0}" not in told.out
    assert str(int(found.answer_ranks[-1, -1])) in told.out


def test_memory_prints_what_the_library_finds(emend, model_directory, loaded, texts_file):
    asked = ["memory", "--model", model_directory, "--texts", texts_file]
    data = emend(*asked, "--layer", 1, "--unit", 3, "--top", 2, "--json").data
    model, tokenizer = loaded
    memories = locate.Memories(ModelView(model), tokenizer, TEXT, layers=(1,), top=2)
    found = memories.unit(1, 3, words=2)
    assert [one["text"] for one in data["units"][0]["triggers"]] == [t.text for t in found.triggers]
    assert [one["token"] for one in data["units"][0]["value"]] == [s.token for s in found.value]
    assert "unit 3 of layer 1" in emend(*asked, "--layer", 1, "--unit", 3).out
    assert "the units that add most" in emend(*asked, "--layer", 1).out
    everywhere = emend(*asked)
    assert "by chance" in everywhere.out
    assert len([line for line in everywhere.out.splitlines() if "│" in line]) == 4


def test_neurons_prints_what_the_library_finds(emend, model_directory, loaded, tmp_path):
    model, tokenizer = loaded
    prompts = [WHOLE, f"The birthplace of {SUBJECT} is"]
    given = [flag for prompt in prompts for flag in ("--prompt", prompt)]
    asked = ["neurons", "--model", model_directory, *given, "--answer", "Warsaw", "--steps", 5]
    data = emend(*asked, "--json").data
    found = locate.study(ModelView(model), tokenizer, prompts, "Warsaw", steps=5)
    assert [(one["layer"], one["unit"]) for one in data["units"]] == list(found.units)
    assert data["effect"]["suppression"] == pytest.approx(found.effect.suppression, abs=1e-5)
    told = emend(*asked)
    assert "as many at random" in told.out
    assert f"{len(found.units)} units" in told.out
    edits = tmp_path / "edits.jsonl"
    edit = {"prompt": PROMPT, "subject": SUBJECT, "target": "Q", "original": "Warsaw"}
    probe = {"group": "rephrase", "prompt": prompts[1], "answers": ["Warsaw"]}
    edits.write_text(json.dumps({**edit, "probes": [probe]}))
    many = emend(*asked[:3], "--edits", edits, "--steps", 5, "--json").data
    assert many["facts"][0]["units"] == data["units"]
    assert many["effect"]["suppression"] == pytest.approx(data["effect"]["suppression"])
    assert emend(*asked[:3], "--edits", edits, "--steps", 2).out.startswith("1 facts, ")


def test_what_is_not_asked_is_what_the_model_says(emend, model_directory, loaded):
    data = emend("neurons", "--model", model_directory, "--prompt", WHOLE, "--json").data
    assert data["answer"] == locate.trace(*loaded, WHOLE, SUBJECT, draws=1).said


def test_an_answer_that_the_model_does_not_give_is_traced_with_one_line(emend, model_directory):
    asked = ["trace", "--model", model_directory, "--prompt", PROMPT, "--subject", SUBJECT]
    told = emend(*asked, "--answer", "Zürich", "--draws", 1, "--json")
    assert told.status == 0
    assert json.loads(told.out)["answer"] != json.loads(told.out)["said"]
    line, *more = told.err.splitlines()
    assert len(more) == (json.loads(told.out)["total"] <= 0)
    assert all("the map means nothing" in one for one in more)
    assert line.startswith("emend: warning: the model says ")
    assert "traced all the same" in line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--prompt", "Tom is", "--subject", SUBJECT], "'Marie Curie' is not in the prompt"),
        (["--prompt", "a " * 300 + "{} is", "--subject", "b"], "for a model that reads 128"),
        (["--prompt", PROMPT], "expected --prompt and --subject"),
        (["--prompt", PROMPT, "--subject", " "], "subject is empty"),
        (["--facts", "f.jsonl", "--subject", SUBJECT], "take one way"),
        (["--facts", "no/such.jsonl"], "no/such.jsonl"),
        (["--prompt", PROMPT, "--subject", SUBJECT, "--noise", 0], "disturbs nothing"),
        (
            ["--prompt", PROMPT, "--subject", SUBJECT, "--approximate", "--severed", "mlp"],
            "no approximation of severed_mlp",
        ),
        (
            ["--prompt", PROMPT, "--subject", SUBJECT, "--output_path", "trace.pdf"],
            "ends in .html, .json, .md, .png, .svg",
        ),
        (["--prompt", PROMPT, "--subject", SUBJECT, "--output_path", "."], "what to write"),
    ],
)
def test_misuse_of_trace(emend, model_directory, given, said):
    emend("trace", "--model", model_directory, *given).is_one_line(said)


def test_a_model_without_a_dense_mlp(emend, mixture_directory, texts_file):
    model = ["--model", mixture_directory]
    subject = ["--subject", SUBJECT]
    emend("trace", *model, "--prompt", WHOLE, *subject).is_one_line("mixture of experts")
    emend("memory", *model, "--texts", texts_file).is_one_line("mixture of experts")
    emend("neurons", *model, "--prompt", WHOLE).is_one_line("mixture of experts")


def test_misuse_of_the_others(emend, model_directory, tmp_path, texts_file):
    model = ["--model", model_directory]
    emend("lens", *model, "--prompt", "a " * 300).is_one_line("for a model that reads 128")
    emend("lens", *model, "--prompt", "").is_one_line("no token")
    emend("memory", *model, "--unit", 3).is_one_line("without --layer")
    emend("memory", *model, "--layer", 9, "--texts", texts_file).is_one_line("blocks")
    emend("neurons", *model).is_one_line("expected --prompt")
    emend("neurons", *model, "--prompt", "a", "--edits", "b").is_one_line("take one way")
    emend("neurons", *model, "--prompt", "a", "--share", 1.5).is_one_line("share is 1.5")
    broken = tmp_path / "known.json"
    broken.write_text(json.dumps([{"subject": "", "prompt": "a", "attribute": "b"}]))
    emend("trace", *model, "--facts", broken).is_one_line("fact 0: subject is ''")


@pytest.mark.skipif(find_browser() is None, reason="there is no Chromium to open pages in")
def test_pages_in_a_browser(emend, tmp_path):
    from emend.lab import shipped_world

    fact = next(iter(shipped_world().facts.values()))
    prompt = fact.statements(seen=True)[0].format(fact.subject)
    lab, page = ["--model", "lab/gptneo", "--prompt", prompt], tmp_path / "trace.html"
    settings = ["--kind", "all", "--window", 3, "--draws", 2, "--output_path", page]
    assert emend("trace", *lab, "--subject", fact.subject, *settings).status == 0
    assert emend("lens", *lab, "--output_path", tmp_path / "lens.html").status == 0
    cell = "tbody tr:nth-child(2) td:nth-child(3)"
    with Browser(find_browser() or "") as browser:
        browser.open(page)
        assert browser.evaluate("document.querySelectorAll('table').length") == 3
        tops = "[...document.querySelectorAll('figure')].map(f => f.getBoundingClientRect().y)"
        assert len(set(browser.evaluate(tops))) == 1  # side by side
        assert browser.style(f"{cell} b", "opacity") == "0"
        browser.mouse("label[for=numbers]", click=True)
        assert browser.style(f"{cell} b", "opacity") == "1"
        plain = browser.style(f"figure:nth-child(2) {cell}", "background-color")
        assert browser.style("figure .scale.all", "display") == "none"
        browser.mouse("label[for=same]", click=True)
        assert browser.style("figure .scale.all", "display") == "flex"
        assert browser.style(f"figure:nth-child(2) {cell}", "background-color") != plain
        assert browser.style(f"{cell} i", "display") == "none"
        browser.mouse(cell)
        assert browser.style(f"{cell} i", "display") == "block"
        browser.open(tmp_path / "lens.html")
        browser.mouse(cell)
        assert browser.style(f"{cell} i", "display") == "block"
        assert browser.requests == [one.as_uri() for one in (page, tmp_path / "lens.html")]
        assert browser.complaints == []
