import numpy as np
import pytest
import torch

from partzoo.data.image_sets import ImageSet
from partzoo.errors import UsageError
from partzoo.evaluate.probes import classes
from partzoo.evaluate.probes.classes import classify_figures
from partzoo.evaluate.probes.held_out import part_positions, pooled_features, spatial_relations
from partzoo.evaluate.protocols import get, names
from partzoo.evaluate.protocols.classification import ClassProtocol
from partzoo.images.preprocess import Preprocess
from partzoo.models.base import Encoder, Tokens
from partzoo.models.part.model import Part, PartConfig
from partzoo.models.spatial import pairs as spatial
from partzoo.models.spatial.model import Spatial, SpatialConfig
from partzoo.models.spatial.pairs import relation_targets


class MeanColour(Encoder):
    """Four tokens: the mean colour of each quarter."""

    architecture, dim, patch = "mean-colour", 3, 1

    def __init__(self, size=8):
        super().__init__()
        self.preprocess = Preprocess(size=size)
        self.seen = []

    def encode(self, x):
        self.seen.append(tuple(x.shape))
        tokens = torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(2).mT
        return Tokens(tokens, tokens[:, :0], (2, 2))


def images(data, split, limit=None):
    """Make images of three colours, one for each class, with some noise."""
    count = {"train": 60, "test": 30}[split]
    count = count if limit is None else min(limit, count)
    rng = np.random.default_rng(len(split))
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 60, (count, 3, 8, 8), dtype=np.uint8)
    pixels[np.arange(count), labels] += 150
    return ImageSet.from_pixels(torch.from_numpy(pixels), torch.from_numpy(labels), list("abc"))


PROTOCOL = ClassProtocol(
    name="colours", load=images, classes=3, side=8, source="", rules="", get="",
    probe={"epochs": 60, "batch_size": 16, "lr": 1e-2},
)  # fmt: skip


def test_features_that_separate_the_classes_score_full_marks(tmp_path):
    runs, count = classify_figures(MeanColour(), PROTOCOL, tmp_path, seeds=range(2))
    assert count == 30
    assert runs == [
        {"k": None, "seed": None, "metrics": {"knn": 100.0, "linear": 100.0}},
        {"k": None, "seed": 0, "metrics": {"linear_sgd": 100.0}},
        {"k": None, "seed": 1, "metrics": {"linear_sgd": 100.0}},
    ]


def test_every_image_is_encoded_once_for_all_seeds(tmp_path):
    model = MeanColour()
    classify_figures(model, PROTOCOL, tmp_path, seeds=range(3), limit=20)
    assert model.seen == [(20, 3, 8, 8), (20, 3, 8, 8)]


def test_images_are_resized_to_the_models_size():
    model = MeanColour(size=12)
    features = pooled_features(model, images("", "test"), batch_size=8)
    assert {shape[2:] for shape in model.seen} == {(12, 12)} and features.dtype == torch.float32
    assert torch.allclose(features, pooled_features(MeanColour(), images("", "test")), atol=0.15)


def test_progress_counts_images_and_seeds(tmp_path):
    told = []
    classify_figures(MeanColour(), PROTOCOL, tmp_path, seeds=range(2), limit=20, progress=lambda *now: told.append(now))
    assert told == [
        ("training features", 20, 20), ("test features", 20, 20), ("probes", 0, 2), ("probes", 1, 2), ("probes", 2, 2),
    ]  # fmt: skip


def small_part():
    torch.manual_seed(0)
    return Part(PartConfig(dim=24, depth=1, heads=2, patch=2, size=8)).eval().requires_grad_(False)


def test_part_models_predict_positions_for_each_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "POSITION_IMAGES", 12)
    runs, _ = classify_figures(small_part(), PROTOCOL, tmp_path, seeds=[0, 7])
    first, second = (run["metrics"] for run in runs[1:])
    errors = ["mse_x", "mse_y", "distance"]
    names = [*errors, *(f"constant_{name}" for name in errors), "antisymmetry", "random_antisymmetry"]
    assert list(first) == ["linear_sgd", *names] and first["mse_x"] != second["mse_x"]
    again = part_positions(small_part(), images("", "test", 12), seed=7)
    assert {name: second[name] for name in names} == pytest.approx({name: again[name] for name in names}, rel=1e-5)


def test_untrained_positions_are_no_better_than_their_floors():
    found = part_positions(small_part(), images("", "test"))
    # Of 4 x 4 patches in an image: variance 9 / 6 each way.
    assert found["constant_mse_x"] == pytest.approx(1.5, rel=0.15)
    assert found["mse_x"] > 0.9 * found["constant_mse_x"]
    assert found["loss"] == pytest.approx((found["mse_x"] + found["mse_y"]) / 2)


def test_positions_are_predicted_in_the_models_precision():
    exact, rounded = (part_positions(small_part().to(dtype), images("", "test")) for dtype in (None, torch.bfloat16))
    assert rounded["constant_mse_x"] == exact["constant_mse_x"] and rounded["mse_x"] != exact["mse_x"]
    assert rounded["mse_x"] == pytest.approx(exact["mse_x"], rel=0.01)


def small_spatial(patch_size=12, **config):
    torch.manual_seed(0)
    return Spatial(SpatialConfig("conv4", 32, patch_size, **config)).eval().requires_grad_(False)


def test_spatial_models_predict_relations_for_each_seed(tmp_path):
    runs, _ = classify_figures(small_spatial(), PROTOCOL, tmp_path, seeds=[0, 7], limit=20)
    first, second = (run["metrics"] for run in runs[1:])
    assert list(first) == ["linear_sgd", "same", "shift_error", "constant_shift_error"]
    assert first["constant_shift_error"] != second["constant_shift_error"]


def test_large_patches_may_overlap_and_a_single_image_has_no_negatives():
    model = small_spatial(patch_size=20)
    found = spatial_relations(model, images("", "test", 8), batch_size=4)
    assert found == spatial_relations(model, images("", "test", 9), batch_size=4)


@pytest.mark.parametrize("additive", [False, True])
def test_who_knows_the_relations_makes_no_error(additive, monkeypatch):
    model = small_spatial(additive=additive)
    drawn = []
    monkeypatch.setattr(
        spatial, "relation_targets", lambda *given, **how: drawn.append(relation_targets(*given, **how)) or drawn[-1]
    )
    guessed = spatial_relations(model, images("", "test", 8), seed=3)
    truths = iter(list(drawn))
    model.relation.forward = lambda a, b: next(truths) - torch.tensor([0, 0, 0.5])
    known = spatial_relations(model, images("", "test", 8), seed=3)
    assert known["same"] == 100 > guessed["same"] and known["shift_error"] < 1e-4 < guessed["shift_error"]
    # Two patches of 3/8 of the side each, side by side at least: 3/8 to sqrt(2) 5/8 of the side apart.
    assert 37 < known["constant_shift_error"] == guessed["constant_shift_error"] < 89


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_positions_are_drawn_where_the_model_is():
    assert part_positions(small_part().cuda(), images("", "test"))["constant_mse_x"] == pytest.approx(1.5, rel=0.15)


class Knowing(Part):
    """A model that returns the true positions, which the test paints into the patches."""

    def relate(self, patches, pairs=None):
        places = patches.mean((-1, -2))[:, :, :2]
        return (places[:, None] - places[:, :, None]).flatten(1, 2)


def test_true_translations_have_no_error_and_no_asymmetry():
    y, x = torch.meshgrid(torch.arange(8) * 8, torch.arange(8) * 8, indexing="ij")
    ramp = torch.stack([x, y, y])[None].byte().repeat(5, 1, 1, 1)
    model = Knowing(PartConfig(dim=24, depth=1, heads=2, patch=2, size=8))
    # A step of one patch is 16 of 255.
    model.preprocess = Preprocess(size=8, mean=(0, 0, 0), std=(16 / 255,) * 3)
    found = part_positions(model, ImageSet.from_pixels(ramp, None, []))
    assert found["distance"] < 0.1 * found["constant_distance"]
    assert found["antisymmetry"] < 1e-5 < 1 < found["random_antisymmetry"]


def test_the_protocols_of_classes_are_found_by_name():
    for name in ("tiny-imagenet", "cifar-10", "cifar-100", "cifar-100-20", "stl-10"):
        protocol = get(name)
        assert protocol.name == name and isinstance(protocol, ClassProtocol) and name in names()
    assert get("coco-detection").name == "coco-detection" and get("physionet-2018").name == "physionet-2018"


def test_missing_data_stops_before_anything_is_encoded(tmp_path):
    model = MeanColour()
    with pytest.raises(UsageError, match="cifar-10 needs"):
        classify_figures(model, get("cifar-10"), tmp_path, seeds=[0])
    assert model.seen == []
