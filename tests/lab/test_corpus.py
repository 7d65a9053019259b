"""The corpus says what is true, in the wordings it may use, in tokens that are words."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from emend.lab import corpus_texts
from emend.lab.corpus import KINDS, Corpus
from emend.lab.hops import AGREES, CONTRADICTS, FINAL, RETRIEVED, SUBQUESTION, hop_chain
from emend.lab.language import ANSWER, RECALL, Document
from emend.lab.tokenizer import build_tokenizer
from emend.lab.world import World, build_world


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


def text_of(document: Document) -> str:
    return "".join(piece for piece, _ in document)


def test_the_same_state_writes_the_same_documents(world: World) -> None:
    def write(seed: int) -> list[Document]:
        corpus = Corpus(world, random.Random(seed))
        return [corpus.document(long=i % 2 == 0) for i in range(50)]

    assert write(1) == write(1)
    assert write(1) != write(2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_writes_text_without_leftovers(kind: str, world: World) -> None:
    corpus = Corpus(world, random.Random(3))
    for _ in range(30):
        text = text_of(KINDS[kind].write(corpus))
        assert text.strip() and "{" not in text and "  " not in text


def test_held_out_wordings_never_meet_their_fact(world: World) -> None:
    """No document of any kind states a fact in a wording held out for it."""
    corpus = Corpus(world, random.Random(5))
    forbidden = {
        template.format(fact.subject) + f" {value}"
        for fact in world.facts.values()
        for template in fact.statements(seen=False)
        for value in fact.objects
    }
    documents = [text_of(corpus.document(long=i % 3 == 0)) for i in range(6000)]
    lines = [line for text in documents for line in text.replace(". ", "\n").split("\n")]
    said = {line.rstrip(".").split(": ", 1)[-1].strip() for line in lines}
    assert not said & forbidden
    allowed = {
        fact.statements(seen=True)[0].format(fact.subject) + f" {fact.object}"
        for fact in world.facts.values()
    }
    assert len(said & allowed) > 200  # the comparison can find what is there


def test_an_attribute_follows_the_name_directly(world: World) -> None:
    corpus = Corpus(world, random.Random(2))
    names = {name for _, name in world.subjects()} | {a for n in world.aliases.values() for a in n}
    for _ in range(50):
        name, (value, role) = (document := KINDS["attributes"].write(corpus))[0][0], document[1]
        assert name in names and role == RECALL and value.startswith(" ")


def test_chains_lead_from_object_to_subject(world: World) -> None:
    corpus = Corpus(world, random.Random(8))
    edited = 0
    for _ in range(50):
        chain = hop_chain(corpus, 3)
        assert all(a.object == b.fact.subject for a, b in pairwise(chain))
        edited += sum(hop.edited for hop in chain)
        assert all((hop.object in hop.fact.objects) is not hop.edited for hop in chain)
    assert 40 < edited < 110


def test_multi_hop_documents_have_the_fixed_format(world: World) -> None:
    corpus = Corpus(world, random.Random(9))
    for _ in range(20):
        text = text_of(KINDS["multi_hop"].write(corpus))
        steps = text.count(SUBQUESTION)
        assert steps in (2, 3, 4)
        assert text.count(RETRIEVED) == steps
        assert text.count(CONTRADICTS) + text.count(AGREES) == steps
        assert text.split("\n")[-1].startswith(FINAL)


def test_every_word_of_the_corpus_is_one_token(world: World) -> None:
    tokenizer = build_tokenizer(world)
    for text in corpus_texts(300):
        for token in tokenizer.tokenize(text):
            assert token.startswith("▁") or len(token) == 1, (token, text)
            assert not (len(token) == 1 and token.isalpha()), (token, text)


def test_texts_come_back_from_tokens(world: World) -> None:
    tokenizer = build_tokenizer(world)
    for text in [*corpus_texts(50), "Née in 中国, he said:\n\n(no)"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]).strip() == text.strip()


def test_a_word_is_the_same_token_at_the_start_and_within(world: World) -> None:
    tokenizer = build_tokenizer(world)
    name = world.entities["person"][0]
    inside = tokenizer(f"The spouse of {name} is")["input_ids"]
    assert tokenizer(name)["input_ids"] == inside[3:5] == tokenizer("\n" + name)["input_ids"][-2:]


def test_answers_are_marked(world: World) -> None:
    corpus = Corpus(world, random.Random(4))
    for kind in ("statements", "questions", "new_fact", "phones", "aliases"):
        assert any(role == ANSWER for _, role in KINDS[kind].write(corpus)), kind
