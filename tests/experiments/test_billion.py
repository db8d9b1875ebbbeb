"""``experiments/billion.py`` where the outcome is known."""

from dataclasses import replace

import pytest
from helpers.experiments import experiment

billion = experiment("billion")

# Ten workers make a hundred shards of a thousand seconds each.
PLAN = billion.Plan(
    images=10**6, milliseconds=100.0, per_shard=10_000, workers=10, loss_hours=1e9, start_seconds=60.0, spread=0.0
)


def test_without_losses_the_shards_are_shared_evenly():
    found = billion.simulate(PLAN)
    assert found.losses == 0 and found.lost_hours == 0 and found.idle_hours == pytest.approx(0)
    assert found.hours == pytest.approx((60 + 10 * 1000) / 3600)
    assert found.worker_hours == pytest.approx(10 * found.hours)


def test_a_loss_costs_what_was_made_of_the_shard_and_the_start():
    found = billion.simulate(replace(PLAN, loss_hours=1.0))
    assert found.losses > 5
    assert 60 / 3600 * found.losses < found.lost_hours < 1060 / 3600 * found.losses
    needed = 10 * 60 / 3600 + 1e5 / 3600
    assert needed < found.worker_hours <= needed + found.lost_hours + found.idle_hours  # some are lost while idle
    assert billion.simulate(replace(PLAN, loss_hours=1.0)) == found


def test_bytes_and_costs_follow_from_the_rates():
    rows = {what: value for what, value, _ in billion.table(replace(PLAN, image_bytes=1e6, row_bytes=1000.0))}
    assert rows["results, shards"] == "1, 100" and rows["bytes read"] == "1 TB" and rows["bytes written"] == "0.00 TB"
    assert rows["size of a shard"] == "10 MB" and rows["time of a shard"] == "16.7 min"
    assert rows["cost: machines"] == "$1"  # 28 hours of workers
