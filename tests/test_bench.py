import json
import time

import pytest
import torch

from partzoo.bench import part_step, runner
from partzoo.bench.runner import Case, measure, run
from partzoo.encoders.base import Preprocess
from partzoo.errors import UsageError
from partzoo.models.part import CrossAttentionRelativeEncoder


class Clock:
    """A clock that the work itself moves."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, name, seconds):
        durations = iter(seconds)

        def run():
            self.calls.append(name)
            self.now += next(durations)

        return run


def test_pairs_alternate_and_the_first_is_not_counted(monkeypatch):
    clock = Clock(monkeypatch)
    case = Case("x", clock.work("A", [100, 1, 2, 1]), clock.work("B", [1, 4, 4, 6]), "a", "b", 4.0, items=8)
    result = measure(case, 3)
    assert clock.calls == list("ABABABAB")
    assert (result["ratio"], result["ratio_min"], result["ratio_max"]) == (4.0, 2.0, 6.0)
    assert result["ours"]["seconds"] == 1.0 and result["peer"]["seconds"] == 4.0
    assert result["ours"]["per_second"] == 8.0 and result["met"]


def test_a_cost_is_our_time_over_the_peers_and_must_stay_below_its_target(monkeypatch):
    clock = Clock(monkeypatch)
    case = Case("x", clock.work("A", [9, 3]), clock.work("B", [9, 2]), "a", "b", 1.4, "cost")
    result = measure(case, 1)
    assert result["ratio"] == 1.5 and not result["met"]
    assert "1.50 times the time of the peer" in runner.line(result) and "missed" in runner.line(result)


@pytest.mark.parametrize("row", runner.ROWS)
def test_every_row_runs_and_its_record_is_complete(row, tmp_path):
    said, out = [], tmp_path / "deep" / "bench.json"
    record = run([row], 1, out, quick=True, progress=said.append)
    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    assert record["quick"] and record["hardware"]["threads"] == torch.get_num_threads()
    assert {"cpu", "cores", "flags", "memory_gib", "load_average", "torch", "timm"} <= set(record["hardware"])
    assert len(said) == len(record["cases"]) > 0
    for case in record["cases"]:
        assert case["row"] == row and case["ratio_min"] <= case["ratio"] <= case["ratio_max"]
        assert case["ours"]["what"] and case["peer"]["what"] and len(case["ours"]["all_seconds"]) == 1
        assert "met" not in case


def test_fp32_features_and_loaded_weights_equal_timms():
    record = run(["features", "cold-load"], 1, quick=True)
    facts = {case["name"]: case["facts"] for case in record["cases"]}
    assert facts["features, test_vit, float32"]["largest_difference"] == 0
    assert facts["features, test_vit, float32"]["part_agreement_percent"] == 100
    assert facts["features, test_vit, int8"]["cosine"] > 0.999
    assert facts["cold load, test_vit"]["largest_difference_of_features"] == 0


def test_wrong_rows_and_outputs_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cold-load, features"):
        run(["colds"])
    with pytest.raises(UsageError, match="at least one"):
        run(["part-step"], 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        runner.write({}, tmp_path / "file" / "bench.json")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_plain_relative_encoder_computes_the_same_as_ours():
    torch.manual_seed(0)
    plain, ours = part_step.PlainRelativeEncoder(24, 2), CrossAttentionRelativeEncoder(24, 2)
    weights = plain.attention.in_proj_weight.chunk(3)
    biases = plain.attention.in_proj_bias.chunk(3)
    with torch.no_grad():
        for layer, weight, bias in zip((ours.query, ours.key, ours.value), weights, biases, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        ours.out.load_state_dict(plain.attention.out_proj.state_dict())
        ours.pair.load_state_dict(plain.pair.state_dict())
        ours.head.load_state_dict(plain.head.state_dict())
    tokens = torch.randn(2, 9, 24)
    assert torch.allclose(plain(tokens), ours(tokens), atol=1e-5)


def test_the_plain_patches_are_cut_where_they_say():
    preprocess = Preprocess()
    pixels = part_step._pixels(1, 32)
    picture = part_step.Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    patches, positions = part_step.PlainPatches(8, preprocess.mean, preprocess.std)(picture)
    x, y = positions[5].int().tolist()
    assert patches.shape == (16, 3, 8, 8)
    assert torch.allclose(patches[5], preprocess.normalize(pixels[:, :, y : y + 8, x : x + 8])[0], atol=1e-6)


def test_the_profile_names_operators_and_shares(tmp_path):
    text = part_step.profile(tmp_path / "profile.txt", quick=True, steps=1, top=5)
    assert (tmp_path / "profile.txt").read_text() == text
    assert "PART training step" in text and "aten::" in text and "%" in text
