"""What ike and mello have a model read, and what is remembered, left out and reported."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from tests.tiny import tiny_model

from emend import methods, models
from emend.edits import Edit
from emend.errors import BrokenFile, InvalidInput, MissingFile, UnknownName
from emend.methods.in_context import ike
from emend.methods.in_context.mello import question_of
from emend.patches import load_patch

EDITS = [
    Edit("{} was born in", "Ana Bel", "Oslo"),
    Edit("The home of {} is", "Bo Li", "Rome", id="second"),
    Edit("{} likes", "Ana Bel", "tea", id="third"),
]
BARE = {"k": 0}


@pytest.fixture(scope="module")
def tiny():
    return tiny_model("gpt2", positions=512)


def made(tiny, method: str, edits=EDITS, **settings):
    return methods.registry().get(method).edit(*tiny, edits, **settings)


def read_by(tiny, patch, *prompts: str) -> list[str]:
    """What the model reads instead of prompts."""
    model, tokenizer = tiny
    with patch.applied(model):
        (attachment,) = models.attachments(model)
        return attachment.prepare(prompts, tokenizer)


def test_the_fact_that_a_prompt_names_stands_before_it(tiny) -> None:
    patch = made(tiny, "ike", **BARE)
    texts = read_by(tiny, patch, "Ana Bel was born in", "Where does Bo Li live?", "Ana Bel likes")
    assert texts == [
        "New Fact: Ana Bel was born in Oslo.\nPrompt: Ana Bel was born in",
        "New Fact: The home of Bo Li is Rome.\nPrompt: Where does Bo Li live?",
        "New Fact: Ana Bel likes tea.\nPrompt: Ana Bel likes",
    ]


def test_a_prompt_that_no_fact_is_near_is_left_alone_if_asked(tiny) -> None:
    prompt = "Cy Wu was born in"
    published, near = (made(tiny, "ike", **BARE, threshold=value) for value in (0.0, 1.0))
    assert read_by(tiny, published, prompt) != [prompt]
    assert read_by(tiny, near, prompt) == [prompt]
    assert read_by(tiny, near, "Ana Bel was born in") != ["Ana Bel was born in"]


def test_what_the_model_would_say_without_the_fact_is_taken_off(tiny) -> None:
    """Context-aware decoding, by its formula; a prompt without a fact is answered as ever."""
    model, tokenizer = tiny
    alpha, prompts, targets = 0.5, ["Ana Bel likes", "Cy Wu likes"], ["tea", "tea"]
    patch = made(tiny, "ike", **BARE, contrast=alpha, threshold=1.0)
    told = read_by(tiny, patch, *prompts)
    before = models.score(model, tokenizer, prompts, targets)
    with patch.applied(model):
        after = models.score(model, tokenizer, prompts, targets)
        texts = models.generate(model, tokenizer, [*prompts, "Bo Li likes"], max_new_tokens=3)
    assert after[1].log_probs == pytest.approx(before[1].log_probs, abs=1e-5)
    assert after[1].greedy == before[1].greedy and told[1] == prompts[1]

    def expected(ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            read, plain = (
                model(torch.tensor([[*tokenizer(text)["input_ids"], *ids]])).logits[0, -1]
                for text in (told[0], prompts[0])
            )
        mixed = (1 + alpha) * read.log_softmax(-1) - alpha * plain.log_softmax(-1)
        return mixed.log_softmax(-1)

    ids = after[0].token_ids
    for step, log_prob in enumerate(after[0].log_probs):
        assert log_prob == pytest.approx(expected(ids[:step])[ids[step]].item(), abs=1e-4)
    written: list[int] = []
    for _ in range(3):
        written.append(int(expected(written).argmax()))
    assert texts[0] == tokenizer.decode(written)


def test_demonstrations_then_the_facts_own_copy(tiny) -> None:
    patch = made(tiny, "ike", k=2)
    (text,) = read_by(tiny, patch, "Ana Bel was born in")
    blocks = text.split("\n\n")
    assert len(blocks) == 4
    assert blocks[2].endswith("Prompt: Ana Bel was born in Oslo.")
    assert blocks[3].endswith("Prompt: Ana Bel was born in")
    assert patch.card()["context"]["demonstrations"] == 2


def test_what_the_context_does_not_hold_is_left_out_and_reported(monkeypatch) -> None:
    monkeypatch.setattr(ike, "RESERVE", 16)
    small = tiny_model("gpt2", positions=256)
    with pytest.warns(UserWarning, match="of 32 demonstrations"):
        patch = made(small, "ike")
    room = patch.card()["context"]
    assert room["tokens"] == 240
    assert 0 < room["fitting"] < room["demonstrations"] == 32
    model, tokenizer = small
    with patch.applied(model):
        with pytest.warns(UserWarning, match="left out"):
            (text,) = models.attachments(model)[0].prepare(["Ana Bel was born in"], tokenizer)
        assert len(tokenizer(text)["input_ids"]) <= 240
        assert models.generate(model, tokenizer, ["Ana Bel was born in"], max_new_tokens=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made(small, "ike", k=room["fitting"])


def test_a_prompt_too_long_for_any_fact_stays_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(ike, "RESERVE", 8)
    small = tiny_model("gpt2", positions=64)
    patch = made(small, "ike", **BARE)
    prompt = "Ana Bel " * 8 + "was born in"
    with pytest.warns(UserWarning, match="1 facts and demonstrations are left out"):
        assert read_by(small, patch, prompt) == [prompt]


@pytest.mark.parametrize("method", ["ike", "mello"])
def test_order_and_batches_make_the_same_memory(tiny, method) -> None:
    settings = {"k": 4} if method == "ike" else {}
    whole = made(tiny, method, **settings)
    turned = made(tiny, method, EDITS[::-1], **settings)
    grown = (
        methods.registry()
        .get(method)
        .edit(*tiny, EDITS[:1], previous=made(tiny, method, EDITS[1:], **settings), **settings)
    )
    assert whole.edits == turned.edits == grown.edits
    assert whole.details == turned.details == grown.details


@pytest.mark.parametrize("method", ["ike", "mello"])
def test_an_edit_taken_out_is_gone(tiny, method) -> None:
    settings = BARE if method == "ike" else {"examples": "none"}
    patch = made(tiny, method, **settings, threshold=1.0)
    rest = patch.without("second")
    assert read_by(tiny, rest, "The home of Bo Li is") == ["The home of Bo Li is"]
    assert read_by(tiny, rest, "Ana Bel likes") == read_by(tiny, patch, "Ana Bel likes")
    nothing = patch.only([])
    assert read_by(tiny, nothing, "Ana Bel likes", "Who?") == ["Ana Bel likes", "Who?"]


@pytest.mark.parametrize("method", ["ike", "mello"])
def test_another_encoder_is_refused(tiny, method, tmp_path) -> None:
    settings = BARE if method == "ike" else {"examples": "none"}
    patch = made(tiny, method, **settings, encoder="states")
    path = patch.save_pretrained(tmp_path / "patch")
    assert read_by(tiny, load_patch(path), "Ana Bel likes") == read_by(tiny, patch, "Ana Bel likes")
    other = tiny_model("gpt2", positions=512, seed=1)
    with load_patch(path).applied(other[0], allow_other_base=True):
        (attachment,) = models.attachments(other[0])
        with pytest.raises(InvalidInput, match="its vectors differ"):
            attachment.prepare(["Ana Bel likes"], other[1])


@pytest.mark.parametrize("method", ["ike", "mello"])
def test_settings_are_checked(tiny, method) -> None:
    wrong = {"ike": {"k": -1, "contrast": float("nan")}, "mello": {"hops": 0}}
    for name, value in wrong[method].items():
        with pytest.raises(InvalidInput, match=f"{name} is"):
            made(tiny, method, **{name: value})
    with pytest.raises(UnknownName, match="encoder"):
        made(tiny, method, encoder="bm26")
    with pytest.raises(InvalidInput, match="layout is"):
        made(tiny, method, layout="{fact} {prompt} so")


def test_examples_by_name(tiny, tmp_path) -> None:
    assert made(tiny, "mello").details["examples"].count("Final answer:") == 4
    path = tmp_path / "own.txt"
    path.write_text("Question: Q?\nFinal answer: A.")
    own = made(tiny, "mello", examples=str(path))
    assert own.details["examples"] == "Question: Q?\nFinal answer: A.\n\n"
    with pytest.raises(MissingFile, match="worked examples"):
        made(tiny, "mello", examples=str(tmp_path / "none.txt"))


@pytest.mark.parametrize("method", ["ike", "mello"])
def test_what_is_missing_in_a_file_is_named(tiny, method, tmp_path) -> None:
    settings = BARE if method == "ike" else {}
    path = made(tiny, method, **settings).save_pretrained(tmp_path / "patch") / "emend.json"
    own = json.loads(path.read_text())
    del own["config"]["layout"]
    path.write_text(json.dumps(own))
    with pytest.raises(BrokenFile, match="layout"):
        load_patch(path.parent)


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("Question: Who is it? Answer:", "Who is it?"),
        ("Question: Name the home of Bo. Answer:", "Name the home of Bo."),
        ("Who is it? ", "Who is it?"),
        ("Ana Bel was born in", None),
    ],
)
def test_questions_are_told_from_statements(prompt, question) -> None:
    assert question_of(prompt) == question


def test_mello_notes_every_question_once_and_forgets_with_its_neighbours(tiny, monkeypatch) -> None:
    model, tokenizer = tiny
    patch, other = made(tiny, "mello", examples="none"), made(tiny, "ike", **BARE)
    asked: list[str] = []
    write = models.generate

    def counted(model, tokenizer, texts, **options):
        asked.extend(texts)
        return write(model, tokenizer, texts, **options)

    monkeypatch.setattr(models, "generate", counted)
    with patch.applied(model):
        (attachment,) = models.attachments(model)
        for _ in range(2):
            attachment.prepare(["Who is Ana Bel?", "Ana Bel likes"], tokenizer)
        assert asked == ["Question: Who is Ana Bel?\n"]
        (sample,) = attachment.samples()
        assert sample["prompt"] == "Who is Ana Bel?"
        assert "neither a subquestion" in sample["failure"]
        assert attachment.prepare(["Ana Bel likes"], tokenizer) == [
            "New Fact: Ana Bel likes tea.\nPrompt: Ana Bel likes"
        ]
        with other.applied(model):
            attachment.prepare(["Who is Ana Bel?"], tokenizer)
        assert len(asked) == 2
