"""Advice rests on measured numbers: those of the pages, and what is recommended is best in them."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest

from emend import methods
from emend.errors import InvalidInput
from emend.methods import _advice

DOCS = Path(__file__).parents[2] / "docs"
TABLES = json.loads(Path(_advice.__file__).with_name("measured.json").read_text(encoding="utf-8"))
SITUATIONS = list(
    product((1, 9, 10, 60, 100, 5000), (True, False), (True, False), (True, False), ("cpu", "gpu"))
)


def advise(situation):
    edits, weights, multi_hop, revertible, hardware = situation
    return methods.advise(
        edits, weights=weights, multi_hop=multi_hop, revertible=revertible, hardware=hardware
    )


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def page_tables(text):
    """The tables of a page, each as the header's cells and the rows' cells."""
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        header, _, *rows = block.splitlines()
        yield cells(header), [cells(row) for row in rows]


@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_those_of_the_page_and_its_command(name):
    table = TABLES[name]
    text = (DOCS / table["page"]).read_text(encoding="utf-8")
    flat = re.sub(r"(?:\\\n|\s)+", " ", text)
    for command in table["commands"]:
        assert re.sub(r"\s+", " ", command) in flat
    columns = list(table["columns"])
    found = [one for one in page_tables(text) if set(columns) <= set(one[0])]
    assert found, f"{table['page']} has no table with the columns {columns}"
    rows = [
        [row[0], *(row[header.index(column)] for column in columns)]
        for header, lines in found
        for row in lines
    ]
    for row in table["rows"]:
        assert row in rows


def test_pages_of_the_tables_are_found():
    assert {table["page"] for table in TABLES.values()} >= {
        *("defaults.md", "memories.md", "multi-hop.md", "entailment.md")
    }


@pytest.mark.parametrize("situation", SITUATIONS, ids=str)
def test_the_method_fits_the_situation(situation):
    edits, weights, multi_hop, revertible, _ = situation
    advice = advise(situation)
    about = methods.about()
    chosen = about[advice.method]
    assert advice.reasons and advice.measured
    assert {one.method.split()[0] for one in advice.alternatives} <= set(about)
    if not weights:
        assert chosen.prompt_only
        assert all(about[one.method].prompt_only for one in advice.alternatives)
    if multi_hop:
        assert advice.method == "mello"
    if revertible:
        offered = [advice.method, *(one.method.split()[0] for one in advice.alternatives)]
        assert not [name for name in offered if about[name].continues == "sequential"]
    if weights and not multi_hop:
        assert advice.method == ("rome" if edits < 10 else "memit")
    beyond = any("100 edits was measured" in caution for caution in advice.cautions)
    assert beyond == (weights and not multi_hop and edits > 100)


def column(name, label, key=0):
    table = TABLES[name]
    place = list(table["columns"]).index(label) + 1
    return {row[key].strip("`"): float(row[place].rstrip("%")) for row in table["rows"]}


def test_reasons_hold_in_the_numbers():
    unchanged, perplexity = column("twenty", "UN"), column("twenty", "PPL")
    assert unchanged["memit"] == max(unchanged.values())
    assert perplexity["memit"] == min(perplexity.values())
    assert column("twenty", "PS")["alphaedit"] > column("twenty", "PS")["memit"]
    assert column("twenty", "drift")["alphaedit"] > column("twenty", "drift")["memit"]
    assert unchanged["ft"] < 0.7  # a third of the neighbors change
    assert column("twenty", "CPU s")["ft"] < column("twenty", "CPU s")["memit"]
    others = column("knowedit", "relation specificity (16)")
    assert others["grace"] == 1 and max(others["rome"], others["memit"], others["ike"]) < 0.4
    hops = column("knowedit", "one hop (3)")
    assert hops["ike"] == max(hops.values())
    answered = column("multi_hop", "all", key=1)
    assert answered.pop("mello") > 80 and max(answered.values()) == 0
    for label in ("EX", "PS", "UN", "drift"):
        published, default = column("hundred", label).values()
        assert published > default
    rewordings = column("memories", "generalization")
    assert rewordings["serac"] == max(rewordings.values())
    assert column("radius", "rewordings")["0.3 (default)"] < 0.1


def test_time_is_that_of_the_table():
    assert "about 36 s " in " ".join(advise((2, True, False, True, "cpu")).reasons)
    assert "about 4 minutes " in " ".join(advise((20, True, False, True, "cpu")).reasons)
    assert "18 minutes" in " ".join(advise((100, True, False, True, "cpu")).reasons)
    on_gpu = advise((100, True, False, True, "gpu"))
    assert not any("CPU thread" in one for one in on_gpu.reasons)
    assert any("none was measured on a GPU" in one for one in on_gpu.cautions)


@pytest.mark.parametrize("given", [{"edits": 0}, {"edits": True}, {"hardware": "tpu"}])
def test_bad_input_is_one_line(given):
    with pytest.raises(InvalidInput, match="expected"):
        methods.advise(**given)
