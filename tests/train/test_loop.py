import copy
import csv
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from partzoo.data.image_sets import ImageSet
from partzoo.errors import PartzooError, UsageError, WeightsError
from partzoo.locks import locked
from partzoo.models.loading import build, load
from partzoo.models.registry import find
from partzoo.train import loop
from partzoo.train.loop import CHECKPOINT, LoopOptions, Progress, fit, rate, run_folder
from partzoo.train.tasks.classify import ClassifyTask
from partzoo.train.tasks.part import PartTask
from partzoo.weights.tensors import DIGEST, read_metadata


def images(count=20, side=32):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return ImageSet.from_pixels(pixels, torch.arange(count) % 4, list("abcd"))


def toy():
    torch.manual_seed(0)
    entry = find("part-vitt8")
    return PartTask(build(entry, entry.configure({"dim": 24, "depth": 1, "heads": 2, "size": 32})), pairs=32)


def options(steps, **values):
    return LoopOptions(steps=steps, batch_size=4, log_steps=1, **values)


def test_a_resumed_run_equals_an_undisturbed_one(tmp_path):
    whole, half = toy(), toy()
    fit(whole, images(), options(8), tmp_path / "whole", progress=False)
    log = tmp_path / "half" / "log.csv"
    timer = threading.Thread(target=_stop_after, args=(log, 3))
    timer.start()
    state = fit(half, images(), options(8), tmp_path / "half", progress=False)
    timer.join()
    resumed = toy()
    end = fit(resumed, images(), options(8), tmp_path / "half", resume=True, progress=False)
    assert 0 < state.step <= 8 and end.step == 8
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_an_image_that_cannot_be_read_does_not_end_training(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for file in files:
        Image.new("RGB", (32, 32), (9, 90, 200)).save(file)
    files[3].write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"Skipped: .*3\.png"):
        assert fit(toy(), ImageSet(files, 32, None, []), options(4), tmp_path / "run", progress=False).finished


def _stop_after(log, rows):
    while not (log.exists() and len(log.read_text().splitlines()) > rows):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_a_run_in_two_pieces_equals_a_whole_one_with_channels_last(optimizer, tmp_path):
    """Moments are restored although kernels have their channels last and the file's tensors do not."""
    settings = {"optimizer": optimizer, "channels_last": True, "schedule": "constant", "warmup": 0.0}
    torch.manual_seed(0)
    whole = small_classifier()
    whole.small_until = 0.0
    halves = [copy.deepcopy(whole) for _ in range(2)]
    fit(whole, images(), options(6, **settings), tmp_path / "whole", progress=False)
    fit(halves[0], images(), options(3, **settings), tmp_path / "half", progress=False)
    fit(halves[1], images(), options(6, **settings), tmp_path / "half", resume=True, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, halves[1].state_dict()[name]), name


def test_checkpoints_of_the_first_release_are_read(tmp_path):
    fit(toy(), images(), options(2), tmp_path, progress=False)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    progress = {"step": 2, "images": 8, "seconds": 1.5, "loss": 0.5, "finished": False}
    save_file(tensors, tmp_path / CHECKPOINT, {"progress": json.dumps(progress)})
    assert fit(toy(), images(), options(3), tmp_path, resume=True, progress=False).step == 3


def test_a_checkpoint_of_a_newer_partzoo_says_so(tmp_path):
    fit(toy(), images(), options(2), tmp_path, progress=False)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    assert about["partzoo_format"] == "1"
    save_file(tensors, tmp_path / CHECKPOINT, about | {"partzoo_format": "2"})
    with pytest.raises(WeightsError, match=r"^\S*checkpoint\.safetensors was written by a newer version of partzoo"):
        fit(toy(), images(), options(3), tmp_path, resume=True, progress=False)


def test_the_model_file_loads(tmp_path):
    task = toy()
    fit(task, images(), options(2), tmp_path, progress=False)
    loaded = load(tmp_path / "model.safetensors", dtype="float32")
    assert loaded.config.dim == 24
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in task.model.state_dict().items())


def test_the_log_has_a_row_for_each_step_and_the_rate_falls_to_zero(tmp_path):
    fit(toy(), images(), options(10, warmup=0.2), tmp_path, progress=False)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [int(row["step"]) for row in rows] == list(range(1, 11))
    rates = [float(row["lr"]) for row in rows]
    assert rates[0] < rates[1] < rates[2] == max(rates)
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] < 0.1 * rates[2]


def test_rows_of_the_log_are_stored_before_their_checkpoint(tmp_path, monkeypatch):
    rows = []
    monkeypatch.setattr(loop, "sync", lambda file: rows.append((file.read_text().count("\n") - 1, saved(tmp_path))))
    fit(toy(), images(), options(2, checkpoint_minutes=0.0), tmp_path, progress=False)
    assert rows == [(1, None), (2, 1), (2, 2)]


def saved(folder):
    """Return the step of the checkpoint in a folder, or None."""
    file = folder / loop.CHECKPOINT
    return json.loads(read_metadata(file)["progress"])["step"] if file.exists() else None


@pytest.mark.parametrize(
    ("settings", "rates"),
    [
        ({"schedule": "cosine", "warmup": 0.0}, {0.0: 1.0, 0.5: 0.5, 1.0: 0.0}),
        ({"schedule": "constant", "warmup": 0.5}, {0.0: 1e-3, 0.25: 0.5, 0.5: 1.0, 1.0: 1.0}),
        (
            {"schedule": "multistep", "warmup": 0.0, "milestones": (0.5, 0.75), "factor": 0.2},
            {0.0: 1.0, 0.49: 1.0, 0.5: 0.2, 0.74: 0.2, 0.75: 0.04, 1.0: 0.04},
        ),
    ],
)
def test_the_rate_follows_its_schedule(settings, rates):
    chosen = options(10, **settings)
    assert {done: rate(done, chosen) for done in rates} == pytest.approx(rates)


def test_an_epoch_sees_every_image_once_and_steps_fall_between_epochs(tmp_path):
    settings = {"schedule": "multistep", "milestones": (0.5,), "warmup": 0.0}
    state = fit(
        toy(), images(12), LoopOptions(epochs=2, batch_size=4, log_steps=1, lr=0.1, **settings), tmp_path,
        progress=False,
    )  # fmt: skip
    assert (state.step, state.images, state.finished) == (6, 24, True)
    rates = [float(row["lr"]) for row in csv.DictReader(open(tmp_path / "log.csv"))]
    assert rates == pytest.approx([0.1] * 3 + [0.02] * 3)


@pytest.mark.parametrize(("decay", "kept"), [("matrices", 1.0), ("all", 0.5)])
def test_weight_decay_is_of_matrices_or_of_everything(decay, kept, tmp_path):
    """AdamW takes lr x decay of each parameter before its own step, which is at most about lr."""
    task = toy()
    gains = [module.weight for module in task.modules() if isinstance(module, torch.nn.LayerNorm)]
    before = [gain.detach().clone() for gain in gains]
    settings = {"lr": 1e-3, "weight_decay": 500.0, "decay": decay, "schedule": "constant", "warmup": 0.0}
    fit(task, images(), options(1, **settings), tmp_path, progress=False)
    assert all(torch.allclose(now, kept * then, atol=2e-3) for now, then in zip(gains, before, strict=True))


def test_clipping_can_be_off(tmp_path):
    ends = []
    for number, clip in enumerate((0.0, 1e-6, 1e6)):
        torch.manual_seed(0)
        task = small_classifier()
        settings = {"clip_grad": clip, "optimizer": "sgd", "lr": 0.01, "warmup": 0.0, "weight_decay": 0.0}
        fit(task, images(), options(1, **settings), tmp_path / str(number), progress=False)
        ends.append(next(task.model.parameters()).detach())
    assert torch.equal(ends[0], ends[2]) and not torch.equal(ends[0], ends[1])


# What a step sees


class Watched(PartTask):
    """A task that records each step's images and random numbers, and whose gradient is 1 everywhere."""

    def __init__(self):
        super().__init__(toy().model)
        self.seen, self.drawn = [], []

    def forward(self, pixels, labels, done, generator):
        self.seen.append(labels.tolist())
        self.drawn.append(torch.rand(1, generator=generator).item())
        return {"loss": sum(parameter.sum() for parameter in self.parameters())}


def watched(folder, settings, *, resume=False):
    """Return what a run sees of 24 images whose labels are their numbers."""
    data = images(24)
    data.labels = torch.arange(24)
    task = Watched()
    state = fit(task, data, settings, folder, resume=resume, progress=False)
    return task, state


def test_each_step_draws_other_random_numbers_which_follow_from_the_seed(tmp_path):
    whole, _ = watched(tmp_path / "whole", options(4))
    assert len(set(whole.drawn)) == 4
    first, _ = watched(tmp_path / "pieces", options(2))
    second, _ = watched(tmp_path / "pieces", options(4), resume=True)
    assert first.drawn + second.drawn == whole.drawn and first.seen + second.seen == whole.seen
    other, _ = watched(tmp_path / "other", options(4, seed=1))
    assert not set(other.drawn) & set(whole.drawn) and other.seen != whole.seen


def test_each_step_cuts_other_patches_out_of_the_same_images(tmp_path):
    pixels = images(1).batch(torch.tensor([0])).expand(8, -1, -1, -1)
    task, patches = toy(), []
    task.model.patch_embed.register_forward_pre_hook(lambda _, given: patches.append(given[0].detach()))
    fit(task, ImageSet.from_pixels(pixels, None, []), options(3), tmp_path, progress=False)
    assert len(patches) == 3
    assert not any(torch.equal(patches[a], patches[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert not torch.equal(patches[0][0], patches[0][1])


def test_a_resumed_run_forgets_the_rows_that_a_killed_one_wrote_after_its_checkpoint(tmp_path):
    fit(toy(), images(), options(2), tmp_path, progress=False)
    with open(tmp_path / "log.csv", "a", newline="") as file:
        file.write("3,12,0.5,0.1,9.0\r\n4,16")
    fit(toy(), images(), options(4), tmp_path, resume=True, progress=False)
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"] and all(float(row["loss"]) < 9 for row in rows)


def test_a_run_with_stochastic_depth_in_two_pieces_equals_a_whole_one(tmp_path):
    """What layers draw in a step depends on the step alone."""
    ends = []
    for steps in ((4,), (2, 4)):
        for end in steps:
            torch.manual_seed(end)
            task = toy()
            for block in task.model.blocks:
                block.drop_path.part = 0.5
            folder = tmp_path / str(len(steps))
            fit(task, images(), options(end, schedule="constant", warmup=0.0), folder, resume=True, progress=False)
        ends.append(task.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


# What the optimizer does with it


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_each_parameter_moves_at_its_share_of_the_rate(optimizer, tmp_path, monkeypatch):
    """Two runs have equal weights and gradients, and differ only in the shares."""
    moved = []
    for share in (1.0, 0.25):
        task = Watched()
        before = {name: value.detach().clone() for name, value in task.named_parameters()}
        monkeypatch.setattr(task, "rate_factor", lambda name, share=share: share if ".blocks." in name else 1.0)
        settings = {"lr": 0.01, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "optimizer": optimizer}
        data = images()
        fit(task, data, options(1, **settings), tmp_path / str(share), progress=False)
        moved.append({name: value.detach() - before[name] for name, value in task.named_parameters()})
    for name, whole in moved[0].items():
        share = 0.25 if ".blocks." in name else 1.0
        assert whole.abs().max() > 1e-4, name
        torch.testing.assert_close(moved[1][name], share * whole, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "muon"])
def test_betas_are_the_optimizer_s(optimizer, tmp_path):
    ends = []
    for number, betas in enumerate([(0.9, 0.999), (0.5, 0.999), (0.9, 0.9)]):
        torch.manual_seed(0)
        task = small_classifier()
        settings = {"betas": betas, "lr": 0.01, "schedule": "constant", "warmup": 0.0, "optimizer": optimizer}
        fit(task, images(), options(3, **settings), tmp_path / str(number), progress=False)
        ends.append(task.model.head.weight.detach())
    assert not torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


def test_rows_and_checkpoints_are_written_at_the_requested_intervals(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(loop, "_save", lambda task, optimizer, state, out: saved.append(state.step))
    watched(tmp_path / "often", LoopOptions(steps=6, batch_size=4, log_steps=2, checkpoint_minutes=0.0))
    rows = list(csv.DictReader(open(tmp_path / "often" / "log.csv")))
    assert [int(row["step"]) for row in rows] == [2, 4, 6] and saved == [1, 2, 3, 4, 5, 6, 6]
    saved.clear()
    watched(tmp_path / "seldom", LoopOptions(steps=6, batch_size=4, log_steps=4, checkpoint_minutes=1e6))
    rows = list(csv.DictReader(open(tmp_path / "seldom" / "log.csv")))
    assert [int(row["step"]) for row in rows] == [4, 6] and saved == [6]


def small_classifier():
    entry = find("patchresnet14")
    config = entry.configure({"widths": (8, 16), "depths": (1, 1), "classes": 4, "size": 32})
    return ClassifyTask(build(entry, config), small_side=16)


@pytest.mark.parametrize("make", [toy, small_classifier])
def test_one_step_reaches_every_parameter_and_lowers_the_loss(make):
    task, data = make(), images(8)

    def loss():
        generator = torch.Generator().manual_seed(1)
        return task(data.batch(torch.arange(8)), data.labels, 0.9, generator)["loss"]

    before = loss()
    before.backward()
    # A bias of the keys shifts all logits of a softmax alike: it has no gradient.
    reached = {name: p.grad.abs().sum() > 0 for name, p in task.named_parameters() if not name.endswith("key.bias")}
    assert all(reached.values()), reached
    torch.optim.SGD(task.parameters(), lr=0.02).step()
    assert loss() < before


def test_a_run_is_not_overwritten_and_a_damaged_checkpoint_is_refused(tmp_path):
    fit(toy(), images(), options(1), tmp_path, progress=False)
    with pytest.raises(UsageError, match=r"already holds a run\. Add resume=True"):
        fit(toy(), images(), options(1), tmp_path, progress=False)
    checkpoint = tmp_path / CHECKPOINT
    whole = checkpoint.read_bytes()
    for damaged in (whole[:1000], whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]):
        checkpoint.write_bytes(damaged)
        with pytest.raises(WeightsError, match="does not continue this run"):
            fit(toy(), images(), options(2), tmp_path, resume=True, progress=False)


def test_the_budget_is_steps_minutes_or_epochs():
    for values in ({}, {"steps": 1, "minutes": 1}, {"steps": 1, "epochs": 1}, {"steps": 0}, {"minutes": -1.0}):
        with pytest.raises(UsageError, match="epochs="):
            LoopOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "steps"}, "schedule='steps' must be 'cosine', 'constant' or 'multistep'"),
        ({"milestones": [0.5]}, "Set milestones with schedule='multistep'"),
        ({"schedule": "multistep"}, "Set milestones with schedule='multistep'"),
        ({"schedule": "multistep", "milestones": [10, 13]}, "shares of the budget"),
        ({"warmup": 1.5}, "shares of the budget"),
        ({"betas": [0.9]}, "betas=.* must be a list of 2, each a number"),
    ],
)
def test_wrong_options_are_one_clear_error(values, message):
    with pytest.raises(UsageError, match=message):
        options(1, **values)


def test_precision_is_chosen_for_each_run(tmp_path):
    """Two runs in one process each compute their products in the given precision."""
    seen = []
    for precision in ("bf16", "fp32"):
        task = toy()
        task.model.blocks[0].register_forward_hook(lambda *said: seen.append(said[2].dtype))
        fit(task, images(), options(1, precision=precision), tmp_path / precision, progress=False)
    assert seen == [torch.bfloat16, torch.float32]
    with pytest.raises(UsageError, match="precision='fp8'"):
        options(1, precision="fp8")


def test_images_can_be_kept_on_the_device(tmp_path, monkeypatch):
    moved = []
    monkeypatch.setattr(ImageSet, "move", lambda self, device: moved.append(device.type))
    fit(toy(), images(), options(1), tmp_path / "off", progress=False)
    assert not moved
    fit(toy(), images(), options(1, resident=True), tmp_path / "on", progress=False)
    assert moved == ["cpu"]


def test_minutes_are_a_budget_too(tmp_path):
    state = fit(toy(), images(), LoopOptions(minutes=0.02, batch_size=4), tmp_path, progress=False)
    assert state.seconds >= 1.2 and state.step > 0 and state.finished


def test_the_part_of_the_budget_that_is_spent():
    def done(options, **state):
        return loop._done(Progress(**state), options, 20)

    assert done(LoopOptions(steps=8), step=2) == 0.25
    assert done(LoopOptions(epochs=2), images=30) == 0.75
    assert done(LoopOptions(minutes=3), seconds=90.0) == 0.5
    assert done(LoopOptions(steps=8), step=9) == done(LoopOptions(minutes=3), seconds=1e6) == 1


def test_sgd_has_nesterovs_momentum(tmp_path):
    """Of gradients that are 1 everywhere, the first step is 1.9 times the rate and the second 2.71 times."""
    settings = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 0.0, "clip_grad": 0.0, "schedule": "constant"}
    task = Watched()
    before = [parameter.detach().clone() for parameter in task.parameters()]
    fit(task, images(), options(2, warmup=0.0, **settings), tmp_path, progress=False)
    for now, then in zip(task.parameters(), before, strict=True):
        torch.testing.assert_close(then - now, torch.full_like(then, 0.01 * (1.9 + 2.71)), atol=1e-5, rtol=0)


def test_a_gradient_is_clipped_to_the_norm_that_is_asked_for(tmp_path):
    settings = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "clip_grad": 0.5, "schedule": "constant"}
    task = Watched()
    before = [parameter.detach().clone() for parameter in task.parameters()]
    fit(task, images(), options(1, warmup=0.0, **settings), tmp_path, progress=False)
    moved = torch.cat([(now - then).flatten() for now, then in zip(task.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1.9 * 0.5, rel=1e-3)


def test_the_clock_of_a_resumed_run_goes_on(tmp_path):
    fit(toy(), images(), options(1), tmp_path, progress=False)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    progress = json.loads(about["progress"]) | {"seconds": 7200.0}
    del about[DIGEST]  # it no longer fits
    save_file(tensors, tmp_path / CHECKPOINT, about | {"progress": json.dumps(progress)})
    state = fit(toy(), images(), options(2), tmp_path, resume=True, progress=False)
    assert 7200 < state.seconds < 9000
    last = list(csv.DictReader(open(tmp_path / "log.csv")))[-1]
    assert float(last["seconds"]) == pytest.approx(state.seconds, abs=0.06) and int(last["images"]) == 8
    assert float(last["loss"]) == pytest.approx(state.loss)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_what_handled_it_before_does_so_again(number, tmp_path):
    former = signal.getsignal(number)

    class Stopped(Watched):
        def forward(self, *given):
            os.kill(os.getpid(), number)
            return super().forward(*given)

    state = fit(Stopped(), images(), options(5), tmp_path, progress=False)
    assert state.step == 1 and not state.finished and signal.getsignal(number) is former


def test_processes_go_by_the_clock_of_the_first_and_stop_where_any_is_asked_to():
    def agreed(others, seconds, stop, processes=2):
        accelerator = SimpleNamespace(
            num_processes=processes, device="cpu", gather=lambda own: torch.cat([torch.tensor(others), own])
        )
        return loop._agreed(accelerator, seconds, stop)

    assert agreed([[2.0, 0.0]], 7.0, False) == (2.0, False)
    assert agreed([[2.0, 1.0]], 7.0, False) == agreed([[2.0, 0.0]], 7.0, True) == (2.0, True)
    assert agreed([[2.0, 0.0]], 7.0, False, processes=1) == (7.0, False)


def test_a_bar_shows_how_far_training_is_if_requested(tmp_path, capsys):
    fit(Watched(), images(), options(4), tmp_path / "shown")
    shown = capsys.readouterr().err
    assert "100%" in shown and " 75%" in shown and "images/s" in shown
    fit(Watched(), images(), options(4), tmp_path / "hidden", progress=False)
    assert not capsys.readouterr().err


def test_adam_takes_weight_decay_into_the_gradient_and_adamw_does_not(tmp_path):
    """So that of Adam no step is larger than the rate, whatever the decay."""
    largest = []
    for optimizer in ("adam", "adamw"):
        task = Watched()
        before = [parameter.detach().clone() for parameter in task.parameters()]
        settings = {"lr": 1e-3, "weight_decay": 500.0, "optimizer": optimizer, "schedule": "constant", "warmup": 0.0}
        fit(task, images(), options(1, **settings), tmp_path / optimizer, progress=False)
        largest.append(max((now - then).abs().max() for now, then in zip(task.parameters(), before, strict=True)))
    assert largest[0] < 1.001e-3 and largest[1] > 0.01


def test_a_run_s_folder_is_made_and_refused_only_where_a_fresh_one_is_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = run_folder("~/runs/first")
    assert folder == tmp_path / "runs" / "first" and folder.is_dir()
    assert run_folder(folder, fresh=True) == folder
    (folder / CHECKPOINT).touch()
    assert run_folder(folder) == folder
    with pytest.raises(UsageError, match="already holds a run"):
        run_folder(folder, fresh=True)
    with pytest.raises(UsageError, match="cannot be created"):
        run_folder(folder / CHECKPOINT)
    (folder / CHECKPOINT).rename(folder / "model.safetensors")
    assert run_folder(folder) == folder
    with pytest.raises(UsageError, match="already holds a run"):
        run_folder(folder, fresh=True)


@pytest.mark.parametrize("content", [b"time,step\n", b"Ship's log\n\nDay 1\n", b"\xff"])
def test_the_log_of_something_else_is_kept(content, tmp_path):
    (tmp_path / "log.csv").write_bytes(content)
    for fresh in (True, False):
        with pytest.raises(UsageError, match="not the log of a run"):
            run_folder(tmp_path, fresh=fresh)
    with pytest.raises(UsageError, match="not the log of a run"):
        fit(toy(), images(), options(1), tmp_path, progress=False)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("log.csv", content)]


@pytest.mark.parametrize("content", [b"", b"step,ima", b"step,images,seconds,lr,loss\n", b"step,images,loss\n1"])
def test_a_log_that_a_kill_has_left_empty_or_torn_is_continued(content, tmp_path):
    (tmp_path / "log.csv").write_bytes(content)
    fit(toy(), images(), options(2), tmp_path, resume=True, progress=False)
    with open(tmp_path / "log.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]


# What a run never loses


class Diverging(PartTask):
    """A task whose loss, or a weight, becomes infinite or NaN at a step, as with too high a rate."""

    def __init__(self, step, value, *, weight=False):
        super().__init__(toy().model)
        self.left, self.value, self.weight = step, value, weight

    def forward(self, pixels, labels, done, generator):
        self.left -= 1
        terms = super().forward(pixels, labels, done, generator)
        if self.left:
            return terms
        if self.weight:
            next(self.parameters()).data.fill_(self.value)
            return terms
        return terms | {"loss": terms["loss"] * self.value}


@pytest.mark.parametrize("weight", [False, True], ids=["loss", "weight"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("often", [True, False], ids=["at a checkpoint", "at a row of the log"])
def test_values_that_are_not_finite_never_replace_a_checkpoint(value, weight, often, tmp_path):
    fit(toy(), images(), options(2), tmp_path, progress=False)
    kept = {name: (tmp_path / name).read_bytes() for name in (CHECKPOINT, "model.safetensors")}
    settings = {"checkpoint_minutes": 0.0, "log_steps": 1000} if often else {"log_steps": 1}
    chosen = LoopOptions(steps=6, batch_size=4, **settings)
    advice = r"at step \d; the checkpoint of step 2 is kept\. Add resume=True and a lower lr= to continue from it\."
    recorded = []
    with pytest.raises(UsageError, match=advice):
        task = Diverging(1, value, weight=weight)
        fit(task, images(), chosen, tmp_path, resume=True, progress=False, record=lambda: recorded.append(1))
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept and not recorded
    assert fit(toy(), images(), options(6, lr=1e-4), tmp_path, resume=True, progress=False).step == 6


def test_a_run_that_diverges_before_its_first_checkpoint_can_start_again(tmp_path):
    with pytest.raises(UsageError, match=r"before the first checkpoint\. Start again with a lower lr=\."):
        fit(Diverging(1, math.nan), images(), options(3), tmp_path, progress=False)
    assert fit(toy(), images(), options(3), tmp_path, progress=False).finished


def test_a_checkpoint_from_which_no_step_succeeds_gives_way_to_the_one_before(tmp_path):
    chosen = options(6, checkpoint_minutes=0.0)
    fit(toy(), images(), options(1), tmp_path, progress=False)
    with pytest.raises(UsageError, match=r"at step 4; the checkpoint of step 2 is kept"):
        fit(Diverging(3, math.nan), images(), chosen, tmp_path, resume=True, progress=False)
    state = fit(toy(), images(), chosen, tmp_path, resume=True, progress=False)
    assert state.finished and not (tmp_path / loop.PREVIOUS).exists()
    rows = list(csv.DictReader(open(tmp_path / "log.csv")))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"]


def test_a_full_disk_does_not_end_a_run(tmp_path, monkeypatch):
    """Checkpoints and rows that cannot be written give warnings, and later ones are tried again."""
    whole = toy()
    fit(whole, images(), options(6), tmp_path / "whole", progress=False)
    saved, tries = loop.save_tensors, []

    def full(path, tensors, metadata):
        tries.append(path.name)
        if len(tries) < 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        saved(path, tensors, metadata)

    class Half:
        """A file that takes half a row."""

        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def write(self, text):
            self._file.write(text[: len(text) // 2])
            self._file.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open_full(file, *words, **options):
        opened = open(file, *words, **options)
        return Half(opened) if len(tries) == 2 and str(file).endswith("log.csv") else opened

    monkeypatch.setattr(loop, "save_tensors", full)
    monkeypatch.setattr(loop, "open", open_full, raising=False)
    task = toy()
    with pytest.warns(UserWarning) as warned:
        state = fit(task, images(), options(6, checkpoint_minutes=0.0), tmp_path / "full", progress=False)
    said = [str(each.message) for each in warned]
    assert sum("No checkpoint at step" in each and "No space left" in each for each in said) == 3
    assert sum("No row in the log for step 3" in each for each in said) == 1
    assert state.finished and len(tries) == 7
    rows = list(csv.DictReader(open(tmp_path / "full" / "log.csv")))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"] and None not in rows[2]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, task.state_dict()[name]), name


def test_a_last_checkpoint_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(loop, "save_tensors", full)
    with pytest.raises(WeightsError, match=r"checkpoint\.safetensors cannot be written \(.*No space left"):
        fit(toy(), images(), options(1), tmp_path, progress=False)


def test_three_signals_end_a_process_at_once(tmp_path):
    """The first waits for the end of the step, which here never comes."""
    code = """
import os, signal, sys, time
from partzoo.train.loop import _stop_signal
with _stop_signal() as received:
    for _ in range(int(sys.argv[1])):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    print(len(received))
"""
    ended = [subprocess.run([sys.executable, "-c", code, str(n)], capture_output=True, text=True) for n in (2, 3)]
    assert (ended[0].returncode, ended[0].stdout) == (0, "2\n")
    assert (ended[1].returncode, ended[1].stdout) == (-signal.SIGINT, "")


def test_a_second_run_in_a_folder_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(PartzooError, match=rf"is being written by process {os.getpid()} on "):
        fit(toy(), images(), options(1), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())
