"""Parts of frames as a video: overlays, and part numbers."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partzoo.errors import PartzooError, UsageError
from partzoo.parts.parts import Parts

pytest.importorskip("av")

import av
from helpers import videos

from partzoo.parts.video import smoothed, write_video

TIMES = [0, 40, 50, 300]
CLOCK = {"times": TIMES, "time_base": Fraction(1, 1000), "rate": Fraction(25)}


def several(size, k=3, count=4):
    rng = np.random.default_rng(0)
    image = np.full((*size, 3), 128, np.uint8)
    return [Parts(rng.integers(0, k + 1, size), k=k, image=image) for _ in range(count)]


@pytest.mark.parametrize("k", [3, 300])
def test_part_numbers_are_kept_exactly(tmp_path, k):
    file = tmp_path / "labels.mkv"
    parts = several((21, 33), k)
    write_video(file, parts, **CLOCK)
    with av.open(str(file)) as container:
        frames = list(container.decode(video=0))
    assert [frame.to_ndarray().tolist() for frame in frames] == [each.labels.tolist() for each in parts]
    assert [round(1000 * frame.time) for frame in frames] == TIMES


def test_overlays_are_padded_tagged_and_keep_their_times(tmp_path):
    file = tmp_path / "overlay.mp4"
    labels = np.zeros((121, 133), np.uint8)
    labels[20:100, 20:110] = 2
    parts = [Parts(labels, k=2, image=np.full((121, 133, 3), 90, np.uint8))] * 4
    write_video(file, parts, **CLOCK, aspect=Fraction(4, 3))
    frames, times, first = videos.read(file)
    assert [round(1000 * time) for time in times] == TIMES
    assert frames[0].shape == (122, 134, 3) and (first.colorspace, first.color_range) == (1, 1)
    expected = np.asarray(parts[0].overlay(numbers=False))
    inside = np.s_[30:90, 30:100]
    assert np.abs(frames[0][inside].astype(int) - expected[inside]).max() <= 5, "the colours are those of the tag"
    with av.open(str(file)) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(4, 3)


def test_overlays_are_enlarged(tmp_path):
    write_video(tmp_path / "a.mp4", several((20, 30), count=1), **(CLOCK | {"times": [0]}), scale=2)
    assert videos.read(tmp_path / "a.mp4")[0][0].shape == (40, 60, 3)


def test_parts_are_taken_one_at_a_time_and_a_failure_leaves_nothing(tmp_path):
    def failing():
        yield from several((20, 30), count=2)
        raise PartzooError("the third frame")

    with pytest.raises(PartzooError, match="third"):
        write_video(tmp_path / "a.mp4", failing(), **CLOCK)
    with pytest.raises(UsageError, match=r"\.mkv"):
        write_video(tmp_path / "a.gif", several((20, 30)), **CLOCK)
    assert not list(tmp_path.iterdir())


def test_votes_remove_a_single_frame_and_keep_ties():
    frames = [np.array([[1, 1, 2]]), np.array([[1, 2, 1]]), np.array([[1, 1, 0]])]
    assert [each.tolist() for each in smoothed(frames, 3)] == [[[1, 1, 2]], [[1, 1, 1]], [[1, 1, 0]]]
    assert [each.tolist() for each in smoothed(frames, 1)] == [each.tolist() for each in frames]
    assert len(list(smoothed(frames, 9))) == 3 and list(smoothed([], 3)) == []
    for count in (0, 2):
        with pytest.raises(UsageError, match="odd"):
            list(smoothed(frames, count))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.just(3), st.just(4)), elements=st.integers(0, 3)))
def test_votes_are_those_of_a_count(frames):
    for number, found in enumerate(smoothed(frames, 5)):
        near = frames[max(number - 2, 0) : number + 3]
        for place in np.ndindex(3, 4):
            votes = Counter(near[(slice(None), *place)].tolist())
            best = max(votes.values())
            own = int(frames[(number, *place)])
            assert votes[int(found[place])] == best
            assert votes[own] < best or found[place] == own


def test_few_frames_are_held_at_a_time():
    taken = []

    def frames():
        for i in range(9):
            taken.append(i)
            yield np.full((2, 2), i, np.uint8)

    for number, _ in enumerate(smoothed(frames(), 3)):
        assert len(taken) <= number + 2
