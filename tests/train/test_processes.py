"""Trainings by two processes, which end as those by one."""

import csv
import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from helpers import ranks
from helpers.command_line import partzoo
from helpers.shared_training import CASES, SHARDED, trained
from PIL import Image
from safetensors.torch import load_file

from partzoo.errors import UsageError
from partzoo.train.loop import LoopOptions
from partzoo.train.processes import processes, start_all
from partzoo.train.tasks import methods

QUICK = ("part", "classify")
SMALL = [word for name, value in (("dim", 24), ("depth", 1), ("heads", 2), ("size", 32))
         for word in ("--set", f"config.{name}={value}")]  # fmt: skip


def by_two(cases, folder):
    """What each of two processes ends with, by case."""
    codes, _, err = ranks.ended(ranks.start([ranks.ROOT / "tests/helpers/shared_training.py", folder, *cases]), 900)
    assert codes == [0, 0], err
    return {case: [torch.load(folder / f"{case}.{rank}.pt") for rank in (0, 1)] for case in cases}


def check_equal(case, two, folder):
    one = trained(case.removesuffix(SHARDED), folder / "one")
    whole = [sorted(a + b) for a, b in zip(*(rank["seen"] for rank in two), strict=True)]
    assert whole == [sorted(step) for step in one["seen"]]
    assert all(len(a) == len(b) for a, b in zip(*(rank["seen"] for rank in two), strict=True))
    for rank in two:
        assert rank["loss"] == pytest.approx(one["loss"], abs=1e-6)
        for what in rank.keys() & {"gradients", "state"}:
            assert rank[what].keys() == one[what].keys()
            for name, value in one[what].items():
                torch.testing.assert_close(rank[what][name], value, rtol=0, atol=1e-6, msg=f"{what} of {name}")


def test_two_processes_train_as_one_does(tmp_path):
    for case, two in by_two(QUICK, tmp_path).items():
        check_equal(case, two, tmp_path / case)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return by_two([case for case in CASES if case not in QUICK], tmp_path_factory.mktemp("two"))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in QUICK])
def test_every_method_trains_by_two_processes_as_by_one(case, others, tmp_path):
    check_equal(case, others[case], tmp_path)


LOOPED = ("part", "partformer", "partformer, frozen", "mpae", "spatial", "classify", "finetune")


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return by_two([case + SHARDED for case in LOOPED], tmp_path_factory.mktemp("sharded"))


@pytest.mark.slow
@pytest.mark.parametrize("case", LOOPED)
def test_every_method_trains_with_shared_parameters_as_with_whole_ones(case, sharded, tmp_path):
    check_equal(case, sharded[case + SHARDED], tmp_path)


def test_there_is_a_case_of_every_method():
    assert set(methods()) <= set(CASES)


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number:02}.png")
    return folder


def command(data, out, *more, steps=4):
    return [
        "train", "part", "--data", data, "--model", "part-vitt8", *SMALL, "--batch-size", 8, "--precision", "fp32",
        "--set", "loop.log_steps=1", "--steps", steps, "-o", out, *more,
    ]  # fmt: skip


def rows(out):
    with open(out / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def check_same_run(out, other, tolerance=0.0):
    a, b = (load_file(folder / "checkpoint.safetensors") for folder in (out, other))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(value, b[name], rtol=0, atol=tolerance, msg=name)
    assert [(row["step"], row["images"]) for row in rows(out)] == [(row["step"], row["images"]) for row in rows(other)]


LAUNCHERS = {
    "torch": lambda: ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", ranks.free_port()],
    "accelerate": lambda: [
        "-m", "accelerate.commands.launch", "--cpu", "--num_processes", 2, "--main_process_port", ranks.free_port(),
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_start_two_processes_of_which_one_writes_and_reports(launcher, data, tmp_path):
    assert partzoo(*command(data, tmp_path / "one")).code == 0
    started = ranks.launch([*LAUNCHERS[launcher](), *ranks.COMMAND, *command(data, tmp_path / "two")])
    codes, out, err = ranks.ended([started])
    assert codes == [0], err
    assert out.count("Trained for 4 steps and 32 images") == 1 and "reducer.cpp" not in err
    check_same_run(tmp_path / "one", tmp_path / "two", tolerance=2e-4)
    names = [{file.name.partition(".out.")[0] for file in (tmp_path / each).iterdir()} for each in ("one", "two")]
    assert names[0] == names[1] and "events" in names[0]


@pytest.mark.slow
def test_a_training_that_is_killed_goes_on_as_if_nothing_had_happened(data, tmp_path):
    often = ("--set", "loop.checkpoint_minutes=1e-6")
    whole = ranks.start([*ranks.COMMAND, *command(data, tmp_path / "whole", *often, steps=40)])
    killed = ranks.start([*ranks.COMMAND, *command(data, tmp_path / "killed", *often, steps=40)])
    _wait_for(lambda: (tmp_path / "killed/log.csv").exists() and len(rows(tmp_path / "killed")) > 3)
    for process in killed:
        os.killpg(process.pid, signal.SIGKILL)
    assert ranks.ended(killed)[0] == [-9, -9]
    assert len(rows(tmp_path / "killed")) < 40
    resumed = ranks.start([*ranks.COMMAND, *command(data, tmp_path / "killed", *often, "--resume", steps=40)])
    assert ranks.ended([*whole, *resumed])[0] == [0] * 4
    check_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.slow
def test_two_processes_go_on_where_one_has_stopped(data, tmp_path):
    even = ("--set", "loop.schedule=constant")
    assert partzoo(*command(data, tmp_path / "one", *even, steps=8)).code == 0
    assert partzoo(*command(data, tmp_path / "two", *even, steps=4)).code == 0
    more = command(data, tmp_path / "two", *even, "--resume", steps=8)
    codes, _, err = ranks.ended(ranks.start([*ranks.COMMAND, *more]))
    assert codes == [0, 0], err
    check_same_run(tmp_path / "one", tmp_path / "two", tolerance=2e-4)


@pytest.mark.slow
def test_a_training_goes_on_with_shared_parameters_and_without(data, tmp_path):
    even = ("--set", "loop.schedule=constant", "--set", "loop.optimizer=adamw", "--resume")
    assert partzoo(*command(data, tmp_path / "one", *even, steps=9)).code == 0
    for steps, shard in ((3, True), (6, False), (9, True)):
        more = command(data, tmp_path / "two", *even, "--set", f"loop.shard={str(shard).lower()}", steps=steps)
        codes, _, err = ranks.ended(ranks.start([*ranks.COMMAND, *more]))
        assert codes == [0, 0], err
    check_same_run(tmp_path / "one", tmp_path / "two", tolerance=2e-4)


def test_sharing_parameters_takes_several_processes_and_suitable_options(data, tmp_path):
    for more, sentence in (
        (("loop.optimizer=adamw",), "shard=True is for several processes"),
        (("loop.optimizer=muon",), "shard=True needs another optimizer than 'muon'"),
        (("loop.optimizer=adamw", "loop.channels_last=true"), "and channels_last=False"),
    ):
        settings = [word for value in ("loop.shard=true", *more) for word in ("--set", value)]
        ran = partzoo(*command(data, tmp_path / "run", *settings))
        assert ran.code == 2 and sentence in ran.err, ran.err
    for case in ("foreground", "objectness"):
        task, examples = CASES[case]()
        with pytest.raises(UsageError, match=f"shard=True is not possible for '{case}'"):
            task.fit(examples, LoopOptions(steps=1, shard=True), tmp_path / case, progress=False)


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_after_one_step_with_a_checkpoint(data, tmp_path):
    started = ranks.start([*ranks.COMMAND, *command(data, tmp_path / "run", steps=100_000)])
    _wait_for(lambda: (tmp_path / "run/log.csv").exists())
    for process in started:
        process.send_signal(signal.SIGINT)
    codes, out, err = ranks.ended(started)
    assert codes == [0, 0] and out.count("Stopped after ") == 1, err
    assert (tmp_path / "run/checkpoint.safetensors").exists()


@pytest.mark.slow
def test_the_end_of_one_process_ends_the_other(data, tmp_path):
    started = ranks.start([*ranks.COMMAND, *command(data, tmp_path / "run", steps=100_000)])
    _wait_for(lambda: (tmp_path / "run/log.csv").exists())
    started[1].kill()
    codes, _, err = ranks.ended(started)
    assert codes == [1, -9] and _errors(err) == [
        "Error: Another process of this training has ended. Add --resume to continue from the last checkpoint."
    ]


@pytest.mark.slow
def test_an_error_in_one_process_ends_both_with_its_sentence(data, tmp_path):
    started = ranks.start([ranks.ROOT / "tests/helpers/failing_rank.py", *command(data, tmp_path / "run")])
    codes, _, err = ranks.ended(started)
    assert codes == [1, 1] and _errors(err) == ["Error: None of the 24 images can be read."]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--batch-size", "9"), "Error: 2 processes cannot share 9 images evenly. Set loop.batch_size."),
        (("--recipe", "nothing"), "Error: Unknown recipe 'nothing'."),
        (("--data", "nowhere"), "Error: --data nowhere is not a folder."),
    ],
)
def test_an_error_in_all_processes_is_said_once(more, sentence, data, tmp_path):
    codes, _, err = ranks.ended(ranks.start([*ranks.COMMAND, *command(data, tmp_path / "run", *more)]))
    assert codes[0] == 2 and codes[1] in (1, 2)  # 1 of a process that waits for the first when this ends
    (said,) = _errors(err)
    assert said.startswith(sentence)


@pytest.mark.slow
def test_a_script_that_accelerate_starts_once_for_several_is_refused(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from partzoo.train.processes import processes\nprocesses()\n")
    codes, _, err = ranks.ended([ranks.launch([*LAUNCHERS["accelerate"](), script])])
    assert codes == [1] and "UsageError: 'accelerate launch --cpu' has started a single process" in err


@pytest.mark.parametrize("words", [["--num_processes", "3"], ["--num-processes=3", "--main_process_port", "29507"]])
def test_the_number_of_processes_is_that_of_accelerate_s_command_line(words, monkeypatch):
    started = []
    above = ["python", "/bin/accelerate", "launch", "--cpu", *words, "-m", "partzoo", "train", "part"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: above)
    monkeypatch.setattr(os, "execv", lambda file, run: started.append(run))
    monkeypatch.setattr(sys, "argv", ["partzoo", "train", "part"])
    start_all()
    assert not started  # without accelerate's variables, this is one process like any other
    for name, value in (("ACCELERATE_USE_CPU", "True"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29507")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="has started a single process"):
        processes()
    start_all()
    (run,) = started
    assert run[1:5] == ["-m", "torch.distributed.run", "--nproc-per-node", "3"] and "29507" in run
    assert run[-4:] == ["-m", "partzoo", "train", "part"]
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["bash"])
    start_all()
    assert len(started) == 1


def _errors(text):
    return [line for line in text.splitlines() if "Error" in line]


def _wait_for(condition, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
