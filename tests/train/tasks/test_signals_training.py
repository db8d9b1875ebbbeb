import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from helpers.edf import write_edf

from partzoo.errors import UsageError
from partzoo.evaluate.protocols.physionet import PHYSIONET_2018, STAGES
from partzoo.locks import locked
from partzoo.models.loading import build, load
from partzoo.models.part.sampling import SAMPLINGS
from partzoo.models.part.signal_model import SignalPart, SignalPartConfig
from partzoo.models.registry import find
from partzoo.signals import write_nights
from partzoo.skipping import SkippedWarning
from partzoo.train.recipe import read_recipe
from partzoo.train.run import train
from partzoo.train.stages import COLUMNS, StagesTask, few_of_each, means, sample_efficiency, with_classes
from partzoo.train.tasks import methods
from partzoo.train.tasks.part_signals import PartSignalsTask
from partzoo.train.windows import SignalOptions, WindowSet, labelled, read_nights, read_windows

pytest.importorskip("scipy")
SMALL = {"dim": 24, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    return write_nights(tmp_path_factory.mktemp("nights"), 5, windows=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def pretrained(nights, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    read = {"held_out": 2, "cache": cache}
    train("part-signals", data=nights, out=out, steps=2, batch_size=4, config=SMALL, reading=read, progress=False)
    return out / "model.safetensors"


def ramps(count=8):
    """Windows whose level is the time: when a patch was can be read off it."""
    ramp = torch.linspace(-1.7, 1.7, 3000).expand(count, 2, -1).clone()
    ramp[:, 1] *= -1
    return ramp


def fitted(task, windows, labels, steps, lr=3e-3):
    optimizer = torch.optim.AdamW(task.parameters(), lr=lr)
    for step in range(steps):
        terms = task(windows, labels, 0.0, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    return {name: term.item() for name, term in terms.items()}


# Reading


def test_windows_of_several_nights_are_found_by_number():
    nights = [np.full((count, 2, 5), 10 * i) + np.arange(count)[:, None, None] for i, count in enumerate((3, 0, 2))]
    windows = WindowSet(nights, torch.arange(5), ["a"])
    found = windows.batch(torch.tensor([4, 0, 2, 3]))
    assert found.shape == (4, 2, 5) and found.dtype == torch.float32
    assert found[:, 0, 0].tolist() == [21, 0, 2, 20]
    few = WindowSet(nights, torch.arange(5), limit=2)
    assert len(few) == 2 and few.labels.tolist() == [0, 2]
    assert sorted(torch.cat([next(windows.epochs(5, 0))]).tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(UsageError, match="no whole window"):
        WindowSet([nights[1]])


def test_all_but_the_held_out_are_pretrained_on_and_read_once(nights, cache, monkeypatch):
    options = SignalOptions(held_out=2, cache=cache)
    windows = read_windows(nights, options, progress=False)
    rules = replace(PHYSIONET_2018, test_subjects=2, train_subjects=1)
    test = {record.name for record in rules.records(nights, "test")}
    kept = rules.unlabelled(nights)
    assert len(windows) == 3 * 4 and len(kept) == 3 and not test & {record.name for record in kept}
    expected = np.concatenate([rules.read_unlabelled(record) for record in kept])
    np.testing.assert_allclose(windows.batch(torch.arange(12)).numpy(), expected, atol=5e-3)

    def again(self, record):
        raise AssertionError("read again")

    monkeypatch.setattr(type(rules), "read_unlabelled", again)
    assert torch.equal(
        read_windows(nights, options, progress=False).batch(torch.tensor([5])), windows.batch(torch.tensor([5]))
    )


def test_the_challenge_s_unlabelled_folder_is_pretrained_on_too(nights, tmp_path):
    (tmp_path / "training").symlink_to(nights / "training")
    (tmp_path / "test").symlink_to(nights / "training")
    rules = replace(PHYSIONET_2018, test_subjects=4)
    assert [record.parent.name for record in rules.unlabelled(tmp_path)] == ["training"] + 5 * ["test"]
    with pytest.raises(UsageError, match="all of the 200 that are held out"):
        PHYSIONET_2018.unlabelled(nights)


def test_nights_keep_their_stages(nights, cache):
    records = sorted((nights / "training").iterdir())
    found = read_nights(records, cache, progress=False)
    for night, record in zip(found, records, strict=True):
        expected = PHYSIONET_2018.read(record)
        assert night.record == record.name and np.array_equal(night.stages, expected.stages)
        np.testing.assert_allclose(night.windows, expected.windows, atol=5e-3)
    windows = labelled(found, STAGES)
    assert windows.labels.tolist() == np.concatenate([night.stages for night in found]).tolist()


def test_a_folder_of_edf_is_pretrained_on(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "c.txt").write_text("c.txt")
    for name in ("a.edf", "deep/B.EDF"):
        write_edf(tmp_path / name, ["C3", "C4"], 30 * np.random.default_rng(0).normal(size=(2, 70 * 128)), 128)
    options = SignalOptions(layout="edf", channels=("C3", "C4"), cache=str(tmp_path / "cache"))
    found = read_windows(tmp_path, options, progress=False)
    assert len(found) == 4 and found.batch(torch.tensor([0])).shape == (1, 2, 3000)
    with pytest.raises(UsageError, match=r"2 channels and 3000 samples: set config\.channels, which is 6"):
        PartSignalsTask.read(tmp_path, options, SignalPartConfig(), 0)
    with pytest.raises(UsageError, match=r"has no \.edf files"):
        read_windows(tmp_path / "cache", options)


# Pretraining


@pytest.mark.parametrize("sampling", ["integer", "off-grid", "on-grid"])
def test_times_that_show_are_learned(sampling):
    torch.manual_seed(0)
    task = PartSignalsTask(SignalPart(SignalPartConfig(**SMALL, channels=2)), sampling=sampling)
    first = task(ramps(), None, 0.0, torch.Generator().manual_seed(0))["loss"].item()
    # Two uniform times in 0..29 differ by 29^2 / 6 in the mean of the square.
    assert first == pytest.approx(29**2 / 6, rel=0.15)
    assert fitted(task, ramps(), None, 70, lr=1e-2)["loss"] < first / 4


def related(monkeypatch, pixels, model=None, **options):
    """Return the patches ``(B, N, C, P)`` that the model receives, and the pairs to predict."""
    model, shown = model or SignalPart(SignalPartConfig(**SMALL, channels=2)), []

    def relate(patches, pairs=None):
        shown[:] = [patches, pairs]
        asked = patches.shape[1] ** 2 if pairs is None else pairs.shape[1]
        return patches.new_zeros(len(patches), asked, 1)

    monkeypatch.setattr(model, "relate", relate)
    PartSignalsTask(model, **options)(pixels, None, 0.0, torch.Generator().manual_seed(0))
    return shown


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_patches_follow_the_sampling(sampling, monkeypatch):
    times = torch.arange(3000.0).expand(4, 2, -1)
    patches, _ = related(monkeypatch, times, sampling=sampling)
    assert patches.shape == (4, 30 if sampling == "on-grid" else 40, 2, 100)
    starts, steps = patches[:, :, 0, 0], patches[:, :, 0, 51] - patches[:, :, 0, 50]
    whole, cells = ((starts % unit == 0).float().mean() for unit in (1, 100))
    if sampling == "on-grid":
        assert torch.equal(starts.sort(1).values, 100.0 * torch.arange(30).expand(4, -1))
    assert whole == 1 if sampling in ("integer", "on-grid") else whole < 0.2
    assert cells == 1 if sampling == "on-grid" else cells < 0.2
    lowest, highest = (0.5, 2.0) if sampling == "multi-scale" else (1.0, 1.0)
    assert steps.min().item() == pytest.approx(lowest, abs=0.1)
    assert steps.max().item() == pytest.approx(highest, abs=0.1)


def test_the_requested_numbers_of_patches_and_pairs_are_used(monkeypatch):
    model = SignalPart(SignalPartConfig(**SMALL, channels=2, patches=12))
    patches, pairs = related(monkeypatch, ramps(), model)
    assert patches.shape[1] == 12 and pairs is None
    assert related(monkeypatch, ramps(), model, pairs=7)[1].shape == (8, 7, 2)


def test_options_are_checked():
    with pytest.raises(UsageError, match="sampling='anywhere'"):
        PartSignalsTask(SignalPart(SignalPartConfig(**SMALL)), sampling="anywhere")
    with pytest.raises(UsageError, match=r"config\.classes=5"):
        PartSignalsTask(SignalPart(SignalPartConfig(**SMALL, classes=5)))
    with pytest.raises(UsageError, match="masked=1"):
        StagesTask(SignalPart(SignalPartConfig(**SMALL, classes=5)), masked=1)


def test_the_recipe_has_the_paper_s_settings():
    recipe = read_recipe("part-vit1d.physionet")
    config = find(recipe.architecture).config
    assert methods()[recipe.method] is PartSignalsTask and recipe.epochs == 1000 and recipe.data["held_out"] == 200
    assert (config.channels, config.size, config.patch, config.patches) == (6, 30 * 100, 100, 40)


# Finetuning


def test_finetuning_starts_from_the_pretrained_encoder(pretrained):
    source = load(pretrained, device="cpu", dtype="float32")
    torch.manual_seed(1)
    taken, scratch = with_classes(source, 5), with_classes(source, 5, scratch=True)
    for name, value in source.state_dict().items():
        if not name.startswith("relative_encoder"):
            assert torch.equal(taken.state_dict()[name], value), name
    assert not torch.equal(scratch.patch_embed.weight, source.patch_embed.weight)
    assert taken.config.classes == 5 and scratch.config == taken.config and taken.architecture == "part-vit1d"
    assert all(parameter.requires_grad for parameter in taken.parameters())


def test_classes_that_show_are_learned_with_masked_positions():
    torch.manual_seed(0)
    model = build(find("part-vit1d"), SignalPartConfig(**SMALL, channels=2, classes=2))
    times = torch.arange(3000) / 100
    labels = torch.arange(16) % 2
    waves = torch.sin(2 * torch.pi * torch.where(labels == 0, 2, 9)[:, None] * times + torch.arange(16)[:, None])
    terms = fitted(StagesTask(model), waves[:, None].expand(-1, 2, -1), labels, 60)
    assert terms["accuracy"] == 1 and terms["loss"] < 0.1


@pytest.mark.parametrize("masked", [0.0, 0.2, 0.5])
def test_the_requested_share_of_positions_is_masked(masked):
    model = SignalPart(SignalPartConfig(**SMALL, channels=2, classes=2))
    torch.nn.init.constant_(model.positions, 1e3)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    labels = torch.arange(8) % 2
    StagesTask(model, masked=masked)(ramps(), labels, 0.0, torch.Generator().manual_seed(0))
    assert ((seen[0][:, 1:].mean(-1) > 500).sum(1) == round(30 * (1 - masked))).all()


def test_sample_efficiency_writes_a_row_for_each_training_and_goes_on(nights, cache, pretrained, tmp_path):
    options = {"subjects": (1, None), "seeds": 2, "test_subjects": 2, "cache": cache, "steps": 1, "batch_size": 4}
    rows = sample_efficiency(pretrained, nights, tmp_path, **options)
    with open(tmp_path / "stages.csv", newline="") as file:
        written = list(csv.DictReader(file))
    assert len(rows) == len(written) == 2 * 2 * 2 and tuple(written[0]) == COLUMNS
    assert {(row["initial"], row["subjects"]) for row in written} == {
        (initial, subjects) for initial in ("pretrained", "scratch") for subjects in ("1", "3")
    }
    assert all(-1 <= float(row["kappa"]) <= 1 for row in written)
    model = load(tmp_path / "scratch-3-1" / "model.safetensors", device="cpu", dtype="float32")
    rules = replace(PHYSIONET_2018, test_subjects=2, train_subjects=1)
    scores = rules.score(model.stages, read_nights(rules.records(nights, "test"), cache, progress=False))
    row = next(row for row in rows if (row["initial"], row["subjects"], row["seed"]) == ("scratch", 3, 1))
    assert scores["kappa"] == pytest.approx(row["kappa"])

    told = []
    again = sample_efficiency(pretrained, nights, tmp_path, progress=told.append, **options)
    assert len(again) == 8 and not told
    with pytest.raises(UsageError, match=r"holds results of other settings \(steps was 1, is 2\)"):
        sample_efficiency(pretrained, nights, tmp_path, **(options | {"steps": 2}))
    with locked(tmp_path), pytest.raises(UsageError, match="is being written by process"):
        sample_efficiency(pretrained, nights, tmp_path, **options)

    lines = (tmp_path / "stages.csv").read_text().splitlines(keepends=True)
    (tmp_path / "stages.csv").write_text("".join([*lines[:-1], lines[-1][:20]]))  # killed in the middle of a row
    assert len(sample_efficiency(pretrained, nights, tmp_path, progress=told.append, **options)) == 8
    assert len(told) == 1
    assert (tmp_path / "stages.csv").read_text().count("\n") == 9
    with pytest.raises(UsageError, match="has 3 besides the 2 held out"):
        sample_efficiency(pretrained, nights, tmp_path / "more", **(options | {"subjects": (4,)}))
    with pytest.raises(UsageError, match="not a model of signals"):
        sample_efficiency("part-vitt8.tin", nights, tmp_path / "image", **options)


def test_few_windows_of_each_night_are_labelled(nights, cache, pretrained, tmp_path):
    found = read_nights(sorted((nights / "training").iterdir()), cache, progress=False)
    few = few_of_each(found, 2, seed=0)
    for night, drawn in zip(found, few, strict=True):
        assert drawn.record == night.record and len(drawn.windows) == 2
        places = [next(i for i, each in enumerate(night.windows) if np.array_equal(each, one)) for one in drawn.windows]
        assert places == sorted(set(places)) and drawn.stages.tolist() == night.stages[places].tolist()
    again, other = few_of_each(found[:1], 2, seed=0)[0], [few_of_each(found[:1], 2, seed=i)[0] for i in range(1, 9)]
    assert np.array_equal(again.windows, few[0].windows)  # whoever else is drawn
    assert any(not np.array_equal(again.windows, each.windows) for each in other)
    assert len(few_of_each(found, 9, seed=0)[0].stages) == 4
    options = {"subjects": (2,), "seeds": 1, "test_subjects": 2, "cache": cache, "steps": 1, "batch_size": 4}
    rows = sample_efficiency(pretrained, nights, tmp_path / "few", windows=3, **options)
    assert [row["windows"] for row in rows] == [6, 6]
    with pytest.raises(UsageError, match="windows=0"):
        sample_efficiency(pretrained, nights, tmp_path / "none", windows=0, **options)


def test_means_are_over_seeds():
    rows = [
        {"initial": initial, "subjects": 10, "seed": seed, "kappa": kappa}
        for initial, kappas in (("scratch", (0.5,)), ("pretrained", (0.5, 0.7)))
        for seed, kappa in enumerate(kappas)
    ]
    first, second = means(rows)
    assert (first["initial"], first["seeds"]) == ("pretrained", 2)
    assert first["kappa"] == pytest.approx(0.6) and first["std"] == pytest.approx(0.02**0.5)
    assert second["kappa"] == 0.5 and second["std"] is None


def test_a_night_that_cannot_be_read_is_left_out_and_counted(nights, cache, pretrained, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(nights, data)
    rules = replace(PHYSIONET_2018, test_subjects=2, train_subjects=1)
    bad = [rules.records(data, split)[0] for split in ("test", "rest")]
    for record in bad:
        (record / f"{record.name}.mat").write_bytes(b"damaged")
    words = ["--data", data, "--test-subjects", 2, "--cache", cache, "--steps", 1, "--batch-size", 4]
    words = ["stages", pretrained, *words, "--subjects", "all", "--seeds", 1, "--no-scratch", "-o", tmp_path / "out"]
    ran = partzoo(*words)
    assert ran.code == 1 and "2 of the nights could not be used and were skipped." in ran.err, ran.err
    with open(tmp_path / "out" / "failed.csv", newline="") as file:
        assert sorted(row["path"] for row in csv.DictReader(file)) == sorted(map(str, bad))
    with open(tmp_path / "out" / "stages.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["subjects"], row["nights"], row["tested"]) == ("3", "2", "1")
    strict = partzoo(*words[:-1], tmp_path / "strict", "--strict")
    assert strict.code == 2 and f"{bad[0].name}.mat holds no readable 'val'" in strict.err

    with pytest.warns(SkippedWarning, match=bad[1].name):
        read_windows(data, SignalOptions(held_out=2, cache=cache), progress=False)


def test_the_commands_do_it_all(nights, cache, tmp_path):
    settings = [f"--set=config.{name}={value}" for name, value in SMALL.items()]
    settings += ["--set=data.held_out=2", f"--set=data.cache={cache}"]
    run, out = tmp_path / "run", tmp_path / "stages"
    short = ["--steps", 1, "--batch-size", 4]
    ran = partzoo("train", "part-signals", "--data", nights, *settings, *short, "-o", run)
    assert ran.code == 0, ran.err
    chosen = ["--subjects", 1, "--seeds", 1, "--test-subjects", 2, "--windows", 2, "--cache", cache, "-o", out]
    ran = partzoo("stages", run / "model.safetensors", "--data", nights, *chosen, *short)
    assert ran.code == 0, ran.err
    assert "pretrained" in ran.out and "scratch" in ran.out and (out / "stages.csv").is_file()
    assert partzoo("stages", "x", "--data", nights, "--subjects", "some", "-o", out).code == 2
