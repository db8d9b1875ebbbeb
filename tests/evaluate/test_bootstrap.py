import numpy as np
import pytest

from partzoo.evaluate.bootstrap import DRAWS, draws, mean_interval, table_interval
from partzoo.evaluate.metrics import Contingency


def table(counts) -> Contingency:
    found = Contingency(2, 2)
    found.counts = np.array(counts)
    return found


def test_every_draw_has_as_many_groups_as_there_are():
    drawn = draws(7)
    assert drawn.shape == (DRAWS, 7) and (drawn.sum(1) == 7).all() and (drawn == draws(7)).all()
    assert drawn.mean(0) == pytest.approx(np.ones(7), abs=0.15)


def test_groups_that_are_alike_leave_no_doubt():
    alike = {group: table([[3, 1], [1, 3]]) for group in range(5)}
    assert table_interval(alike, Contingency.nmi) == pytest.approx([alike[0].nmi()] * 2)
    assert mean_interval(np.full((10, 2), 4.0), np.arange(10) // 2) == pytest.approx([4, 4])


def test_groups_that_differ_span_what_they_could_show():
    low, high = table_interval({0: table([[5, 0], [0, 5]]), 1: table([[0, 5], [5, 0]])}, Contingency.nmi)
    assert (low, high) == pytest.approx((0, 1))
    # Groups of means 0 and 1: both, or one of them twice.
    assert mean_interval(np.array([[0.0], [0.0], [1.0]]), np.array([8, 8, 3])) == pytest.approx([0, 1])


def test_means_weigh_groups_by_the_values_that_count():
    values = np.array([[1.0, np.nan], [1.0, np.nan], [2.0, 2.0]])
    low, high = mean_interval(np.repeat(values, 200, axis=0), np.arange(600))
    assert low < np.nanmean(values) == 1.5 < high and high - low < 0.2
