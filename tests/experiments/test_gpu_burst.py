"""Ten minutes of a GPU, with the CPU in its place: what is packed, trained, sent back, joined and continued."""

import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from helpers.drawn_faces import write_faces
from helpers.experiments import EXPERIMENTS, experiment
from helpers.image_sets import write_tar
from PIL import Image

from partzoo.errors import UsageError
from partzoo.models.loading import load
from partzoo.skipping import SkippedWarning
from partzoo.train.loop import CHECKPOINT, MODEL
from partzoo.train.masked_images import MaskedOptions, read_masked
from partzoo.train.recipe import read_recipe
from partzoo.train.run import train
from partzoo.weights.tensors import read_tensors

MASKS = read_recipe("foreground-lite0.masks")
SETS = (*MASKS.data["sets"], *MASKS.data["report_only"], *MASKS.data["evaluated"])


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def scene(seed):
    """A random scene of 48 x 64 pixels, unlike others in its low frequencies, with a mask."""
    rng = np.random.default_rng(seed)
    blots = Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    return np.asarray(blots), mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small data in the layout that is packed; the third image of horses nearly equals one of ECSSD."""
    root = tmp_path_factory.mktemp("data")
    for name in ("tiny-imagenet", "faces", "masks"):
        (root / name).mkdir()
    tiles = np.random.default_rng(0).integers(0, 255, (2, 256, 256, 3), np.uint8)
    for number, sheet in enumerate(tiles):
        Image.fromarray(sheet).save(root / "tiny-imagenet" / f"train-0{number}.avif")
    Image.fromarray(tiles[0]).save(root / "tiny-imagenet" / "val-00.avif")
    for split, count in (("train", 32), ("val", 16)):
        np.save(root / "tiny-imagenet" / f"{split}-labels.npy", np.arange(count) % 3)
    (root / "tiny-imagenet" / "classes.json").write_text(json.dumps([{"words": name} for name in "abc"]))
    write_faces(root / "faces", {"train": 8})
    for place, name in enumerate(SETS):
        seeds = [100 * place + number for number in range(10)]
        if name == "horses":
            seeds[2] = 100 * SETS.index("ecssd")
        files = {}
        for number, seed in enumerate(seeds):
            pixels, mask = scene(seed)
            files |= {f"images/{number}.png": png(pixels), f"masks/{number}.png": png(mask)}
        write_tar(root / "masks" / f"{name}.tar", files)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one step, whose model is part-vitn8 grown from its own weights."""
    folder = tmp_path_factory.mktemp("run")
    for number in range(2):
        Image.fromarray(scene(number)[0]).save(folder / f"{number}.png")
    recipe = replace(read_recipe("part-vitn8.tin"), parent="part-vitn8.tin")
    train("part", recipe=recipe, data=folder, out=folder / "part-vits8", steps=1, batch_size=2, progress=False)
    return folder / "part-vits8"


@pytest.fixture
def files(monkeypatch):
    module = experiment("gpu_burst_files")
    monkeypatch.setattr(module, "STARTS", ("part-vitn8.tin",))
    module._known.cache_clear()
    yield module
    module._known.cache_clear()


def test_the_archive_has_what_there_is_room_for_in_order(data, tmp_path, monkeypatch):
    module = experiment("gpu_burst_files")
    monkeypatch.setattr(module, "_weights", dict)
    kept, left = module.pack(data, tmp_path / "all.tar.gz", MASKS)
    assert kept[:3] == ["faces", "tiny-imagenet/train-00.avif", "tiny-imagenet/train-01.avif"] and not left
    with tarfile.open(tmp_path / "all.tar.gz") as tar:
        names = tar.getnames()
    assert {"partzoo/train/run.py", "weights_manifest.json", "experiments/gpu_burst.py", "data/masks/cars.tar"} <= {
        *names
    }
    assert not [name for name in names if name.endswith((".safetensors", ".pyc"))]

    monkeypatch.setattr(module, "SHEETS", 1)
    monkeypatch.setattr(module, "LIMIT", (tmp_path / "all.tar.gz").stat().st_size - 5000)
    kept, left = module.pack(data, tmp_path / "some.tar.gz", MASKS)
    assert left and "tiny-imagenet/train-00.avif" in kept
    assert (tmp_path / "some.tar.gz").stat().st_size <= module.LIMIT


def test_data_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"lacks .*classes\.json.*train\.npz"):
        experiment("gpu_burst_files").pack(tmp_path, tmp_path / "a.tar.gz", MASKS)


def test_packed_sets_are_read_as_the_whole_ones_are(data, tmp_path):
    module = experiment("gpu_burst_files")
    packed = [*module._sets(data, MASKS, held=True), *module._sets(data, MASKS, held=False)]
    for name, content in packed:
        (tmp_path / f"{name}.tar").write_bytes(content)
    settings = experiment("gpu_burst").masked(MASKS, data)
    options = MaskedOptions(
        sets=tuple(settings["sets"]), shares=tuple(settings["shares"]), report_only=tuple(MASKS.data["report_only"]),
        evaluated=tuple(MASKS.data["evaluated"]),
    )  # fmt: skip
    whole = read_masked(data, options, 32, progress=False)
    with pytest.warns(SkippedWarning):
        some = read_masked(tmp_path, options, 32, progress=False)
    assert len(whole) == 5 * 6 - 1  # without the copy of ECSSD's
    assert torch.equal(whole.batch(torch.arange(len(whole))), some.batch(torch.arange(len(some))))
    assert sum(map(len, dict(packed).values())) < sum((data / "masks" / f"{name}.tar").stat().st_size for name in SETS)


def test_pieces_are_joined_to_the_run_in_bfloat16(run, files, tmp_path, monkeypatch):
    out, left = tmp_path / "out", tmp_path / "left"
    out.mkdir(), left.mkdir()
    monkeypatch.setattr(files, "PIECE", 300_000)
    assert files.send(run, left, out) == 1
    sizes = [file.stat().st_size for file in out.iterdir()]
    assert len(sizes) > 1 and max(sizes) <= 300_000 and not [*left.iterdir()]
    assert sum(sizes) < (run / MODEL).stat().st_size / 2

    (out / "part-vits8.00000009.00-of-02").write_bytes(b"the rest of a later checkpoint did not come back")
    (joined,) = files.join(tmp_path, tmp_path / "runs")
    before, after = (read_tensors(folder / CHECKPOINT)[0] for folder in (run, joined))
    assert after.keys() == {name for name in before if name.startswith("task.")}
    for name, value in after.items():
        same = value.to(torch.float32) if value.ndim <= 1 else before[name].bfloat16().float()
        assert torch.equal(value, same) and value.dtype == before[name].dtype, name
    assert load(joined / MODEL, device="cpu").architecture == "part-vitn8"


def test_tensors_that_training_did_not_change_are_not_sent(run, files, tmp_path):
    tensors, about = read_tensors(run / CHECKPOINT)
    start = load("part-vitn8.tin", device="cpu", dtype="float32").state_dict()
    frozen = {f"task.model.{name}": value for name, value in start.items()}
    still = tmp_path / "still"
    still.mkdir()
    files.save_tensors(still / CHECKPOINT, tensors | frozen, files._without_digest(about))
    (still / "recipe.toml").write_bytes((run / "recipe.toml").read_bytes())
    files.send(still, tmp_path, tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.glob("still.*")) < 20_000
    (joined,) = files.join(tmp_path, tmp_path / "runs")
    after, _ = read_tensors(joined / CHECKPOINT)
    assert all(torch.equal(after[name], value) for name, value in frozen.items())


def test_a_run_that_does_not_fit_is_left_for_later(run, files, tmp_path, monkeypatch):
    out, left = tmp_path / "out", tmp_path / "left"
    out.mkdir(), left.mkdir()
    files.send(run, left, out)
    other = run.rename(run.with_name("part-vitb8"))
    try:
        monkeypatch.setattr(files, "LIMIT", sum(file.stat().st_size for file in out.iterdir()) + 1000)
        files.send(other, left, out)
    finally:
        other.rename(run)
    assert {file.name[:10] for file in out.iterdir()} == {"part-vits8"}
    assert {file.name[:10] for file in left.iterdir()} == {"part-vitb8"}
    with pytest.raises(UsageError, match="no whole checkpoint"):
        files.join(tmp_path / "nothing", tmp_path / "runs")


def test_a_batch_that_does_not_fit_is_halved(tmp_path, monkeypatch):
    module, tried = experiment("gpu_burst"), []

    def fits_at_128(method, *, batch_size, lr, **_):
        tried.append((batch_size, lr))
        if batch_size > 128:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "train", fits_at_128)
    monkeypatch.chdir(tmp_path)
    module.train_one(module.BY_NAME["part-vits8"], tmp_path, 1.0, dry=False)
    assert [batch for batch, _ in tried] == [512, 256, 128]
    assert tried[2][1] == pytest.approx(tried[0][1] / 2)


def test_processes_that_do_not_end_in_time_are_stopped_and_the_list_goes_on(tmp_path, monkeypatch, capsys):
    module, child = experiment("gpu_burst"), tmp_path / "child.py"
    child.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[2] == 'deaf' else signal.SIG_DFL)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(module, "__file__", str(child))
    monkeypatch.setattr(module, "STOP", 1)
    names = {"deaf": "", "polite": "", "heir": f"deaf/{MODEL}"}
    monkeypatch.setattr(module, "LIST", [module.Burst(name, "", "", 1, 1, 1.0, names[name]) for name in names])
    module.train_all(tmp_path, tmp_path / "out", 0.2, dry=False)
    log = capsys.readouterr().out
    assert "deaf: ended with -9" in log and "polite: ended with -2" in log
    assert f"heir: left out, because there is no deaf/{MODEL}" in log


def test_what_was_left_is_fetched_four_pieces_at_a_time(tmp_path):
    (tmp_path / "burst.work" / "left").mkdir(parents=True)
    (tmp_path / "burst.out").mkdir()
    (tmp_path / "burst.out" / "log").touch()
    for number in range(6):
        (tmp_path / "burst.work" / "left" / f"part-vitb8.00000001.0{number}-of-06").touch()
    environment = os.environ | {"BURST": str(tmp_path / "burst"), "OUT": str(tmp_path / "burst.out")}
    for turn, expected in ((1, "0123"), (2, "45")):
        subprocess.run(["bash", EXPERIMENTS / "gpu_burst.sh", "fetch", str(turn)], env=environment, check=True)
        assert sorted(file.name[-7] for file in (tmp_path / "burst.out").iterdir()) == [*expected]


@pytest.mark.slow
def test_every_training_takes_a_step_and_continues_here(data, tmp_path):
    environment = os.environ | {"BURST": str(tmp_path / "burst"), "OUT": str(tmp_path / "out")}

    def burst(*arguments):
        script = str(EXPERIMENTS / "gpu_burst.sh")
        done = subprocess.run(["bash", script, *map(str, arguments)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    module = experiment("gpu_burst")
    assert "Left out: nothing" in burst("pack", data)
    log = burst("run", 9, "--dry")
    assert all(f"{name}: sent step 1" in log and f"{name}: ended with 0" in log for name in module.BY_NAME)
    files = [*(tmp_path / "out").iterdir()]
    assert len(files) <= 8 and max(file.stat().st_size for file in files) <= 16 << 20
    told = burst("unpack", tmp_path / "out")
    assert all(each.recipe in told for each in module.LIST)
    for each in map(module.BY_NAME.__getitem__, ("partformer", "foreground", "part-vitb8")):
        folder, method = tmp_path / "burst" / each.name, read_recipe(each.recipe).method
        continued = partzoo("train", method, "--data", data / each.data, "-o", folder, "--resume", "--steps", 2)
        assert continued.code == 0 and "Trained for 2 steps" in continued.out, continued.err
    assert "mse_x" in burst("compare", "part-vits8", data)
