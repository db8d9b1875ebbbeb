"""Parts of one image pasted into another."""

import numpy as np
import pytest

from partzoo.errors import UsageError
from partzoo.parts.parts import Parts
from partzoo.parts.pasting import alignment, membrane, paste_parts

SIZE = (60, 80)


def face(turn=1 + 0j, shift=0j, colour=100, mark=0):
    """Draw four discs as parts 1..4 on a fifth, moved by a similarity; part 2 has a stripe of another value."""
    y, x = np.indices(SIZE)
    place = ((x + 0.5 + 1j * (y + 0.5)) - shift) / turn
    labels = np.where(np.abs(place - (40 + 30j)) < 26, 5, 0)
    for part, centre in enumerate((30 + 22j, 50 + 22j, 40 + 32j, 40 + 45j), start=1):
        labels[np.abs(place - centre) < 5] = part
    pixels = np.full((*SIZE, 3), 20)
    pixels[labels > 0] = colour
    pixels[(labels == 2) & (np.abs((place - (50 + 22j)).imag) < 2)] += mark
    return Parts(labels, k=5, image=pixels.astype(np.uint8))


def test_the_alignment_is_the_similarity_between_the_images():
    turn, shift = 0.8 * np.exp(0.3j), 14 + 2j
    found = alignment(face(turn, shift), face())
    assert found[0] == pytest.approx(turn, abs=0.03) and found[1] == pytest.approx(shift, abs=1.5)


def test_an_image_pasted_into_itself_stays_as_it_is():
    a = face(mark=60)
    assert np.abs(paste_parts(a, a, [1, 2, 3]).astype(int) - a.image).max() <= 1
    assert np.array_equal(paste_parts(a, face(mark=60, colour=90), []), a.image)


@pytest.mark.parametrize(("turn", "shift"), [(1 + 0j, 0j), (1.1 * np.exp(-0.2j), -8 + 6j)])
def test_a_part_is_taken_in_the_first_image_s_colours(turn, shift):
    a, b = face(colour=100), face(turn, shift, colour=150, mark=60)
    mixed = paste_parts(a, b, [2]).astype(int)
    assert mixed[22, 50].mean() == pytest.approx(160, abs=12)  # the stripe, as much brighter as in b
    assert np.abs(mixed - a.image)[a.labels == 4].max() == 0  # far from the part nothing changes
    around = (a.labels == 5) & ~np.isin(np.abs(np.indices(SIZE)[1] - 50), range(9))
    assert np.abs(mixed - a.image)[around].max() <= 3


def test_what_the_other_image_shows_beside_its_object_is_not_pasted():
    a, b = face(), face()
    cut = np.where(np.indices(SIZE)[0] < 46, b.labels, 0)  # the lower half of part 4 is hidden in b
    mixed = paste_parts(a, Parts(cut, k=5, image=np.where(cut[..., None] > 0, b.image, 255).astype(np.uint8)), [4])
    assert np.abs(mixed.astype(int) - a.image).max() <= 4


def test_a_membrane_rises_evenly_between_known_values():
    values = np.zeros((21, 33, 1), np.float32)
    values[:, -1] = 32
    known = np.zeros((21, 33), bool)
    known[:, [0, -1]] = True
    found = membrane(values, known)[..., 0]
    assert np.abs(found - np.arange(33)).max() < 2.5 and (np.diff(found) > 0).all()
    assert not membrane(values, np.zeros_like(known)).any()


def test_images_that_cannot_be_aligned_are_refused():
    a = face()
    with pytest.raises(UsageError, match="fewer than two parts in common"):
        paste_parts(a, Parts(np.where(a.labels == 1, 1, 0), k=5, image=a.image), [1])
    with pytest.raises(UsageError, match=r"parts=\[6\]: the parts of both images are 1\.\.5"):
        paste_parts(a, a, [6])
    with pytest.raises(UsageError, match="no image"):
        paste_parts(a, Parts(a.labels, k=5), [1])
