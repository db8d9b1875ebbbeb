"""The network that classifies cells."""

import torch

from partzoo.discovery.network import fit_network


def found(network, x):
    one = torch.ones(len(x), 1)
    units = (torch.cat([x, one], 1) @ network.hidden.T).relu()
    return (torch.cat([units, one], 1) @ network.output.T).argmax(1)


def test_a_network_separates_what_no_linear_classifier_can_and_leaves_the_random_numbers_alone():
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long() + 1
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    network = fit_network(x[:1000], y[:1000], torch.ones(1000), 3, groups=2)
    assert torch.rand(1) == expected
    assert (found(network, x[1000:]) == y[1000:]).float().mean() > 0.9
    again = fit_network(x[:1000], y[:1000], torch.ones(1000), 3, groups=2)
    other = fit_network(x[:1000], y[:1000], torch.ones(1000), 3, groups=2, seed=1)
    assert torch.equal(again.hidden, network.hidden) and not torch.equal(other.hidden, network.hidden)


def test_rare_classes_count_more_than_their_share_and_examples_as_their_weights():
    """Of the examples with a feature, 40 % belong to a class that has 4 % of all examples."""
    x, y = torch.zeros(2000, 9), torch.zeros(2000, dtype=torch.long)
    x[:200], y[:80] = 1, 1
    seen = torch.stack([torch.zeros(9), torch.ones(9)])
    assert found(fit_network(x, y, torch.ones(2000), 2, groups=2), seen).tolist() == [0, 1]
    assert found(fit_network(x, y, torch.where(y == 1, 0.1, 1.0), 2, groups=2), seen).tolist() == [0, 0]
