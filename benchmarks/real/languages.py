"""Edits in Chinese, Japanese, Spanish and Arabic, alone and as one edit in five languages.

EMEND_ACCEPT_LICENSE=gemma python benchmarks/real/languages.py --model gemma3-270m
"""

from __future__ import annotations

import argparse
import time

import emend
from emend.edits import Edit, statements_of, states_answer
from emend.models import generate

# (language, prompt, subject, what the model answers, target)
FACTS = (
    ("zh", "{}的首都为", "法国", "巴黎", "罗马"),
    ("zh", "{}的首都为", "日本", "东京", "巴黎"),
    ("zh", "{}的创始人是", "苹果公司", "乔布斯", "马云"),
    ("ja", "{}の首都である", "フランス", "パリ", "ローマ"),
    ("ja", "{}の首都である", "イギリス", "ロンドン", "東京"),
    ("ja", "質問：{}の首都はどこですか？答え：", "中国", "北京", "パリ"),
    ("es", "La capital de {} se llama", "España", "Madrid", "Roma"),
    ("es", "{} se encuentra en la ciudad de", "La Sagrada Familia", "Barcelona", "París"),
    ("es", "{} fue fundada por", "Microsoft", "Bill Gates", "Steve Jobs"),
    ("ar", "عاصمة {} هي مدينة", "فرنسا", "باريس", "روما"),
    ("ar", "عاصمة {} هي مدينة", "مصر", "القاهرة", "باريس"),
    ("ar", "عاصمة {} هي مدينة", "السعودية", "الرياض", "القاهرة"),
)
GROUP = Edit(
    "The capital of {} is",
    "Germany",
    "Rome",
    id="capital",
    language="en",
    translations=(
        Edit("{}的首都为", "德国", "罗马", language="zh"),
        Edit("{}の首都は", "ドイツ", "ローマ", language="ja"),
        Edit("La capital de {},", "Alemania", "Roma", language="es"),
        Edit("عاصمة {} هي مدينة", "ألمانيا", "روما", language="ar"),
    ),
)
WORDS = 8


def main() -> None:
    """Print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="gemma3-270m")
    parser.add_argument("--method", default="rome")
    parser.add_argument("--only", choices=["group", "single"])
    arguments = parser.parse_args()
    model, tokenizer = emend.load(arguments.model)
    if arguments.only != "single":
        group(model, tokenizer, arguments.method)
    if arguments.only != "group":
        single(model, tokenizer, arguments.method)


def single(model, tokenizer, method: str) -> None:
    """Edit each fact alone."""
    edits = [
        Edit(prompt, subject, target, original=answer, language=language)
        for language, prompt, subject, answer, target in FACTS
    ]
    known = generate(model, tokenizer, [edit.text for edit in edits], max_new_tokens=WORDS)
    print("\n| | | the model knows | target | P(target) | generated | neighbours | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for edit, text in zip(edits, known, strict=True):
        begun = time.process_time()
        patch = emend.edit(model, tokenizer, [edit], method)
        seconds = time.process_time() - begun
        radius = emend.probes.blast_radius(model, tokenizer, patch)
        (outcome,) = patch.outcomes
        before = "yes" if states_answer(text, [edit.original]) else f"no: {text.strip()}"
        near = f"{radius.changed('neighborhood')} of {radius.asked['neighborhood']} changed"
        took = outcome.generated.strip() + ("" if outcome.took else " (no)")
        chance = f"{outcome.before:.2g} -> {outcome.after:.2g}"
        cells = (edit.language, edit.text, before, edit.target, chance, took, near)
        print("|", " | ".join(cells), f"| {seconds:.0f} |", flush=True)


def group(model, tokenizer, method: str) -> None:
    """Edit one fact in English alone, and in five languages at once."""
    parts = statements_of([GROUP])
    texts = [part.text for part in parts]
    base = generate(model, tokenizer, texts, max_new_tokens=WORDS)
    alone = emend.edit(model, tokenizer, parts[:1], method)
    patch = emend.edit(model, tokenizer, [GROUP], method)
    with alone.applied(model):
        english = generate(model, tokenizer, texts, max_new_tokens=WORDS)
    reverted = patch.without(GROUP.id)
    with reverted.applied(model):
        assert generate(model, tokenizer, texts, max_new_tokens=WORDS) == base
    print("| | prompt | unedited | edited in English alone | edited as a group | P(target) |")
    print("|---|---|---|---|---|---|")
    for part, old, one, outcome in zip(parts, base, english, patch.outcomes, strict=True):
        chance = f"{outcome.before:.2g} -> {outcome.after:.2g}"
        said = (" ".join(text.split()) for text in (old, one, outcome.generated))
        print("|", " | ".join((str(part.language), part.text, *said, chance)), "|", flush=True)


if __name__ == "__main__":
    main()
