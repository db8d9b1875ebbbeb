"""Reading and working ahead: in order, a bounded number of images, and a bounded number of their bytes."""

import threading
import time

import numpy as np
import pytest
import torch

from partzoo.errors import ImageError, UsageError
from partzoo.images import ahead
from partzoo.images.ahead import read_ahead, work_ahead
from partzoo.images.opening import OpenedImages


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_images_come_in_order_and_no_more_are_read_ahead_than_asked(count):
    started, order, seen = [], [4, 2, 7, 0, 5, 1], []
    items = read_ahead(lambda index: started.append(index) or index, order, count, lambda *n: seen.append(n))
    for number, item in enumerate(items):
        assert item == order[number] and set(started) <= set(order[: number + count])
    assert seen == [(number, 6) for number in range(1, 7)] and sorted(started) == sorted(order)


def worked_ahead(read, order, count, threads):
    """Yield what is read when it has been worked on."""
    for _, item in work_ahead(read, lambda _, item: time.sleep(0.001) or item, order, count, threads=threads):
        yield item


@pytest.mark.parametrize("ahead_of", [read_ahead, worked_ahead])
@pytest.mark.parametrize("sides", [[9] * 12, [3, 3, 40, 3, 3, 3, 40, 40, 9, 3], [40] * 6])
def test_images_that_wait_or_are_in_work_take_a_bounded_number_of_bytes(sides, ahead_of, monkeypatch):
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

    for index, image in ahead_of(read, range(len(sides)), 8, threads=4):
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


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_are_in_work_and_results_come_in_order(threads):
    lock, working, most, seen = threading.Lock(), set(), [], []
    together = threading.Barrier(threads)

    def work(index, item):
        with lock:
            working.add(index)
            most.append(len(working))
        if index < threads:
            together.wait(60)
        time.sleep(0.002 * (7 - index % 7))
        with lock:
            working.remove(index)
        return item + 1

    order = [*range(20, 0, -1), 0] if threads == 1 else range(21)
    found = list(work_ahead(lambda index: 10 * index, work, order, progress=lambda *n: seen.append(n), threads=threads))
    assert found == [(index, 10 * index + 1) for index in order]
    assert max(most) == threads and seen == [(number, 21) for number in range(1, 22)]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_cannot_be_read_is_passed_over_in_order_and_here(threads):
    passed, here = [], threading.get_ident()

    def read(index):
        if index in (3, 4, 9):
            raise ImageError(f"{index} is damaged.")
        return index

    def pass_over(index, error):
        assert threading.get_ident() == here
        passed.append((index, str(error)))

    found = work_ahead(read, lambda index, _: index, range(10), pass_over=pass_over, threads=threads)
    assert [index for index, _ in found] == [0, 1, 2, 5, 6, 7, 8]
    assert passed == [(index, f"{index} is damaged.") for index in (3, 4, 9)]
    with pytest.raises(ImageError, match="3 is damaged"):
        list(work_ahead(read, lambda index, _: index, range(10), threads=threads))


@pytest.mark.parametrize("error", [UsageError("k=0"), KeyboardInterrupt()])
def test_an_error_of_the_work_is_raised_at_its_turn_and_ends_the_threads(error):
    before, passed, found = set(threading.enumerate()), [], []

    def work(index, _):
        if index == 5:
            raise error
        return index

    with pytest.raises(type(error)):
        found.extend(work_ahead(lambda index: index, work, range(50), pass_over=passed.append, threads=2))
    assert [index for index, _ in found] == list(range(5)) and not passed
    assert not set(threading.enumerate()) - before
    items = work_ahead(lambda index: index, work, range(50), threads=2)
    assert [next(items) for _ in range(5)] == [(index, index) for index in range(5)]
    with pytest.raises(type(error)):
        next(items)
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("one_by_one", [True, False])
def test_images_may_have_to_be_read_in_order(one_by_one):
    read = []

    def reading(index):
        time.sleep(0.002 * (3 - index % 3))
        read.append(index)

    list(work_ahead(reading, lambda *_: None, range(30), threads=3, one_by_one=one_by_one))
    assert (read == list(range(30))) == one_by_one and sorted(read) == list(range(30))


def test_those_that_are_read_in_order_end_with_the_loop(monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 10)
    before = set(threading.enumerate())
    read, options = lambda index: ahead.admit.get()(10) or index, {"threads": 4, "one_by_one": True}
    items = work_ahead(read, lambda *_: None, range(9), **options)
    assert next(items) == (0, None)
    items.close()
    assert not set(threading.enumerate()) - before
    assert len(list(work_ahead(read, lambda *_: None, range(9), **options))) == 9


def test_torch_has_one_thread_for_each_of_several_and_its_own_again_afterwards():
    torch.set_num_threads(2)
    try:
        for threads, expected in ((1, 2), (3, 1)):
            found = work_ahead(lambda index: index, lambda *_: torch.get_num_threads(), range(9), threads=threads)
            assert {count for _, count in found} == {expected}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
