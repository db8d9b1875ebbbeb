import json
import time

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo

from partzoo.bench import growth, part_step, runner
from partzoo.bench import mpae as bench_mpae
from partzoo.bench.memory import in_its_own_process
from partzoo.bench.plot import draw
from partzoo.bench.report import markdown
from partzoo.bench.runner import Case, Comparison, compared, measure, run
from partzoo.errors import PartzooError, UsageError
from partzoo.images.preprocess import Preprocess
from partzoo.models.part.relative import CrossAttentionRelativeEncoder
from partzoo.models.precision import has_bf16


class Clock:
    """A clock that advances only when the work does."""

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
    ours, peer = clock.work("A", [100, 1, 2, 1]), clock.work("B", [1, 4, 4, 6])
    result = measure(Case("x", "a", "b", 4.0, items=8, ours=ours, peer=peer), 3)
    assert clock.calls == list("ABABABAB")
    assert (result["ratio"], result["ratio_min"], result["ratio_max"]) == (4.0, 2.0, 6.0)
    assert result["ours"]["seconds"] == 1.0 and result["peer"]["seconds"] == 4.0
    assert result["ours"]["per_second"] == 8.0 and result["met"]


def test_a_cost_is_our_time_over_the_peers_and_must_stay_below_its_target(monkeypatch):
    clock = Clock(monkeypatch)
    ours, peer = clock.work("A", [9, 3]), clock.work("B", [9, 2])
    result = measure(Case("x", "a", "b", 1.4, "cost", ours=ours, peer=peer), 1)
    assert result["ratio"] == 1.5 and not result["met"]
    assert "1.50 times the time of the peer" in runner.line(result) and "missed" in runner.line(result)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if row == "engines" else ())
        for row in runner.ROWS
        if row not in runner.BUILDS
    ],
)
def test_every_row_runs_and_its_record_is_complete(row, tmp_path):
    said, out = [], tmp_path / "deep" / "bench.json"
    record = run([row], 1, out, quick=True, progress=said.append)
    assert json.loads(out.read_text()) == json.loads(json.dumps(record))
    assert record["quick"] and record["hardware"]["threads"] == torch.get_num_threads()
    assert {"cpu", "cores", "flags", "memory_gib", "load_average", "torch", "timm"} <= set(record["hardware"])
    assert len(said) == len(record["cases"]) > 0
    for case in record["cases"]:
        assert case["row"] == row and case["ratio_min"] <= case["ratio"] <= case["ratio_max"]
        assert case["ours"]["what"] and case["peer"]["what"] and len(case["ours"][f"all_{case['unit']}"]) == 1
        assert "met" not in case


def test_fp32_features_and_loaded_weights_equal_timms():
    record = run(["features", "cold-load"], 1, quick=True)
    facts = {case["name"]: case["facts"] for case in record["cases"]}
    assert facts["features, test_vit, float32"]["largest_difference"] == 0
    assert facts["features, test_vit, float32"]["part_agreement_percent"] == 100
    assert facts["features, test_vit, int8"]["cosine"] > 0.999
    if has_bf16(torch.device("cpu")):
        assert 0.99 < facts["features, test_vit, bfloat16 autocast"]["cosine"] < 1
    assert facts["cold load, test_vit"]["largest_difference_of_features"] == 0


def test_wrong_rows_and_outputs_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="cold-load, features"):
        run(["colds"])
    with pytest.raises(UsageError, match="at least 1"):
        run(["part-step"], 0)
    monkeypatch.setattr(runner, "_outcomes", None)  # nothing is measured
    (tmp_path / "file").write_text("")
    with pytest.raises(PartzooError, match="cannot be made"):
        run(out=tmp_path / "file" / "bench.json")
    for name, text in (("file", ""), ("other.json", "[7]"), ("theirs.json", '{"figures": []}')):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="is not a record of the bench"):
            run(out=tmp_path / name)
        assert (tmp_path / name).read_text() == text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "other.json", "theirs.json"]


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
    image = part_step.Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    patches, positions = part_step.PlainPatches(8, preprocess.mean, preprocess.std)(image)
    x, y = positions[5].int().tolist()
    assert patches.shape == (16, 3, 8, 8)
    assert torch.allclose(patches[5], preprocess.normalize(pixels[:, :, y : y + 8, x : x + 8])[0], atol=1e-6)


def test_the_plain_mpae_computes_the_same_as_ours():
    model, x = bench_mpae.setup(quick=True)
    expected, found = bench_mpae._peer(model, x)(), bench_mpae._ours(model, "float32", x)()
    assert found.shape == (1, 4, 96, 96)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    lower = bench_mpae.agreement(bench_mpae._ours(model, "int8", x)(), expected)
    assert lower["cosine"] > 0.99 and lower["part_agreement_percent"] > 95


def test_the_memory_of_an_mpae_is_taken_in_its_own_process():
    assert 0 < in_its_own_process("partzoo.bench.mpae", "peer", "quick") < 500


def test_the_profile_names_operators_and_shares(tmp_path):
    text = part_step.profile(tmp_path / "profile.txt", quick=True, steps=1, top=5)
    assert (tmp_path / "profile.txt").read_text() == text
    assert "PART training step" in text and "aten::" in text and "%" in text


def test_growth_is_the_most_images_over_the_next_fewer(monkeypatch):
    figures = {100: (0.5, 9.0), 1_000: (0.2, 10.0), 10_000: (0.1, 12.0)}
    calls = []

    def cost(work, folder, model, device):
        calls.append((work, int(folder.name), len(list(folder.iterdir()))))
        return dict(zip(("seconds_per_image", "mebibytes"), figures[int(folder.name) * 100 // 2], strict=True))

    monkeypatch.setattr(growth, "IMAGES", (2, 20, 200))
    monkeypatch.setattr(growth, "cost_in_its_own_process", cost)
    time, memory, *_ = growth.outcomes(False, 9)
    assert calls[:3] == [("extract_features", n, n) for n in (2, 20, 200)]
    assert len(calls) == 2 * 3
    assert (time["ratio"], time["met"], time["ours"]["per_second"]) == (0.5, True, 10.0)
    assert (memory["ratio"], memory["met"], memory["peer"]["mebibytes"]) == (1.2, False, 10.0)
    assert memory["facts"]["by_images"] == {"2": 9.0, "20": 10.0, "200": 12.0}
    assert runner.line(memory).startswith("extract_features, 200 images, peak memory: 1.20 times the memory of")


def test_the_cost_of_a_work_counts_from_the_loaded_model_and_sees_its_peak(monkeypatch, tmp_path):
    growth.write_images(tmp_path / "few", 2)
    held = np.ones(2**24)  # 128 MiB from before
    monkeypatch.setitem(growth.WORKS, "waste", lambda folder, encoder: np.ones(2**26).sum())
    # 512 MiB, less what the system takes back from this process meanwhile.
    assert 400 < growth.cost("waste", tmp_path / "few", "toy-vit")["mebibytes"] < 600
    assert held.all()


def test_a_separate_process_reports_back(tmp_path):
    growth.write_images(tmp_path / "few", 1)
    found = growth.cost_in_its_own_process("extract_features", tmp_path / "few", "toy-vit")
    assert found["seconds_per_image"] > 0 and 0.1 <= found["mebibytes"] < 500


@pytest.fixture
def record():
    """Return an invented record with a case of every kind."""
    hardware = {"cpu": "A CPU", "cores": 2, "threads": 2, "flags": ["avx512_vnni"], "gpu": None, "load_average": [0.1]}
    speed = Comparison("cold load", "ours", "theirs", 7.0, facts={"largest_difference_of_features": 0.0})
    int8 = Comparison("int8", "ours", "a|b", facts={"cosine": 0.99912, "part_agreement_percent": 99.871})
    one = Comparison("discover", "ours", "forward", 1.5, "cost", facts={"target_seconds": 1.0})
    cases = [
        {"row": "x", **compared(what, ours, peer)}
        for what, ours, peer in (
            (speed, [1.0, 1.0], [8.0, 9.0]),
            (int8, [1.0], [1.5]),
            (one, [0.3], [0.1]),
        )
    ]
    for unit, figures in (("seconds_per_image", (0.004, 0.003, 0.0033)), ("mebibytes", (17.0, 18.0, 27.0))):
        by_images = {number: [figure] for number, figure in zip(growth.IMAGES, figures, strict=True)}
        cases.append({"row": "growth", **growth._outcome("fit_parts", unit, by_images, False)})
    return {"quick": False, "repetitions": 2, "hardware": hardware | {"torch": "2", "timm": "1"}, "cases": cases}


def test_a_record_becomes_tables_of_ratios_and_of_growth(record):
    text = markdown(record)
    machine = "Measured on A CPU, 2 cores (avx512_vnni, without AMX), 2 threads, load 0.1 at the start; torch 2"
    assert text.startswith(machine)
    assert "| cold load: equal output | theirs | 8.50 times as fast (8.00 to 9.00), 1 s | at least 7: met |" in text
    assert "| int8: cosine 0.9991, parts agree on 99.87 % of pixels | a\\|b | 1.50 times" in text
    assert "| 3.00 times the time (3.00 to 3.00), 0.3 s | at most 1.5: missed; under 1 s: met |" in text
    assert "1.50 times the memory (1.50 to 1.50), 27 MiB | at most 1.1: missed |" in text
    assert "| images | 100 | 1,000 | 10,000 |" in text
    assert "| fit_parts: milliseconds per image | 4.0 | 3.0 | 3.3 |" in text
    assert "| fit_parts: peak memory, MiB | 17 | 18 | 27 |" in text


def test_a_record_is_drawn_in_the_form_that_the_ending_says(record, tmp_path):
    pytest.importorskip("matplotlib")
    draw(record, tmp_path / "bench.svg")
    assert "<svg" in (tmp_path / "bench.svg").read_text()
    draw(record | {"cases": record["cases"][:1]}, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert {file.name for file in tmp_path.iterdir()} == {"bench.svg", "one.png"}


def test_a_plot_that_cannot_be_drawn_is_refused_before_the_work(monkeypatch, tmp_path):
    monkeypatch.setattr("partzoo.bench.run", lambda *_, **__: pytest.fail("measured first"))
    ran = partzoo("bench", "--plot", tmp_path / "bench.txt")
    assert ran.code == 2 and ".png, .svg, .pdf" in ran.err
    ran = partzoo("bench", "--plot", tmp_path / "none" / "bench.png")
    assert ran.code == 1 and "there is no folder" in ran.err
