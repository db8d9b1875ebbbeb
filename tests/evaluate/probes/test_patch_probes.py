import pytest
import torch

import partzoo
from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.evaluate.probes.linear import closed_form, sgd_probe
from partzoo.evaluate.probes.patches import patch_figures, window_features
from partzoo.evaluate.protocols.classification import ClassProtocol

PROBE = {"epochs": 3, "batch_size": 8, "lr": 1e-2}


def images(count, seed):
    """Make images of two kinds, with a bright upper left or lower right corner."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 90, (count, 3, 32, 32), generator=generator)
    labels = torch.arange(count) % 2
    pixels[labels == 0, :, :12, :12] += 150
    pixels[labels == 1, :, 20:, 20:] += 150
    return ImageSet.from_pixels(pixels.byte(), labels, ["upper", "lower"])


def load(folder, split, limit):
    return images(min(limit or 40, 40), 0) if split == "train" else images(20, 1)


PROTOCOL = ClassProtocol("corners", load, 2, 32, source="", rules="", get="", probe=PROBE)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return partzoo.load("spatial-conv4", pretrained=False, dtype="float32", device="cpu", size=32, patch_size=12)


def test_every_number_has_the_figures_of_its_own_representation(model):
    runs, count = patch_figures(model, PROTOCOL, "", patches=[0, 3, 9], seeds=[0, 1])
    assert count == 20 and [run["seed"] for run in runs] == [None, 0, 1]
    train, test = (load(None, split, None) for split in ("train", "test"))
    for n in (0, 3, 9):
        x, queries = (
            model.represent(model.preprocess.normalize(each.batch(torch.arange(len(each)))), n)
            for each in (train, test)
        )
        expected = closed_form(x, train.labels).accuracy(queries, test.labels)
        assert runs[0]["metrics"][f"linear_patches{n}"] == pytest.approx(expected)
        for seed in (0, 1):
            expected = sgd_probe(x, train.labels, queries, test.labels, seed=seed, **PROBE)
            assert runs[1 + seed]["metrics"][f"linear_sgd_patches{n}"] == pytest.approx(expected, abs=5.1)


def test_patches_see_what_the_mean_over_the_image_does_not(model):
    runs, _ = patch_figures(model, PROTOCOL, "", patches=[0, 9], seeds=[0])
    assert runs[0]["metrics"]["linear_patches9"] == 100


def test_an_augmented_probe_sees_other_images_in_every_epoch(model, monkeypatch):
    seen = []
    told = []

    def watched(*arguments, **options):
        seen.append(window_features(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr("partzoo.evaluate.probes.patches.window_features", watched)
    options = {"patches": [0, 1], "seeds": [0], "augment": True, "progress": lambda *what: told.append(what)}
    runs, _ = patch_figures(model, PROTOCOL, "", **options)
    (run,) = runs
    assert set(run["metrics"]) == {"affine_sgd_patches0", "affine_sgd_patches1"}
    test, *epochs = seen
    plain = window_features(model, images(40, 0), [4])
    assert len(epochs) == 3 and epochs[0].shape == plain.shape == (40, 2, 64)
    changed = (epochs[0] - plain).abs().amax((1, 2)) > 1e-4
    assert 0.5 < changed.float().mean() < 1
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.allclose(test, window_features(model, images(20, 1), [4]))
    assert ("epoch 3 of 3", 40, 40) in told
    again, _ = patch_figures(model, PROTOCOL, "", **options)
    assert again == runs


def test_wrong_models_and_numbers_are_refused(model):
    with pytest.raises(UsageError, match="the model is a Part"):
        patch_figures(partzoo.load("toy-vit"), PROTOCOL, "", patches=[0], seeds=[0])
    with pytest.raises(UsageError, match="patches=2 must be one of 0, 1, 3"):
        patch_figures(model, PROTOCOL, "", patches=[0, 2], seeds=[0])
    additive = partzoo.load("spatial-conv4", pretrained=False, size=32, patch_size=12, additive=True)
    with pytest.raises(UsageError, match="whole images only: use patches=0"):
        patch_figures(additive, PROTOCOL, "", patches=[9], seeds=[0])
    runs, _ = patch_figures(additive, PROTOCOL, "", patches=[0], seeds=[0])
    assert set(runs[1]["metrics"]) == {"linear_sgd_patches0"}
