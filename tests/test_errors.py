"""Counts in sentences."""

import pytest

from partzoo.errors import counted


@pytest.mark.parametrize(
    "number, what, said",
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1000, "image", "1,000 images"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (3, "patch", "3 patches"),
        (1, "entry", "1 entry"),
        (2, "entry", "2 entries"),
    ],
)
def test_a_count_agrees_with_its_noun(number, what, said):
    assert counted(number, what) == said
