import pytest
import torch
from timm.optim.muon import zeropower_via_newtonschulz

from partzoo.train import muon


def made_orthogonal(gradient, **options):
    return zeropower_via_newtonschulz(gradient, 5, [(3.4445, -4.7750, 2.0315)], **options)


@pytest.mark.parametrize("native", [False, True])
def test_steps_are_as_exact_as_the_device_is_fast(monkeypatch, native):
    monkeypatch.setattr(muon, "has_bf16", lambda device: native)
    gradient = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    weights = torch.nn.Parameter(torch.zeros(8, 16))
    weights.grad = gradient.clone()
    muon.Muon([weights], lr=1.0, weight_decay=0.0, ns_coefficients=(3.4445, -4.7750, 2.0315)).step()
    step = weights.detach() / weights.detach().norm()
    exact = made_orthogonal(gradient, dtype=torch.float64).neg().float()
    error = (step - exact / exact.norm()).abs().max()
    assert (error > 1e-4) if native else (error < 1e-6)


def test_a_step_leaves_timm_as_it_was(monkeypatch):
    monkeypatch.setattr(muon, "has_bf16", lambda device: False)
    weights = torch.nn.Parameter(torch.ones(4, 8))
    weights.grad = torch.randn(4, 8)
    muon.Muon([weights]).step()
    assert muon.muon.zeropower_via_newtonschulz is zeropower_via_newtonschulz
