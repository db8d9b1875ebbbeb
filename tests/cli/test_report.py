"""``partzoo report``: of images, and of results."""

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.parts.parts import Parts

TOY = ("-k", 3, "--model", "toy-vit", "--background", "none")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(tmp_path / "in" / name)
    return tmp_path


def page(place):
    return (place / "report.html").read_text(encoding="utf-8")


def labels(text):
    return [piece.partition('"')[0] for piece in text.split('data-labels="')[1:]]


def test_a_page_of_images_and_of_their_results_show_the_same_parts(place):
    ran = partzoo("report", "in", *TOY, "-o", "report.html")
    assert ran.code == 0 and "Written: report.html (3 images, 0.0 MB)" in ran.out, ran.err
    of_images = page(place)
    assert "<td>toy-vit</td>" in of_images and "<title>in</title>" in of_images
    assert partzoo("discover", "in", *TOY, "-o", "out", "--format", ".npz").code == 0
    ran = partzoo("report", "out", "-o", "report.html", "--title", "Noise")
    assert ran.code == 0, ran.err
    assert labels(page(place)) == labels(of_images) and len(set(labels(of_images))) == 3
    assert "<title>Noise</title>" in page(place) and "do not record their settings" in page(place)


def test_a_vocabulary_states_the_settings_of_results(place):
    words = "v.parts.safetensors"
    assert partzoo("discover", "in", *TOY, "-o", "out", "--format", ".npz", "--save-vocabulary", words).code == 0
    assert partzoo("report", "out", "-o", "report.html", "--vocabulary", words).code == 0
    assert "<td>toy-vit</td>" in page(place)


def test_one_image_is_divided_as_discover_does(place):
    assert partzoo("report", "in/a.png", *TOY, "-o", "report.html").code == 0
    assert partzoo("discover", "in/a.png", *TOY, "-o", "a.npz").code == 0
    one = labels(page(place))
    assert partzoo("report", "a.npz", "-o", "report.html").code == 0
    assert labels(page(place)) == one and len(one) == 1


def test_an_unreadable_image_is_named_and_left_out(place):
    (place / "in" / "b.png").write_bytes(b"no image")
    ran = partzoo("report", "in", *TOY, "-o", "report.html")
    assert ran.code == 1 and "in/b.png" in ran.err and "1 of the 3 images" in ran.err
    assert len(labels(page(place))) == 2
    assert partzoo("report", "in", *TOY, "-o", "report.html", "--strict").code == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("in", "-o", "report.png"), "must end in .html"),
        (("in", "-o", "missing/report.html"), "no folder"),
        (("out", "-k", 3, "-o", "report.html"), "-k is for images, but out has results"),
        (("a.npz", "-o", "link.html"), "is an input"),
        (("in", "-o", "image.html"), "is an input"),
    ],
)
def test_wrong_usage_is_refused_before_the_work(place, arguments, sentence):
    (place / "out").mkdir()
    for file in ("a.npz", "out/a.npz"):
        Parts(np.ones((4, 4), np.uint8)).save(place / file)
    (place / "link.html").symlink_to(place / "a.npz")
    (place / "image.html").symlink_to(place / "in" / "a.png")
    ran = partzoo("report", *arguments)
    assert ran.code in (1, 2) and sentence in ran.err
    assert Parts.load(place / "a.npz").k == 1 and not (place / "report.html").exists()
