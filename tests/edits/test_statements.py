"""What makes two edits one statement, and that every place asks the same definition."""

from __future__ import annotations

import pytest

from emend.edits import Edit, check_conflicts, conflicting, continued
from emend.errors import Conflict
from emend.ledger import Ledger

BORN = Edit("{} was born in", "Ana Bel", "Paris", id="born")
CASES = [
    pytest.param(Edit("{} was born in", "Ana Bel", "Oslo", id="2"), True, id="another target"),
    pytest.param(Edit("{} was born in", "Ana Bel", "Paris", id="2"), True, id="the same twice"),
    pytest.param(Edit("{} was born in", "Ana Bel", " Paris", id="2"), True, id="twice, by a space"),
    pytest.param(Edit("Ana {} was born in", "Bel", "Oslo", id="2"), True, id="split otherwise"),
    pytest.param(Edit("Ana {} was born in", "Bel", "Paris", id="2"), True, id="split, twice"),
    pytest.param(Edit("{} WAS born  in", "Ana Bel", "Oslo", id="2"), True, id="case and spaces"),
    pytest.param(Edit("{} came from", "Ana Bel", "Paris", id="2"), False, id="another wording"),
    pytest.param(Edit("{} was born in", "Ana Bell", "Oslo", id="2"), False, id="another subject"),
]


@pytest.mark.parametrize(("other", "conflicts"), CASES)
def test_one_definition_holds_for_lists_and_ledgers(tmp_path, other, conflicts):
    """Faults 23, B3, B12: lists compared exactly, ledgers by folded text, neither by id."""
    assert conflicting([BORN, other]) == (((BORN, other),) if conflicts else ())
    with Ledger.create(tmp_path / "facts.db") as ledger:
        ledger.add(BORN)
        if not conflicts:
            check_conflicts([BORN, other])
            ledger.add(other)
            assert continued([BORN], [other]) == (BORN, other)
            return
        for refused in (lambda: check_conflicts([BORN, other]), lambda: ledger.add(other)):
            with pytest.raises(Conflict) as caught:
                refused()
            assert caught.value.pairs == ((BORN, other),)
            assert "'born'" in str(caught.value) and "'2'" in str(caught.value)
        assert continued([BORN], [other]) == (other,)
        ledger.add(other, supersede=True)
        assert ledger.active() == (other,)


def test_relations_make_one_statement_where_targets_differ():
    """Fault 23: a list of edits did not look at relations, the ledger did."""
    lyon = Edit("{} was born in", "Ana Bel", "Lyon", relation="birthplace")
    rome = Edit("the birthplace of {} is", "ANA BEL", "Rome", relation="Birthplace")
    lyon_too = Edit("the birthplace of {} is", "Ana Bel", "Lyon", relation="birthplace")
    other = Edit("{} lives in", "Ana Bel", "Rome", relation="home")
    assert conflicting([lyon, lyon_too, other]) == ()
    assert conflicting([lyon, rome]) == ((lyon, rome),)
    assert continued([lyon, other], [rome]) == (other, rome)
    assert continued([lyon], [lyon_too]) == (lyon, lyon_too)


def test_many_conflicts_are_counted_with_both_reasons_in_one_error():
    edits = [Edit("{} is", f"s{n}", f"t{n % 2}") for n in range(60)]
    again = [Edit("{} is", f"s{n}", "t0", id=f"again-{n}") for n in range(60)]
    with pytest.raises(Conflict, match="60 pairs of edits are for the same statement") as caught:
        check_conflicts([*edits, *again])
    assert "... and 40 more" in str(caught.value)
