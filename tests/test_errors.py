"""Counts in sentences, and warnings that carry what was skipped."""

import pickle

import pytest

from partzoo.errors import counted
from partzoo.skipping import SkippedWarning


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


def test_a_warning_of_skipped_items_may_go_to_another_process():
    warning = pickle.loads(pickle.dumps(SkippedWarning("Skipped: a", [("a", "damaged")])))
    assert str(warning) == "Skipped: a" and warning.items == (("a", "damaged"),)
    assert SkippedWarning("Skipped: a").items == ()
