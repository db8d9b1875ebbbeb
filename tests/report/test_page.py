"""The page that ``write_report`` writes: its structure, what it escapes, and its size."""

import itertools
import re
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import partzoo
from partzoo.discovery.vocabulary import Settings
from partzoo.errors import PartzooError, UsageError
from partzoo.features import DEFAULT_MODEL
from partzoo.parts.parts import Parts
from partzoo.report.page import IMAGES, _digest
from partzoo.report.thumbnails import runs, thumbnail

NASTY = [
    "<script>alert(1)</script>.png",
    "\"onerror='alert(1)' x=\".png",
    "&amp;<!--.png",
    "%%script%%.png",
    "\u202egnp.exe\x00\n.png",
    "\udcff.png",
    "ein Bild ü 鷺.png",
]
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page, each with its attributes, parents and text, and whether all are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), "an attribute is given twice"
        element = {"tag": tag, "text": "", **dict(attributes), "above": [each["tag"] for each in self.open]}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **wanted):
        return [e for e in self.elements if e["tag"] == tag and all(e.get(key) == wanted[key] for key in wanted)]


def drawn(source="", k=3, seed=0, size=(40, 60), **more):
    labels = np.zeros(size, np.uint8)
    labels[4:20, 5:30] = 1
    labels[20:36, 5:50] = k
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Parts(labels, k=k, image=image, source=source, **more)


def written(tmp_path, parts, **options):
    file = tmp_path / "report.html"
    partzoo.write_report(parts, file, **options)
    return Page(file.read_text(encoding="utf-8"))


def test_every_image_and_every_part_has_a_heading_and_a_description(tmp_path):
    page = written(tmp_path, [drawn(f"set/{i}.png") for i in range(4)], title="Herons")
    assert [e["text"] for e in page.all("h1")] == ["Herons"] and page.all("title")[0]["text"] == "Herons"
    assert [e["text"] for e in page.all("h3")] == [*(f"{i}.png" for i in range(4)), "Part 1", "Part 2", "Part 3"]
    assert [e["alt"] for e in page.all("img")] == [f"{i}.png" for i in range(4)]
    levels = [int(e["tag"][1]) for e in page.elements if re.fullmatch("h[1-6]", e["tag"])]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids)) and all(
        e["aria-labelledby"] in ids for e in page.elements if "aria-labelledby" in e
    )
    assert page.all("html", lang="en") and page.all("p", role="status")
    for tag in ("select", "input"):
        assert all("label" in e["above"] for e in page.all(tag)) and page.all(tag)
    assert [e["aria-label"] for e in page.all("button", **{"aria-pressed": "false"})] == ["part 1", "part 2", "part 3"]


def test_shares_of_the_parts_are_in_the_text(tmp_path):
    page = written(tmp_path, drawn())
    (card,) = page.all("li", id="image-1")
    assert (
        "part 1: 1\xa016.7%" in card["text"] and "part 3: 3\xa030.0%" in card["text"] and "part 2" not in card["text"]
    )
    assert [float(share) for share in card["data-shares"].split()] == [0.1667, 0, 0.3]
    assert "In 0 of 1 image." in page.all("section", **{"aria-labelledby": "part-2"})[0]["text"]


@pytest.mark.parametrize("name", NASTY)
def test_names_are_text_and_never_markup(name, tmp_path):
    plain = written(tmp_path, [drawn("in/a.png"), drawn("in/b.png")])
    page = written(
        tmp_path, [drawn(f"in/{name}", names=[name, "b", "c"]), drawn("in/b.png", names=[name, "b", "c"])], title=name
    )
    assert [e["tag"] for e in page.elements] == [e["tag"] for e in plain.elements]
    assert [set(e) for e in page.elements] == [set(e) for e in plain.elements]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert page.all("img")[0]["alt"] == page.all("h1")[0]["text"] == shown
    assert page.all("h3")[2]["text"] == f"Part 1, {shown}"


def test_the_page_forbids_itself_all_that_it_does_not_hold(tmp_path):
    page = written(tmp_path, drawn(f"in/{NASTY[0]}"))
    (policy,) = (e["content"] for e in page.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:" and "unsafe" not in policy
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (element,) = page.all(tag)
        assert rules[rule] == f"'{_digest(element['text'])}'" and "src" not in element
    for element in page.elements:
        assert "style" not in element and not any(key.startswith("on") for key in element)
        for key in ("src", "href"):
            assert element.get(key, "data:").startswith(("data:", "#"))


def test_a_doubtful_image_is_marked_in_words(tmp_path):
    page = written(tmp_path, [drawn(quality=0.69), drawn(quality=0.7), drawn(quality=float("nan"))])
    assert [("Check" in e["text"]) for e in page.all("li", **{"class": "card"})] == [True, False, False]
    assert "1 warning" in page.all("header")[0]["text"]
    assert [e["data-quality"] for e in page.all("li", **{"class": "card"})] == ["0.690", "0.700", ""]


def test_scores_can_be_sorted_by_where_they_are_known(tmp_path):
    def sorts(parts):
        return [e["value"] for e in written(tmp_path, parts).all("option")]

    known = drawn(confidences=[0.5, 0.1, 0.25])
    assert set(sorts([known, drawn()])) - set(sorts([drawn()])) == {"clearest", "vaguest"}
    assert written(tmp_path, known).all("li", id="image-1")[0]["data-scores"] == "0.5000 0.1000 0.2500"


def test_settings_and_the_record_of_the_model_are_stated(tmp_path):
    vocabulary = partzoo.PartVocabulary(torch.eye(3), Settings(DEFAULT_MODEL, 448, (1,), (0.8, 0.1, 0.1), "none"))
    vocabulary.save(tmp_path / "three.parts.safetensors")
    text = written(tmp_path, drawn(), vocabulary=vocabulary).all("main")[0]["text"]
    assert written(tmp_path, drawn(), vocabulary=tmp_path / "three.parts.safetensors").all("main")[0]["text"] == text
    assert "size448" in text and "backgroundnone" in text and f"model{DEFAULT_MODEL}" in text
    assert "licence of the weights" in text and "ImageNet" in text
    assert "do not record their settings" in written(tmp_path, drawn()).all("main")[0]["text"]


def test_500_images_of_noise_take_less_than_20_megabytes(tmp_path):
    """Noise is the worst case, of images and labels alike; the room for an image is the same up to 500 images."""
    rng = np.random.default_rng(0)
    count = 4
    several = [
        Parts(
            rng.integers(0, 9, (360, 480)), k=8, image=rng.integers(0, 256, (360, 480, 3), np.uint8), source=f"{i}.jpg"
        )
        for i in range(count)
    ]
    file = tmp_path / "report.html"
    partzoo.write_report(several[:1], file)
    one = file.stat().st_size
    partzoo.write_report(several, file)
    each = (file.stat().st_size - one) / (count - 1)
    assert 10_000 < each and one + (IMAGES - 1) * each < 20_000_000


def test_thumbnails_shrink_until_they_fit_and_keep_what_is_small():
    noise = drawn(size=(300, 900))
    full, half = (thumbnail(noise, room) for room in (10**6, 10_000))
    assert full[0] == (107, 320) and half[0][1] < 320 and len(half[1]) + len(half[2]) <= 10_000
    assert thumbnail(drawn(size=(40, 60)), 10**6)[0] == (40, 60)
    assert thumbnail(drawn(size=(40, 60)), 1)[0] == (40, 60)  # the smallest there is, though it does not fit


@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (64, 64)])
def test_images_of_any_shape_have_a_thumbnail(size, tmp_path):
    labels = np.ones(size, np.uint8)
    parts = Parts(labels, image=np.zeros((*size, 3), np.uint8))
    (image,) = written(tmp_path, parts).all("img")
    assert max(int(image["width"]), int(image["height"])) == min(320, max(size))


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1000)))
def test_runs_can_be_read_back(labels):
    data, numbers, at = b64decode(runs(labels)), [], 0
    while at < len(data):
        number = shift = 0
        while True:
            number |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                break
        numbers.append(number)
    assert np.array_equal(np.repeat(numbers[::2], numbers[1::2]), labels.ravel())


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["/home/ann/set/a.png", "/home/ann/set/b/c.png"], ["a.png", "b/c.png"]),
        (["/home/ann/a.png", "/home/ann/a.png"], ["a.png", "a.png"]),
        (["a.png", "x/b.png"], ["a.png", "x/b.png"]),
        (["", "/home/ann/b.png"], ["image 1", "b.png"]),
        (["https://example.org/a.png?token=1", "https://example.org/b.png"], ["a.png", "b.png"]),
        (["x" * 5000], ["x" * 5000]),
    ],
)
def test_names_leave_out_the_folders_that_all_share(sources, names, tmp_path):
    page = written(tmp_path, [drawn(source) for source in sources])
    assert [e["alt"] for e in page.all("img")] == names
    assert "ann" not in (tmp_path / "report.html").read_text() and "token" not in (tmp_path / "report.html").read_text()


def test_an_iterator_is_read_once_and_one_image_at_a_time(tmp_path):
    alive = []

    def several():
        for i in range(3):
            alive.append(i)
            yield drawn(f"{i}.png")

    assert len(written(tmp_path, several()).all("img")) == 3 == len(alive)


def test_images_that_do_not_share_their_parts_are_refused(tmp_path):
    with pytest.raises(UsageError, match="do not share their parts"):
        written(tmp_path, [drawn(k=3), drawn(k=4)])
    with pytest.raises(UsageError, match="no parts"):
        written(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over_an_image_or_into_a_missing_folder(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"an image")
    (tmp_path / "link.html").symlink_to(image)
    with pytest.raises(UsageError, match="is an input"):
        partzoo.write_report(drawn(str(image)), tmp_path / "link.html")
    assert image.read_bytes() == b"an image"
    with pytest.raises(PartzooError, match="no folder"):
        partzoo.write_report(drawn(), tmp_path / "missing" / "report.html")
