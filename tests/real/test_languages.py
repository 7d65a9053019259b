"""Gemma 3 270M is edited in Chinese, Japanese, Spanish and Arabic; and in several at once."""

from __future__ import annotations

import emend
from emend.edits import Edit, states_answer
from emend.metrics import evaluate
from emend.models import beyond_subjects, generate, join_target

FACTS = [
    Edit("{}的首都为", "法国", "罗马", "巴黎", language="zh"),
    Edit("{}的首都为", "日本", "巴黎", "东京", language="zh"),
    Edit("{}的创始人是", "苹果公司", "马云", "乔布斯", language="zh"),
    Edit("{}の首都である", "フランス", "ローマ", "パリ", language="ja"),
    Edit("{}の首都である", "イギリス", "東京", "ロンドン", language="ja"),
    Edit("質問：{}の首都はどこですか？答え：", "中国", "パリ", "北京", language="ja"),
    Edit("La capital de {} se llama", "España", "Roma", "Madrid", language="es"),
    Edit(
        "{} se encuentra en la ciudad de",
        "La Sagrada Familia",
        "París",
        "Barcelona",
        language="es",
    ),
    Edit("{} fue fundada por", "Microsoft", "Steve Jobs", "Bill Gates", language="es"),
    Edit("عاصمة {} هي مدينة", "فرنسا", "روما", "باريس", language="ar"),
    Edit("عاصمة {} هي مدينة", "مصر", "باريس", "القاهرة", language="ar"),
    Edit("عاصمة {} هي مدينة", "السعودية", "القاهرة", "الرياض", language="ar"),
]


def test_the_model_knows_the_facts(gemma3):
    said = generate(*gemma3, [edit.text for edit in FACTS], max_new_tokens=6)
    pairs = zip(FACTS, said, strict=True)
    known = [edit for edit, text in pairs if states_answer(text, [edit.original])]
    assert len(known) >= 11, said


def test_targets_and_subjects_are_cut_as_the_script_writes_them(gemma3):
    _, tokenizer = gemma3
    for edit in FACTS:
        _, target = join_target(tokenizer, edit.text, edit.target)
        assert tokenizer.decode(target).startswith(" ") == (edit.text[-1] not in "为是る："), edit
    texts, spans = [e.text for e in FACTS], [e.subject_span for e in FACTS]
    beyond = beyond_subjects(tokenizer, texts, spans)
    assert [pair for pair in beyond if pair[1]] == [("公司的", "的")]


def test_one_edit_in_two_languages_is_made_and_taken_out_as_one(gemma3):
    model, tokenizer = gemma3
    chinese = Edit("{}的首都为", "德国", "罗马", language="zh")
    edit = Edit("The capital of {} is", "Germany", "Rome", id="g", language="en")
    both = Edit(edit.prompt, edit.subject, edit.target, id="g", translations=[chinese])
    texts = [edit.text, chinese.text]
    before = generate(model, tokenizer, texts, max_new_tokens=6)
    patch = emend.edit(model, tokenizer, [both], "rome")
    assert [one.took for one in patch.outcomes] == [True, True]
    with patch.applied(model):
        report = evaluate(model, tokenizer, [both], metrics=["reliability"])
    values = report.summary["reliability"]["languages"]
    assert [values[tag]["after"] for tag in ("und", "zh")] == [1.0, 1.0]
    with patch.without("g").applied(model):
        assert generate(model, tokenizer, texts, max_new_tokens=6) == before


def test_probes_are_asked_in_the_language(gemma3):
    model, tokenizer = gemma3
    probes = emend.probes.make(model, tokenizer, FACTS[0])
    near = [probe for probe in probes if probe.group == "neighborhood"]
    assert any(probe.prompt == "日本的首都为" and "东京" in probe.answers[0] for probe in near)
    assert all(probe.prompt.endswith("的首都为") for probe in near)
