import torch

from partzoo.discovery.frames import cropped, within_frame


def test_a_frame_is_seen_and_a_plain_ground_is_none():
    random = torch.Generator().manual_seed(0)
    framed = torch.ones(3, 96, 128)
    framed[:, 10:90, 5:110] = torch.rand(3, 80, 105, generator=random) * 0.6
    assert within_frame(framed, 8) == (slice(16, 88), slice(8, 104))
    plain = torch.ones(3, 96, 128)
    plain[:, 20:60, 30:70] = 0.2
    assert within_frame(plain, 8) == (slice(0, 96), slice(0, 128))


def test_cropped_keeps_what_lies_within_the_frame():
    maps = [torch.arange(24 * 32.0).view(1, 24, 32), torch.rand(2, 12, 16)]
    found, colours = cropped(maps, torch.rand(3, 24, 32), (slice(16, 88), slice(8, 104)), (96, 128))
    assert torch.equal(found[0], maps[0][:, 4:22, 2:26]) and torch.equal(found[1], maps[1][:, 2:11, 1:13])
    assert colours.shape == (3, 9, 12)
