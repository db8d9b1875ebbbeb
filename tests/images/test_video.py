"""The frames of a video as a sequence of images."""

import contextlib
import tracemalloc
import warnings
from fractions import Fraction

import numpy as np
import pytest

from partzoo.errors import ImageError, MissingExtraError
from partzoo.images import video
from partzoo.images.ahead import work_ahead
from partzoo.images.opening import VideoFrames, is_video, open_images

av = pytest.importorskip("av")
from helpers import videos  # noqa: E402


def grey(image):
    """The level of a frame of ``videos.numbered``, in its lower right corner."""
    return round(float(image.pixels[-4:, -4:].mean()) / 8)


@pytest.fixture
def clip(tmp_path):
    file = tmp_path / "clip.mp4"
    videos.write(file, videos.numbered(12))
    return file


def test_frames_are_read_in_any_order(clip):
    frames, single = open_images(str(clip))
    assert isinstance(frames, VideoFrames) and not single and len(frames) == 12
    for index in (0, 1, 1, 5, 11, 3, 0, -1):
        assert grey(frames[index]) == index % 12
    assert [grey(image) for image in frames] == list(range(12))
    assert [grey(image) for image in frames[2:5]] == [2, 3, 4]
    with pytest.raises(IndexError):
        frames[12]


def test_a_frame_is_named_as_a_file_in_the_video(clip):
    frames = VideoFrames(clip)
    assert frames.name(3) == frames[3].source == f"{clip}/000003" and frames.files() == [str(clip)]


def test_reading_ahead_decodes_each_frame_once(clip, monkeypatch):
    frames = VideoFrames(clip)
    begun = []
    decoded = frames.video._decoded
    monkeypatch.setattr(frames.video, "_decoded", lambda: begun.append(1) or decoded())
    for _ in range(2):
        found = work_ahead(
            frames.__getitem__, lambda _, image: grey(image), range(12), threads=3, one_by_one=frames.one_by_one
        )
        assert [shade for _, shade in found] == list(range(12))
    assert len(begun) == 2


def test_times_start_at_zero_and_keep_their_distances(tmp_path):
    file = tmp_path / "clip.mkv"
    videos.write(file, videos.numbered(4), times=[100, 140, 150, 400], time_base=Fraction(1, 1000))
    frames = VideoFrames(file).video
    assert [time * frames.time_base * 1000 for time in frames.times] == [0, 40, 50, 300]


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_frames_are_upright(tmp_path, rotation, corner):
    """The white corner moves as a player would turn it, counterclockwise."""
    file = tmp_path / "clip.mp4"
    videos.write(file, videos.numbered(2), rotation=rotation, aspect=Fraction(4, 3))
    frames = VideoFrames(file)
    pixels = frames[0].pixels
    assert pixels.shape == ((32, 24, 3) if rotation % 180 else (24, 32, 3))
    assert frames.video.aspect == (Fraction(3, 4) if rotation % 180 else Fraction(4, 3))
    height, width = (side // 2 for side in pixels.shape[:2])
    for y in (0, 1):
        for x in (0, 1):
            quarter = pixels[y * height : (y + 1) * height, x * width : (x + 1) * width]
            assert (quarter.mean() > 128) == ((y, x) == corner)


@pytest.mark.parametrize(
    ("tag", "colours", "height"),
    [(1, "ITU709", 64), (5, "ITU601", 64), (None, "ITU601", 64), (None, "ITU709", 720)],
)
def test_colours_are_those_of_the_tag_and_else_what_players_assume(tmp_path, tag, colours, height):
    file = tmp_path / "clip.mp4"
    frame = np.full((height, 64, 3), (200, 40, 60), np.uint8)
    videos.write(file, [frame], tag=tag, colours=colours)
    assert np.abs(VideoFrames(file)[0].pixels.astype(int) - frame).max() <= 3


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    def peak(count):
        file = tmp_path / f"{count}.mp4"
        videos.write(file, videos.numbered(8) * (count // 8))
        frames = VideoFrames(file)
        tracemalloc.start()
        for image in frames:
            assert image.pixels.shape == (24, 32, 3)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(160) < 1.5 * peak(16)


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(ImageError, match=r"text\.mp4"):
        VideoFrames(tmp_path / "text.mp4")
    with pytest.raises(ImageError, match=r"missing\.mp4"):
        VideoFrames(tmp_path / "missing.mp4")


def test_a_playlist_with_a_videos_name_leads_nowhere(tmp_path, clip):
    """FFmpeg would read the file that it names."""
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n")
    with pytest.raises(ImageError, match=r"list\.mp4"):
        VideoFrames(playlist)


def test_a_truncated_video_gives_the_frames_that_are_there(tmp_path):
    file = tmp_path / "clip.avi"
    rng = np.random.default_rng(0)
    videos.write(file, [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(20)])
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    frames = VideoFrames(file)
    assert 5 <= len(frames) < 20 and frames[len(frames) - 1].pixels.shape == (64, 64, 3)


def test_a_file_that_has_changed_is_named(clip):
    frames = VideoFrames(clip)
    clip.write_bytes(b"no video at all" * 100)
    with pytest.raises(ImageError, match=r"Frame 3 of .* has the file changed"):
        frames[3]


def test_large_frames_are_refused_before_they_are_decoded(clip):
    with pytest.raises(ImageError, match="768 pixels"):
        VideoFrames(clip, max_pixels=700)


def test_later_frames_are_limited_as_well(tmp_path):
    file = tmp_path / "grows.mkv"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuvj420p"
        for number, side in enumerate((24, 24, 600)):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height = encoder.width = side
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame(side, side, "yuvj420p")
            frame.pts = number
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream, packet.pts, packet.dts = stream, number, number
                container.mux(packet)
    assert len(VideoFrames(file)) == 3
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ImageError):
        # Decoders of several threads may refuse the frame before, after or without the others.
        assert len(VideoFrames(file, max_pixels=1000)) < 3


def test_a_title_in_an_old_encoding_is_no_damage(tmp_path):
    file = tmp_path / "title.avi"
    with av.open(str(file), "w") as container:
        container.metadata["title"] = "a TITLE"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(videos.numbered(1)[0], format="rgb24")))
        container.mux(stream.encode())
    data = file.read_bytes()
    assert b"a TITLE" in data
    file.write_bytes(data.replace(b"a TITLE", b"a T\xcfTLE"))
    assert len(VideoFrames(file)) == 1


def test_addresses_and_images_are_no_videos():
    assert is_video("a/clip.MP4") and is_video(b"clip.mkv".decode()) and not is_video("https://example.org/clip.mp4")
    assert not is_video("a.png") and not is_video(np.zeros((4, 4)))


def test_messages_of_ffmpeg_are_off(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(video, "_silence", video._silence.__wrapped__)
    (tmp_path / "text.mp4").write_text("no video")
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)  # as importing torchvision 0.21 does
    try:
        with pytest.raises(ImageError):
            video.Video(tmp_path / "text.mp4")
        assert av.logging.get_level() is None
    finally:
        av.logging.set_level(level)
    assert capfd.readouterr().err == ""


def test_without_pyav_the_extra_is_named(clip, monkeypatch):
    def missing(module, extra):
        raise MissingExtraError(f'{module} is not installed: pip install "partzoo[{extra}]".')

    monkeypatch.setattr(video, "require", missing)
    with pytest.raises(MissingExtraError, match=r"partzoo\[video\]"):
        VideoFrames(clip)
