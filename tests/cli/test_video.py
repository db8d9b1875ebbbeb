"""``partzoo discover`` and ``partzoo report`` of a video."""

import numpy as np
import pytest
from helpers.command_line import partzoo
from PIL import Image

from partzoo.parts.parts import Parts
from partzoo.parts.video import smoothed

pytest.importorskip("av")

import av
from helpers import videos

TOY = ("-k", 3, "--model", "toy-vit", "--background", "none")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    videos.write(tmp_path / "clip.mp4", list(rng.integers(0, 256, (4, 24, 32, 3), np.uint8)))
    return tmp_path


def test_frames_share_a_vocabulary_and_become_files_or_a_video_of_part_numbers(place):
    ran = partzoo("discover", "clip.mp4", *TOY, "-o", "out", "--format", ".npz")
    assert ran.code == 0 and "4 images" in ran.out, ran.err
    parts = [Parts.load(file) for file in sorted((place / "out").iterdir())]
    assert [each.source for each in parts] == [f"clip.mp4/{i:06d}" for i in range(4)]
    assert partzoo("discover", "clip.mp4", *TOY, "-o", "labels.mkv").code == 0
    with av.open("labels.mkv") as container:
        labels = [frame.to_ndarray().tolist() for frame in container.decode(video=0)]
    assert labels == [each.labels.tolist() for each in parts]
    assert sorted(file.name for file in place.iterdir()) == ["clip.mp4", "labels.mkv", "out"]


def test_features_are_those_of_the_frames(place):
    ran = partzoo("features", "clip.mp4", "--model", "toy-vit", "--pooled", "-o", "f.npz")
    assert ran.code == 0, ran.err
    assert np.load("f.npz")["names"].tolist() == [f"clip.mp4/{i:06d}" for i in range(4)]


def test_an_overlay_video_is_made_with_a_saved_vocabulary(place):
    words = "v.parts.safetensors"
    assert partzoo("discover", "clip.mp4", *TOY, "--save-vocabulary", words).code == 0
    ran = partzoo("discover", "clip.mp4", "--vocabulary", words, "-o", "parts.mp4", "--scale", 2)
    assert ran.code == 0 and "Written: parts.mp4" in ran.out, ran.err
    frames, times, _ = videos.read(place / "parts.mp4")
    assert len(frames) == 4 and frames[0].shape == (48, 64, 3)
    assert np.allclose(times, [i / 25 for i in range(4)], atol=1e-3)


def test_a_stopped_video_is_continued(place, monkeypatch):
    save = Parts.save

    def stopping(self, path, **options):
        if self.source == "clip.mp4/000002":
            raise KeyboardInterrupt
        save(self, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "save", stopping)
        assert partzoo("discover", "clip.mp4", *TOY, "-o", "labels.mkv").code == 130
    assert not (place / "labels.mkv").exists()
    ran = partzoo("discover", "clip.mp4", *TOY, "-o", "labels.mkv")
    assert ran.code == 0 and "2 done before and 2 now" in ran.out, ran.err
    with av.open("labels.mkv") as container:
        assert len(list(container.decode(video=0))) == 4


def test_the_video_is_not_overwritten_and_images_make_no_video(place):
    before = (place / "clip.mp4").read_bytes()
    (place / "link.mp4").symlink_to("clip.mp4")
    for out in ("clip.mp4", "link.mp4"):
        ran = partzoo("discover", "clip.mp4", *TOY, "-o", out)
        assert ran.code == 2 and "is an input" in ran.err
    assert (place / "clip.mp4").read_bytes() == before
    (place / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(place / "in" / name)
    ran = partzoo("discover", "in", *TOY, "-o", "out.mp4")
    assert ran.code == 2 and "not the frames of one" in ran.err


def test_a_page_shows_the_frames(place):
    ran = partzoo("report", "clip.mp4", *TOY, "-o", "report.html")
    assert ran.code == 0 and "4 images" in ran.out, ran.err
    assert (place / "report.html").read_text(encoding="utf-8").count("<h3>00000") == 4


def test_neighbouring_frames_vote_on_request(place):
    assert partzoo("discover", "clip.mp4", *TOY, "-o", "each.mkv").code == 0
    assert partzoo("discover", "clip.mp4", *TOY, "-o", "voted.mkv", "--smooth", 3).code == 0
    found = {}
    for name in ("each", "voted"):
        with av.open(f"{name}.mkv") as container:
            found[name] = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert np.array_equal(found["voted"], list(smoothed(found["each"], 3)))
    assert not np.array_equal(found["voted"], found["each"])
    for arguments in (("-o", "out.mkv", "--smooth", 2), ("-o", "out", "--smooth", 3)):
        ran = partzoo("discover", "clip.mp4", *TOY, *arguments)
        assert ran.code == 2 and "--smooth" in ran.err
