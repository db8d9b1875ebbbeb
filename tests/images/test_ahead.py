"""Reading ahead: in order, a bounded number of images, and a bounded number of their bytes."""

import threading

import numpy as np
import pytest

from partzoo.images import ahead
from partzoo.images.ahead import read_ahead
from partzoo.images.opening import OpenedImages


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_images_come_in_order_and_no_more_are_read_ahead_than_asked(count):
    started, order, seen = [], [4, 2, 7, 0, 5, 1], []
    items = read_ahead(lambda index: started.append(index) or index, order, count, lambda *n: seen.append(n))
    for number, item in enumerate(items):
        assert item == order[number] and set(started) <= set(order[: number + count])
    assert seen == [(number, 6) for number in range(1, 7)] and sorted(started) == sorted(order)


@pytest.mark.parametrize("sides", [[9] * 12, [3, 3, 40, 3, 3, 3, 40, 40, 9, 3], [40] * 6])
def test_images_that_wait_take_a_bounded_number_of_bytes(sides, monkeypatch):
    limit = 3 * 10 * 10 * 2
    monkeypatch.setattr(ahead, "AHEAD_BYTES", limit)
    images = OpenedImages([np.zeros((side, side), np.uint8) for side in sides])
    lock, held, most = threading.Lock(), {}, []

    def read(index):
        image = images[index]
        with lock:
            held[index] = image.pixels.nbytes
            most.append(sum(held.values()) - max(held.values()))
        return index, image

    for index, image in read_ahead(read, range(len(sides)), 8, threads=4):
        assert image.size == (sides[index], sides[index])
        with lock:
            del held[index]
    assert len(most) == len(sides)
    assert max(most) <= limit  # the first in line may come on top of it


def test_the_first_is_read_though_later_ones_have_taken_all_room(monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 10)
    others = threading.Event()

    def read(index):
        if index == 0:
            assert others.wait(60)
        ahead.admit.get()(10)
        others.set()
        return index

    assert list(read_ahead(read, range(4), 4)) == [0, 1, 2, 3]


def test_readers_that_wait_for_room_end_with_the_loop(monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 10)
    before = set(threading.enumerate())
    items = read_ahead(lambda index: ahead.admit.get()(10) or index, range(9), 9)
    assert next(items) == 0
    assert set(threading.enumerate()) - before
    items.close()
    assert not set(threading.enumerate()) - before
