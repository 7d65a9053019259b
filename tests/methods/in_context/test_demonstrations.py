"""Demonstrations: their kinds, which facts they are of, and what fits."""

from __future__ import annotations

import pytest
from tests.tiny import tiny_tokenizer

from emend.datasets import write_edits
from emend.edits import Edit, Probe
from emend.errors import InvalidInput, UnknownName
from emend.methods.in_context._demonstrations import Pool, choose, kinds_for, pool_of
from emend.methods.in_context._facts import LAYOUT, Layout, fitted, statement


def edit(number: int, probes: bool = True) -> Edit:
    name, other = f"Name{number}", f"Other{number}"
    own = (
        Probe("rephrase", f"Home of {name} is", (f"City{number}",)),
        Probe("neighborhood", f"{other} was born in", ("Elsewhere",)),
    )
    return Edit("{} was born in", name, f"City{number}", probes=own if probes else ())


@pytest.mark.parametrize(
    ("count", "wanted"),
    [(0, (0, 0, 0)), (1, (0, 0, 1)), (8, (1, 3, 4)), (32, (4, 12, 16)), (5, (1, 2, 2))],
)
def test_ratio_by_largest_remainders(count, wanted) -> None:
    kinds = kinds_for(count, (1, 3, 4))
    assert tuple(kinds.count(kind) for kind in ("copy", "update", "retain")) == wanted


@pytest.mark.parametrize("ratio", [(1, 2), (0, 0, 0), (1, -1, 1)])
def test_ratios_that_are_none_are_refused(ratio) -> None:
    with pytest.raises(InvalidInput, match="ratio"):
        kinds_for(3, ratio)


def test_the_facts_most_like_are_chosen_and_the_most_like_is_last() -> None:
    pool = Pool([Edit("{} likes", "Ana Bel", "tea"), *(edit(i) for i in range(8))])
    chosen = choose(pool, "Zoe Li likes milk.", count=3, ratio=(1, 0, 0), without=[], seed="0")
    assert len(chosen) == 3
    assert chosen[-1].fact == "Ana Bel likes tea."
    assert all(one.kind == "copy" and one.fact == f"{one.prompt} {one.answer}." for one in chosen)


def test_kinds_ask_what_they_should() -> None:
    pool = Pool([edit(i) for i in range(8)])
    chosen = choose(pool, "X was born in Y.", count=8, ratio=(1, 3, 4), without=[], seed="a")
    by_kind = {kind: [one for one in chosen if one.kind == kind] for kind in ("update", "retain")}
    assert (len(by_kind["update"]), len(by_kind["retain"])) == (3, 4)
    assert all(one.prompt.startswith("Home of") for one in by_kind["update"])
    assert all(one.answer == "Elsewhere" for one in by_kind["retain"])
    again = choose(pool, "X was born in Y.", count=8, ratio=(1, 3, 4), without=[], seed="a")
    other = choose(pool, "X was born in Y.", count=8, ratio=(1, 3, 4), without=[], seed="b")
    assert chosen == again != other


def test_edited_subjects_are_in_no_demonstration() -> None:
    pool = Pool([edit(i) for i in range(6)])
    chosen = choose(
        pool, "Name1 was born in Oslo.", count=6, ratio=(0, 0, 1), without=["Name1", "Other2"],
        seed="0",
    )  # fmt: skip
    assert len(chosen) == 5
    assert not any("Name1" in f"{one.fact} {one.prompt}" for one in chosen)
    # Its only neighbour is edited too, so that the second is copied.
    assert [one.kind for one in chosen if "Name2" in one.fact] == ["copy"]


def test_pools_by_name(tmp_path) -> None:
    assert len(pool_of("general").edits) == 32
    assert not pool_of("none").edits
    assert len(pool_of("lab").edits) == 1_000
    path = tmp_path / "own.jsonl"
    write_edits(path, [edit(1)])
    assert pool_of(str(path)).edits[0].subject == "Name1"
    with pytest.raises(UnknownName, match="general"):
        pool_of("generall")


def test_every_general_demonstration_can_be_of_every_kind() -> None:
    for one in pool_of("general").edits:
        assert one.target != one.original
        assert len(one.probes_of("rephrase")) == len(one.probes_of("neighborhood")) == 2
        for probe in one.probes_of("rephrase"):
            assert one.subject in probe.prompt
            assert probe.answers == (one.target,)


def test_layouts_are_checked_and_written() -> None:
    layout = Layout(LAYOUT)
    assert layout.block("A is B.", "A is") == "New Fact: A is B.\nPrompt: A is"
    assert layout.answered("A is {prompt}.", "A is", "B") == (
        "New Fact: A is {prompt}.\nPrompt: A is B."
    )
    for text in (
        "{prompt}",
        "{fact}",
        "{prompt} {fact}",
        "{fact} {prompt}.",
        "{fact}{fact}{prompt}",
    ):
        with pytest.raises(InvalidInput, match="expected"):
            Layout(text)


def test_a_fact_is_one_sentence() -> None:
    assert statement(edit(1)) == "Name1 was born in City1."
    assert statement(Edit("{} said", "Ana", " Stop!")) == "Ana said Stop!"


@pytest.mark.parametrize("tokenizer", [None, tiny_tokenizer()])
def test_what_does_not_fit_is_left_out_from_the_front(tokenizer) -> None:
    blocks = ["first block", "second block"]
    whole, kept = fitted(blocks, "last", "\n", None, tokenizer)
    assert (whole, kept) == ("first block\nsecond block\nlast", 2)
    sizes = [fitted(blocks, "last", "\n", room, tokenizer)[1] for room in range(40)]
    assert sizes == sorted(sizes)
    assert set(sizes) == {0, 1, 2}
    least = sizes.index(1)
    assert fitted(blocks, "last", "\n", least, tokenizer)[0] == "second block\nlast"
