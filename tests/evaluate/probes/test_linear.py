import numpy as np
import pytest
import torch

from partzoo.errors import ShapeError, UsageError
from partzoo.evaluate.probes import linear
from partzoo.evaluate.probes.linear import PENALTIES, closed_form, logistic, ridge, sgd_probe


def clusters(count, channels=6, classes=4, noise=1.0, seed=0):
    """Features about a corner of their class each, far from the origin, in float64."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    corners = torch.eye(classes, channels, dtype=torch.float64) * 6
    features = corners[labels] + noise * torch.randn(count, channels, generator=generator, dtype=torch.float64) + 5
    return features, labels


def test_ridge_by_hand():
    # Centred, x is -1, 0, 1 and the first target 2/3, -1/3, -1/3: its weight is -1 / (2 + penalty).
    found = ridge(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 1]), penalty=2.0)
    assert found.weight.tolist() == [[pytest.approx(-0.25)], [pytest.approx(0.25)]]
    assert found.bias.tolist() == pytest.approx([1 / 3 + 0.5, 2 / 3 - 0.5])
    assert found.classify(torch.tensor([[1.0], [3.0]])).tolist() == [0, 1]


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 100.0])
def test_ridge_agrees_with_scikit_learn(penalty):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = clusters(5000, noise=3.0)
    theirs = linear_model.Ridge(alpha=penalty).fit(features.numpy(), np.eye(4)[labels.numpy()])
    ours = ridge(features, labels, penalty)
    assert ours.weight.numpy() == pytest.approx(theirs.coef_, abs=1e-9)
    assert ours.bias.numpy() == pytest.approx(theirs.intercept_, abs=1e-9)


def test_ridge_of_collinear_features_is_finite():
    features, labels = clusters(50)
    twice = torch.cat([features, features], dim=1).float()
    assert ridge(twice, labels, 1e-6).weight.isfinite().all()
    assert closed_form(torch.zeros(20, 3), labels[:20]).weight.isfinite().all()


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_logistic_agrees_with_scikit_learn(penalty, monkeypatch):
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr(linear, "CHUNK", 256)
    features, labels = clusters(600, noise=3.0)
    theirs = linear_model.LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-10, max_iter=5000)
    theirs.fit(features.numpy(), labels.numpy())
    ours = logistic(features, labels, penalty, tolerance=1e-9)
    assert ours.weight.numpy() == pytest.approx(theirs.coef_, abs=1e-5)
    # Only differences between the classes' intercepts are determined.
    assert (ours.bias - ours.bias.mean()).numpy() == pytest.approx(
        theirs.intercept_ - theirs.intercept_.mean(), abs=1e-4
    )


def test_separable_features_are_read_without_error_by_every_probe():
    (features, labels), (test, truth) = clusters(400, noise=0.3), clusters(100, noise=0.3, seed=1)
    assert closed_form(features, labels).accuracy(test, truth) == 100
    assert logistic(features, labels, 1e-3).accuracy(test, truth) == 100
    assert sgd_probe(features, labels, test, truth, epochs=40, lr=1e-2, batch_size=32) == 100
    options = {"optimizer": "sgd", "schedule": "cosine", "standardize": True, "lr": 0.1}
    assert sgd_probe(features, labels, test, truth, epochs=5, batch_size=32, **options) == 100


def test_closed_form_does_not_depend_on_the_features_length():
    (features, labels), (test, _) = clusters(300, noise=4.0), clusters(100, noise=4.0, seed=1)
    found = closed_form(features, labels).classify(test)
    assert torch.equal(found, closed_form(features * 1e-3, labels).classify(test * 1e-3))


def test_closed_form_penalizes_more_where_channels_are_noise():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (120,), generator=generator)
    noise = torch.randn(120, 300, generator=generator, dtype=torch.float64)
    noisy = closed_form(noise, labels).weight.norm()
    features, labels = clusters(120, noise=0.3)
    assert noisy < ridge(noise, labels, 1e-6).weight.norm() / 2
    assert closed_form(features, labels).accuracy(features, labels) == 100


def test_closed_form_takes_the_penalty_that_is_best_on_a_tenth_and_fits_all_images():
    features, labels = clusters(100, channels=60, noise=3.0)
    rest = torch.arange(100) % 10 != 0

    def unit(x):
        return (x - x.mean(0)).square().sum().item() / x.shape[1]

    def held_out(penalty):
        found = ridge(features[rest], labels[rest], penalty * unit(features[rest]))
        return found.accuracy(features[~rest], labels[~rest])

    best = max(PENALTIES, key=lambda penalty: (held_out(penalty), penalty))
    expected = ridge(features, labels, best * unit(features))
    assert torch.allclose(closed_form(features, labels).weight, expected.weight, atol=1e-12)
    assert held_out(best) > held_out(PENALTIES[0])


def step_of_adam(features, labels, weight, bias, lr):
    """The first step of Adam, in numpy: every parameter moves by lr against the sign of its gradient."""
    scores = features @ weight.T + bias
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    gradient = (probability - np.eye(len(bias))[labels]) / len(labels)
    return weight - lr * np.sign(gradient.T @ features), bias - lr * np.sign(gradient.sum(0))


def test_one_step_of_the_papers_probe_is_adams():
    features, labels = clusters(60, channels=3, classes=3, noise=2.0)
    test, truth = clusters(200, channels=3, classes=3, noise=2.0, seed=1)
    found = sgd_probe(features, labels, test, truth, epochs=1, batch_size=60, lr=0.3, seed=4)
    generator, bound = torch.Generator().manual_seed(4), 3**-0.5
    weight, bias = (torch.empty(shape).uniform_(-bound, bound, generator=generator) for shape in ((3, 3), (3,)))
    weight, bias = step_of_adam(features.numpy(), labels.numpy(), weight.numpy(), bias.numpy(), 0.3)
    expected = (test.numpy() @ weight.T + bias).argmax(1) == truth.numpy()
    assert found == pytest.approx(100 * expected.mean())


def test_the_trained_probe_nears_its_optimum():
    (features, labels), (test, truth) = clusters(600, noise=3.0), clusters(400, noise=3.0, seed=1)
    found = sgd_probe(features, labels, test, truth, epochs=60, batch_size=64, lr=1e-2)
    assert found == pytest.approx(logistic(features, labels, 0.0).accuracy(test, truth), abs=2.0)


def test_the_trained_probe_is_repeatable_and_depends_on_its_seed_alone():
    (features, labels), (test, truth) = clusters(200, noise=4.0), clusters(500, noise=4.0, seed=1)

    def run(seed):
        return sgd_probe(features, labels, test, truth, epochs=2, batch_size=16, seed=seed)

    first = run(0)
    torch.manual_seed(99)
    assert run(0) == first
    assert len({run(seed) for seed in range(6)}) > 1


def test_features_that_are_frozen_stay_so():
    features, labels = clusters(50)
    kept = features.clone()
    with torch.inference_mode():
        inference = features.float()
    sgd_probe(inference, labels, inference, labels, epochs=1)
    logistic(features, labels, 1e-3)
    closed_form(features, labels)
    assert torch.equal(features, kept)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"optimizer": "lars"}, {"schedule": "step"}])
def test_options_out_of_range_are_refused(wrong):
    features, labels = clusters(20)
    with pytest.raises(UsageError):
        sgd_probe(features, labels, features, labels, **wrong)


def test_shapes_and_penalties_are_checked():
    features, labels = clusters(20)
    for probe in (closed_form, lambda *both: ridge(*both, 1.0), lambda *both: logistic(*both, 1.0)):
        with pytest.raises(ShapeError):
            probe(features, labels[:-1])
    with pytest.raises(UsageError, match="penalty=0"):
        ridge(features, labels, 0)
    with pytest.raises(UsageError, match="penalty=-1"):
        logistic(features, labels, -1)
