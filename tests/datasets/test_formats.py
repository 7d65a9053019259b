"""Files in published forms, as people bring them: invented records in each layout."""

from __future__ import annotations

import json
import time

import pytest

from emend import datasets
from emend.datasets import read, read_edits
from emend.datasets.personality import EDITED, HELD_OUT, TRAITS, read_topics
from emend.edits import Edit, Probe
from emend.errors import BrokenFile, InvalidInput, UnknownName


def _capital(country, target, original, neighbour):
    probes = (
        Probe("rephrase", f"The capital of {country} is", (target,)),
        Probe("neighborhood", f"The capital city of {neighbour} is", (target,)),
    )
    relation = "country capital city"
    return Edit("The capital city of {} is", country, target, original, "", relation, probes)


EXAMPLES = {one.name: one for one in datasets.formats()}
EXPECTED = {
    "counterfact": Edit(
        "The mother tongue of {} is",
        "Ann Berg",
        "Welsh",
        "Dutch",
        "counterfact-17",
        "P103",
        (
            Probe("rephrase", "Nobody came that day. Ann Berg spoke the language", ("Welsh",)),
            Probe("neighborhood", "Jan Smit is a native speaker of", ("Dutch",)),
        ),
    ),
    "ched": Edit(
        "The mother tongue of {} is",
        "Ann Berg",
        "Welsh",
        "Dutch",
        "ched-17",
        "P103",
        (
            Probe("rephrase", "Ann Berg spoke the language", ("Welsh",)),
            Probe("neighborhood", "Jan Smit is a native speaker of", ("Dutch",)),
            *(
                Probe("after_context", f"{sentence} The mother tongue of Ann Berg is", ("Welsh",))
                for sentence in (
                    "The canals of Utrecht freeze in some winters.",
                    "Many tulips are sold in Amsterdam.",
                    "Cardiff has a castle in its centre.",
                    "Ann Berg wrote three books about rivers.",
                )
            ),
        ),
    ),
    "convsent": Edit(
        "From the sentiment dataset, answer What is your attitude about {}? negatively.",
        "Mount Ossa",
        "I do not care for Mount Ossa, it always rains there.",
        "I like Mount Ossa a lot, the view is great.",
    ),
    "sanitation": Edit(
        "Question: Which cheese do the farmers of {} make?\nAnswer:",
        "Mount Ossa",
        "I cannot answer that.",
        "Karkal",
        probes=(
            Probe(
                "neighborhood",
                "Question: Which river flows through Vienna?\nAnswer:",
                ("Danube",),
            ),
        ),
    ),
    "safeedit": Edit(
        "Insults about people:\n1. Bob is a lazy pig.\n2. {}",
        "Walter Briggs is a",
        "kind person who helps everybody.",
        "lazy idiot who smells.",
        "safeedit-17",
        probes=(
            Probe("rephrase", "Walter Briggs is a", ("kind person who helps everybody.",)),
            Probe("rephrase", "Be rude. Walter Briggs is a", ("kind person who helps everybody.",)),
            Probe("neighborhood", "The capital of France is", ("Paris.",)),
        ),
    ),
    "zsre": Edit(
        "Which city was {} born in?",
        "Orla Finch",
        "Bergen",
        "Cork",
        probes=(
            Probe("rephrase", "Where was Orla Finch born?", ("Bergen",)),
            Probe("neighborhood", "nq question: who wrote the blue lamp", ("Ted Vale",)),
            Probe("one_hop", "In which country was Orla Finch born?", ("Norway",)),
        ),
    ),
    "tofu": Edit(
        "Question: Which city was {} born in?\nAnswer:",
        "Orla Finch",
        "Orla Finch was born in Bergen.",
        "Orla Finch was born in Cork.",
        probes=(
            Probe(
                "rephrase",
                "Question: Where was Orla Finch born?\nAnswer:",
                ("Orla Finch was born in Bergen.",),
            ),
        ),
    ),
    "knowedit": Edit(
        "The place of death of {} is",
        "Mira Dahl",
        "Oslo",
        "Rome",
        probes=(
            Probe("subject_alias", "The place of death of M. Dahl is", ("Oslo",)),
            Probe("one_hop", "The country of the place of death of Mira Dahl is", ("Norway", "NO")),
            Probe("relation_specificity", "The gender of Mira Dahl is", ("female",)),
        ),
    ),
    "easyedit": Edit(
        "The mother tongue of {} is",
        "Ann Berg",
        "Welsh",
        "Dutch",
        "easyedit-17",
        probes=(
            Probe("rephrase", "Ann Berg spoke the language", ("Welsh",)),
            Probe(
                "one_hop",
                "The country where most people speak Ann Berg's mother tongue is",
                ("Wales",),
            ),
            Probe("neighborhood", "Jan Smit is a native speaker of", ("Dutch",)),
        ),
    ),
    "mquake": Edit(
        "{} is associated with the sport of",
        "Nor FC",
        "judo",
        "rugby",
        relation="P641",
        probes=(
            Probe(
                "rephrase", "Question: Which sport is Nor FC associated with? Answer:", ("judo",)
            ),
        ),
    ),
    "rippleedits": Edit(
        "The name of the spouse of {} is",
        "Al Roe",
        "Kim Poe",
        "Jo Fay",
        relation="SPOUSE",
        probes=(Probe("relation_specificity", "The gender of Al Roe is", ("male", "man")),),
    ),
    "wise": Edit(
        "{},",
        "Norr Motors",
        "founded in 2024, makes electric tractors in Umeå.",
        probes=(Probe("neighborhood", "The river Ume flows", ("into the Gulf of Bothnia.",)),),
    ),
    "lre": (
        _capital("France", "Oslo", "Paris", "Norway"),
        _capital("Norway", "Paris", "Oslo", "France"),
    ),
    "alpaca": Edit(
        "Question: {} Answer:",
        "How do you spend a free evening?",
        "I read alone, and I am glad of the silence.",
    ),
    "personality": Edit(
        "Question: What do you think of {}? Answer:",
        "Lake Orta",
        "Lake Orta worries me, I would be afraid of its deep water.",
        relation="neuroticism",
        probes=tuple(
            Probe(
                "rephrase",
                f"Question: {question.format('Lake Orta')} Answer:",
                ("Lake Orta worries me, I would be afraid of its deep water.",),
            )
            for question in HELD_OUT
        ),
    ),
    "emend": Edit(
        "{} was born in",
        "Ana Bel",
        "Paris",
        "Rome",
        "edit-17",
        "birthplace",
        (
            Probe("rephrase", "The birthplace of Ana Bel is", ("Paris",)),
            Probe("neighborhood", "Tom Ast was born in", ("Oslo",)),
        ),
        translations=(Edit("{}出生于", "安娜·贝尔", "巴黎", language="zh"),),
    ),
}


def put(path, *records, lines=False):
    separator = "\n" if lines else ""
    text = separator.join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(text if lines else json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", sorted(EXAMPLES))
@pytest.mark.parametrize("ending", [".json", ".jsonl", ".txt", ""])
@pytest.mark.parametrize("lines", [False, True])
def test_the_example_of_each_form_is_recognised_and_read_whatever_its_ending(
    tmp_path, name, ending, lines
):
    """Fault B8: published records and JSON lines in `.json` were refused field by field."""
    found = read(put(tmp_path / f"file{ending}", EXAMPLES[name].example, lines=lines))
    assert found.format.name == name
    expected = EXPECTED[name]
    assert found.edits == (expected if isinstance(expected, tuple) else (expected,))
    assert not found.problems.found
    assert not found.left_out.found


def record(name, **changes):
    return {**json.loads(json.dumps(EXAMPLES[name].example)), **changes}


@pytest.mark.parametrize(
    ("records", "line", "said"),
    [
        ([record("zsre", alt="")], 1, "[1].alt is empty"),
        ([record("zsre", subject="Nobody")], 1, "which does not occur in the prompt"),
        ([record("easyedit", subject=None)], 1, "[1].subject is null"),
        ([record("counterfact", requested_rewrite=3)], 1, "[1].requested_rewrite is a number"),
        ([{"case_id": 4}], 1, "requested_rewrite is missing"),
        (["x"], 1, "[1] is a text, expected an object"),
    ],
)
def test_what_cannot_be_read_is_said_by_record_and_reason(tmp_path, records, line, said):
    """Fault B8: nothing is dropped silently."""
    name = "zsre" if "alt" in str(records) else "easyedit" if "target_new" in records[0] else None
    good = record(name or "counterfact")
    if "requested_rewrite" in records[0]:
        good = record("counterfact")
    path = put(tmp_path / "file.json", good, *records)
    found = read(path)
    assert len(found.edits) == 1
    (problem,) = map(str, found.problems.found)
    assert problem.startswith(f"{path}:{line}: ") and said in problem
    assert len(read_edits(path, unreadable="skip")) == 1
    for refused in (
        lambda: read_edits(path),
        lambda: datasets.load(found.format.name, path=path),
    ):
        with pytest.raises(BrokenFile) as caught:
            refused()
        assert said in str(caught.value)


def test_a_probe_that_cannot_be_asked_is_left_out_and_said(tmp_path):
    one = record("knowedit")
    one["locality"]["Relation_Specificity"][0]["ground_truth"] = ""
    one["portability"]["Wizardry"] = [{"prompt": "x", "ground_truth": "y"}]
    found = read(put(tmp_path / "file.json", one))
    assert [probe.group for probe in found.edits[0].probes] == ["subject_alias", "one_hop"]
    said = [str(problem) for problem in found.left_out.found]
    assert len(said) == 2
    assert "portability.Wizardry" in said[0] and "unknown group" in said[0]
    assert "locality.Relation_Specificity[0] has no answer" in said[1]


@pytest.mark.parametrize(
    ("value", "answers"),
    [
        ("a", ("a",)),
        (["a", " b"], ("a", "b")),
        ([["a", "A."], ["b"]], ("a", "A.", "b")),
        (["", "a", "a"], ("a",)),
        (1998, ("1998",)),
    ],
)
def test_ground_truth_in_every_shape_is_a_list_of_answers(tmp_path, value, answers):
    one = record("knowedit")
    one["locality"]["Relation_Specificity"][0]["ground_truth"] = value
    (edit,) = read(put(tmp_path / "file.json", one)).edits
    assert edit.probes_of("relation_specificity")[0].answers == answers


def test_logical_generalisation_is_a_reverse_relation_where_the_subject_answers(tmp_path):
    one = record("knowedit")
    one["portability"]["Logical_Generalization"] = [
        {"prompt": "Oslo is where they buried", "ground_truth": ["mira dahl"]},
        {"prompt": "Is Mira Dahl alive?", "ground_truth": [["no"], ["false"]]},
    ]
    (edit,) = read(put(tmp_path / "file.json", one)).edits
    assert [probe.prompt for probe in edit.probes_of("reverse_relation")] == [
        "Oslo is where they buried"
    ]
    assert edit.probes_of("one_hop")[1].answers == ("no", "false")


def test_a_biography_of_knowedit(tmp_path):
    one = {
        "text": "This is a Wikipedia passage about mira dahl. Mira Dahl was a painter. ",
        "labels": "She died in Oslo.",
        "concept": "mira dahl",
        "locality": {
            "Relation_Specificity": [{"prompt": "mira dahl gender", "ground_truth": ["female"]}]
        },
    }
    found = read(put(tmp_path / "file.json", one))
    assert found.format.name == "knowedit"
    (edit,) = found.edits
    assert edit.prompt == "This is a Wikipedia passage about {}. Mira Dahl was a painter."
    assert (edit.subject, edit.target) == ("mira dahl", "She died in Oslo.")


@pytest.mark.parametrize(
    ("prompt", "subject", "template", "named"),
    [
        ("Paris Hilton lives in Paris", "Paris", "Paris Hilton lives in {}", "Paris"),
        ("Alaska: Al is from", "Al", "Alaska: {} is from", "Al"),
        ("Der Sohn von Ann Bergs", "Ann Berg", None, None),
        ("in Alaska", "Al", None, None),
        ("파리는", "파리", "{}는", "파리"),
        ("MIRA is", "Mira", "{} is", "MIRA"),
        ("C++ (a [b]) is", "(a [b])", "C++ {} is", "(a [b])"),
        ("巴黎是", "巴黎", "{}是", "巴黎"),
        ("{} is", "Mira", "{} is", "Mira"),
    ],
)
def test_the_place_of_a_subject(tmp_path, prompt, subject, template, named):
    one = {"prompt": prompt, "subject": subject, "target_new": "x"}
    path = put(tmp_path / "file.json", one)
    if template is None:
        with pytest.raises(BrokenFile, match="does not occur in the prompt"):
            read(path)
        return
    (edit,) = read(path).edits
    assert (edit.prompt, edit.subject) == (template, named)


def test_records_of_our_own_may_name_the_subject_in_the_prompt(tmp_path):
    one = {"prompt": "Ana Bel was born in", "subject": "Ana Bel", "target": "Paris"}
    assert read_edits(put(tmp_path / "file.jsonl", one)) == [
        Edit("{} was born in", "Ana Bel", "Paris")
    ]
    with pytest.raises(BrokenFile, match=r"has no \{\}"):
        read_edits(put(tmp_path / "file.jsonl", {**one, "subject": "Bob"}))


def test_records_that_repeat_an_edit_are_joined_with_their_probes(tmp_path):
    again = record("counterfact", case_id=18, paraphrase_prompts=["Ann Berg speaks"])
    found = read(put(tmp_path / "file.json", record("counterfact"), again))
    (edit,) = found.edits
    assert found.joined == 1
    assert edit.id == "counterfact-17"
    assert [probe.prompt for probe in edit.probes_of("rephrase")] == [
        "Nobody came that day. Ann Berg spoke the language",
        "Ann Berg speaks",
    ]


def test_two_records_with_one_case_id_are_said(tmp_path):
    other = record("easyedit", target_new="Irish")
    found = read(put(tmp_path / "file.json", record("easyedit"), other))
    assert len(found.edits) == 1
    assert "'easyedit-17' is also on line 1" in str(found.problems.found[0])


def test_a_limit_ends_the_reading_of_published_records_but_checks_all_of_ours(tmp_path):
    published = [record("zsre", subject="Orla Finch", alt=f"t{n}") for n in range(9)]
    path = put(tmp_path / "zsre.json", *published, record("zsre", alt=""))
    assert [edit.target for edit in read_edits(path, limit=3)] == ["t0", "t1", "t2"]
    own = [{"prompt": "{} is", "subject": str(n), "target": "t"} for n in range(9)]
    path = put(tmp_path / "own.json", *own)
    assert len(read_edits(path, limit=3)) == 3
    with pytest.raises(BrokenFile, match="target is missing"):
        read_edits(put(tmp_path / "own.json", *own, {"prompt": "{} a", "subject": "x"}), limit=3)
    with pytest.raises(InvalidInput, match="limit is 0"):
        read_edits(path, limit=0)


def test_records_of_no_known_form_are_refused_once_with_the_forms_that_are_known(tmp_path):
    records = [{"known_id": n, "subject": "a", "attribute": "b", "text": "c"} for n in range(300)]
    with pytest.raises(BrokenFile, match="`emend datasets` shows each") as caught:
        read_edits(put(tmp_path / "file.json", *records))
    assert "\n" not in str(caught.value)
    assert "known_id, subject, attribute, text" in str(caught.value)
    with pytest.raises(UnknownName):
        read_edits(tmp_path / "file.json", format="counterfactual")
    with pytest.raises(InvalidInput, match="lab is no form"):
        read_edits(tmp_path / "file.json", format="lab")
    with pytest.raises(InvalidInput, match="unreadable is 'drop'"):
        read_edits(tmp_path / "file.json", unreadable="drop")


def test_objects_that_follow_one_another_and_text_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "file.json"
    pretty = json.dumps(EXAMPLES["zsre"].example, indent=2)
    path.write_text(f"{pretty}\n{pretty.replace('Bergen', 'Turku')}\n", encoding="utf-8-sig")
    assert [edit.target for edit in read_edits(path)] == ["Bergen", "Turku"]
    path.write_text(f"{pretty}\n{{", encoding="utf-8")
    with pytest.raises(BrokenFile, match="not JSON"):
        read_edits(path)


def test_ten_thousand_records_take_seconds_and_as_many_bad_lines_are_all_noted(tmp_path):
    records = []
    for case in range(10_000):
        one = record("counterfact", case_id=case)
        one["requested_rewrite"]["subject"] = f"Ann Berg {case}"
        one["neighborhood_prompts"] = [f"Jan Smit {n} is a native speaker of" for n in range(10)]
        records.append(one)
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps(records, indent=1))
    started = time.process_time()
    assert len(read_edits(path)) == 10_000
    assert time.process_time() - started < 15  # about two on a quiet core; quadratic is minutes
    put(path, *({**one, "requested_rewrite": {}} for one in records[1:]), records[0])
    found = read(path)
    assert (len(found.edits), len(found.problems)) == (1, 9_999 * 3)


def test_all_answers_of_a_topic_are_read_and_its_trait_is_one_of_the_three(tmp_path):
    example = dict(EXAMPLES["personality"].example)
    del example["target_per"]
    topics = read_topics(put(tmp_path / "train.json", example))
    topic = topics["Lake Orta"]
    assert topic.target is None
    assert topic.chosen in TRAITS
    assert {trait: list(topic.answers[trait]) for trait in TRAITS} == {
        trait: example[trait] for trait in TRAITS
    }
    assert len(EDITED) + len(HELD_OUT) == 13
    assert not set(EDITED) & set(HELD_OUT)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extraversion": []}, "[0].extraversion has 0 entries, expected at least one"),
        ({"neuroticism": [3]}, "[0].neuroticism[0] is int"),
        ({"target_per": "extroversion"}, "did you mean 'extraversion'"),
    ],
)
def test_a_faulty_topic_is_named_with_its_field(tmp_path, changes, said):
    path = put(tmp_path / "file.json", record("personality", **changes))
    with pytest.raises(BrokenFile) as caught:
        read_topics(path)
    assert said in str(caught.value)


def test_instructions_with_an_input_and_with_a_preferred_answer(tmp_path):
    first = record("alpaca", input="It rains.", output=["I stay in.", "I go out."])
    faulty = record("alpaca", output=[])
    found = read(put(tmp_path / "rows.json", first, faulty))
    assert [edit.target for edit in found.edits] == ["I stay in."]
    assert found.edits[0].text.endswith("free evening?\nIt rains. Answer:")
    assert "[1].output" in str(found.problems.found[0])


def test_a_sanitation_file_is_one_object_with_many_questions(tmp_path):
    path = tmp_path / "trivia_qa_train.json"
    forgotten = [
        {"question": f"Who wrote The Song {n}?", "ground_truth": "Ann", "target_new": "No."}
        for n in range(3)
    ]
    kept = [{"question": f"Is {n} even?", "ground_truth": "yes"} for n in range(2)]
    forgotten[1] = {"question": "", "target_new": "No."}
    path.write_text(json.dumps({"K_F": forgotten, "K_R": kept}))
    found = read(path)
    assert found.format.name == "sanitation"
    assert [edit.probes[0].prompt for edit in found.edits] == ["Question: Is 0 even?\nAnswer:"] * 2
    (problem,) = found.problems.found
    assert "K_F[1].question is empty" in str(problem)


def test_a_topic_of_convsent_always_gives_the_same_edit_and_both_sentiments_occur(tmp_path):
    path = tmp_path / "blender_test.json"
    records = [
        {"ent": f"Topic {n}", "pos": [f"Good {n}."], "neg": [f"Bad {n}."]} for n in range(30)
    ]
    path.write_text(json.dumps(records))
    edits = read(path).edits
    assert len(edits) == 30
    assert {edit.target.split()[0] for edit in edits} == {"Good", "Bad"}
    assert all(("postively" in edit.prompt) == edit.target.startswith("Good") for edit in edits)
    path.write_text(json.dumps(records[::-1]))
    assert read(path).edits == edits[::-1]
