"""The recipes of published tables, at limit 2 with a tiny model in place of the real one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tests.tiny import tiny_model

from emend import datasets, report
from emend.bench import Board, Plan, Runner
from emend.errors import BrokenFile

RECIPES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml"))
FORMS = {"ZsRE": "knowedit", "WikiData counterfact": "knowedit", "WikiBio": "knowedit"}
FORMS |= {"CounterFact": "counterfact", "MQuAKE-CF-3k": "mquake"}


def test_there_are_five():
    assert len(RECIPES) == 5


@pytest.mark.parametrize("recipe", RECIPES, ids=[one.stem for one in RECIPES])
@pytest.mark.filterwarnings("ignore")
def test_a_recipe_runs(recipe, tmp_path):
    plan = Plan.read(recipe, limit=2)
    given = []
    for source in plan.sources:
        assert Path(source.path).parent == recipe.parent / "data"
        path = tmp_path / Path(source.path).name
        path.write_text(json.dumps([datasets.format_of(FORMS[source.name]).example]))
        given.append(dataclasses.replace(source, path=str(path), sha256=None))
    plan = dataclasses.replace(plan, sources=tuple(given))

    def load(name):
        assert "/" in name  # the real one
        return tiny_model("llama", positions=4096)

    results = Runner(plan, tmp_path / "results", load=load).run()
    assert [one["error"] for one in results if "error" in one] == []
    board = Board.read(tmp_path / "results", [unit.key for unit in plan.units()])
    places = {(one.dataset, one.schedule, one.method) for one in board.points}
    measured = {(p.dataset, p.schedule, p.method): p.published for p in board.points}
    for one in plan.expected:
        place = (one.dataset, one.schedule, one.method)
        assert place in places
        if one.dataset != "ZsRE":  # of which the example has all groups
            assert set(one.values) - {"PS", "S"} <= set(measured[place])
    text = report.write(board, tmp_path / "board.md").read_text()
    assert ("next to published numbers" in text) == bool(plan.expected)
    assert ("†" in text) == any(one.recalled for one in plan.expected)


def test_numbers_recalled_from_memory_are_marked_and_others_are_not():
    expected = {one.stem: Plan.read(one).expected for one in RECIPES}
    assert not any(one.recalled for one in expected["llama2-7b-zsre"])
    assert expected["llama2-7b-knowedit"] == ()
    others = [one for name, each in expected.items() if "llama2" not in name for one in each]
    assert others
    assert all(one.recalled for one in others)


def test_another_file_than_the_pinned_one_is_refused(tmp_path):
    recipe = next(one for one in RECIPES if one.stem == "mquake-cf-3k")
    (source,) = Plan.read(recipe).sources
    path = tmp_path / "other.json"
    path.write_text(json.dumps([datasets.format_of("mquake").example]))
    with pytest.raises(BrokenFile, match=r"expected 71912daf5cdd\.\.\. of the file that the plan"):
        dataclasses.replace(source, path=str(path)).edits(None, 0)
