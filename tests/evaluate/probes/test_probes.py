import pytest
import torch

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.probes.knn import knn_accuracy, knn_classify
from partzoo.evaluate.probes.positions import antisymmetry, position_error
from partzoo.models.part.sampling import relative_targets

TRAIN = torch.tensor([[1.0, 0.0], [0.9, 0.5], [0.8, 0.6], [0.0, 2.0]])
LABELS = torch.tensor([1, 0, 0, 2])


def test_vote_by_hand():
    query = torch.tensor([[5.0, 0.0]])
    assert knn_classify(query, TRAIN, LABELS, neighbours=1).tolist() == [1]
    assert knn_classify(query, TRAIN, LABELS, neighbours=3, vote="plain").tolist() == [0]
    # exp(1 / 0.07) outweighs exp(0.874 / 0.07) + exp(0.8 / 0.07).
    assert knn_classify(query, TRAIN, LABELS, neighbours=3).tolist() == [1]
    assert knn_classify(query, TRAIN, LABELS, neighbours=3, temperature=10.0).tolist() == [0]


def test_a_tie_goes_to_the_lower_class():
    train = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    assert knn_classify(torch.tensor([[1.0, 0.0]]), train, torch.tensor([3, 2]), neighbours=2).tolist() == [2]


@pytest.mark.parametrize("vote", ["weighted", "plain"])
def test_batch_size_and_feature_length_change_nothing(vote):
    generator = torch.Generator().manual_seed(0)
    train, queries = torch.randn(60, 8, generator=generator), torch.randn(23, 8, generator=generator)
    labels = torch.randint(0, 5, (60,), generator=generator)
    whole = knn_classify(queries, train, labels, neighbours=7, vote=vote)
    pieces = knn_classify(queries * 3, train * 0.1, labels, neighbours=7, vote=vote, batch_size=4)
    assert torch.equal(whole, pieces)


def test_agrees_with_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    generator = torch.Generator().manual_seed(1)
    train, queries = torch.randn(80, 6, generator=generator), torch.randn(40, 6, generator=generator)
    labels = torch.randint(0, 4, (80,), generator=generator)
    theirs = neighbors.KNeighborsClassifier(9, metric="cosine", algorithm="brute").fit(train.numpy(), labels.numpy())
    ours = knn_classify(queries, train, labels, neighbours=9, vote="plain")
    assert (ours.numpy() == theirs.predict(queries.numpy())).all()


def test_accuracy_of_the_training_set_on_itself_is_full():
    assert knn_accuracy(TRAIN, LABELS, TRAIN, LABELS, neighbours=1) == 100.0
    assert knn_accuracy(TRAIN, LABELS.flip(0), TRAIN, LABELS, neighbours=1) == 50.0


@pytest.mark.parametrize("wrong", [{"neighbours": 0}, {"neighbours": 5}, {"vote": "loud"}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        knn_classify(TRAIN, TRAIN, LABELS, **{"neighbours": 1, **wrong})


def test_position_error_by_hand():
    true = torch.tensor([[[3.0, 4.0], [-1.0, 0.0]]])
    predicted = torch.tensor([[[0.0, 0.0], [-1.0, 2.0]]])
    assert position_error(predicted, true) == pytest.approx(
        {
            "mse_x": 4.5,
            "mse_y": 10.0,
            "distance": 3.5,
            "constant_mse_x": 5.0,
            "constant_mse_y": 8.0,
            "constant_distance": 3.0,
        }
    )


def test_constant_predictor_on_an_eight_by_eight_image():
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(2, 200_000, 2, generator=generator) * 7
    errors = position_error(torch.zeros(200_000, 2), positions[0] - positions[1])
    assert errors["mse_x"] == errors["constant_mse_x"] == pytest.approx(49 / 6, rel=0.02)
    assert errors["constant_mse_y"] == pytest.approx(49 / 6, rel=0.02)


def test_relative_sizes_are_left_out():
    generator = torch.Generator().manual_seed(0)
    predicted, true = torch.randn(2, 5, 4, generator=generator)
    assert position_error(predicted, true) == position_error(predicted[:, :2], true[:, :2])


def test_shapes_that_do_not_agree_are_refused():
    with pytest.raises(ShapeError):
        position_error(torch.zeros(3, 2), torch.zeros(4, 2))
    with pytest.raises(ShapeError):
        knn_classify(torch.zeros(2, 3), TRAIN, LABELS)


def test_antisymmetry_of_true_translations_is_zero():
    positions = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)) * 56
    true = relative_targets(positions, 8).unflatten(1, (5, 5))
    assert antisymmetry(true) == 0
    assert antisymmetry(true, true.roll(2, 1)) > 1


def test_antisymmetry_by_hand():
    matrix = torch.zeros(3, 3, 2)
    matrix[0, 1], matrix[1, 0] = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])
    # |(3, 4)| there and back, of six ordered pairs; a patch as seen from itself does not count.
    matrix[1, 1] = 7
    assert antisymmetry(matrix) == pytest.approx(2 * 5 / 6)
    assert antisymmetry(torch.cat([matrix, torch.ones(3, 3, 2)], -1)[None]) == pytest.approx(2 * 5 / 6)


@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2), (1, 1, 2), (3, 3, 3)])
def test_antisymmetry_needs_a_square_of_translations(shape):
    with pytest.raises(ShapeError):
        antisymmetry(torch.zeros(shape))
