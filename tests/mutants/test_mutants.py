"""Each mutant can be planted: its text and its test are there. ``make mutants`` plants them."""

import pytest

from .__main__ import check
from .catalog import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_text_of_a_mutant_occurs_once_and_its_test_exists(mutant):
    check(mutant)
    assert mutant.replacement != mutant.text


def test_names_of_mutants_are_unique():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
