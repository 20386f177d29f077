"""Numbers and columns of tables."""

import pytest
from tools.text import aligned, digits, scaled


@pytest.mark.parametrize(
    ("number", "text"), [(1234.5, "1234"), (12.34, "12.3"), (0.5, "0.500"), (0.0123, "0.0123")]
)
def test_number_has_three_digits(number, text):
    assert digits(number) == text


def test_number_is_scaled_to_its_unit():
    units = {1: "s", 1e-3: "ms", 1e-6: "us"}
    assert scaled(0.0025, units) == "2.50 ms"
    assert scaled(1e-8, units) == "0.0100 us"


def test_columns_are_aligned():
    lines = ["| a    | b |", "| ---- | : |", "| long | 1 |"]
    assert aligned([["a", "b"], ["long", "1"]], left=1) == lines
