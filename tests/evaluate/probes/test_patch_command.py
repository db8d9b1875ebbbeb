import json

import numpy as np
import pytest
from helpers.command_line import partzoo as command

import partzoo
from partzoo.errors import UsageError
from partzoo.evaluate import run
from partzoo.evaluate.probes import measurement
from partzoo.models.sharing import save_pretrained


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    made = partzoo.load("spatial-conv4", pretrained=False, dtype="float32", size=32, patch_size=12)
    save_pretrained(made, folder)
    return folder


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    """CIFAR-100's binary files: two images of noise for each split and a few names."""
    folder, draw = tmp_path_factory.mktemp("data") / "cifar-100-binary", np.random.default_rng(0)
    folder.mkdir()
    for kind, count in (("fine", 100), ("coarse", 20)):
        (folder / f"{kind}_label_names.txt").write_text("\n".join(f"{kind}{i}" for i in range(count)))
    for split, count in (("train", 30), ("test", 10)):
        rows = draw.integers(0, 256, (count, 3074), dtype=np.uint8)
        rows[:, 0], rows[:, 1] = np.arange(count) % 3, np.arange(count) % 5
        rows.tofile(folder / f"{split}.bin")
    return folder


def test_the_curve_over_patches_is_one_command(model, cifar, tmp_path):
    out = tmp_path / "curve.json"
    arguments = [str(model), "--protocol", "cifar-100-20", "--data", str(cifar), "--seeds", "1", "--patches", "0,3,9"]
    ran = command("eval", *arguments, "-o", str(out))
    assert ran.code == 0, ran.err
    assert "linear (SGD) patches 9" in ran.out
    record = json.loads(out.read_text())
    by_seed = {each["seed"]: set(each["metrics"]) for each in record["runs"]}
    assert by_seed[0] == {f"linear_sgd_patches{n}" for n in (0, 3, 9)}
    assert by_seed[None] == {f"linear_patches{n}" for n in (0, 3, 9)}
    assert record["command"].endswith("--protocol cifar-100-20 --data DIR --seeds 1 --patches 0,3,9")


def test_records_of_augmented_probes_say_so(model, cifar, monkeypatch):
    chosen = {}
    monkeypatch.setattr(measurement, "patch_figures", lambda *_, **options: chosen.update(options) or ([], 0))
    record = run.evaluate(str(model), "cifar-100", cifar, seeds=1, patches=[9], augment=True)
    assert chosen["augment"] and chosen["patches"] == [9]
    assert record["command"].endswith("--seeds 1 --patches 9 --augment")


def test_patches_where_they_do_not_belong_are_refused(model, cifar):
    for options, message in (
        ({"protocol": "faces68", "patches": [9]}, "patches cannot be set for faces68"),
        ({"protocol": "cifar-100", "augment": True}, "an option of probes on patches"),
    ):
        with pytest.raises(UsageError, match=message):
            run.evaluate(str(model), data=cifar, **options)
    ran = command("eval", "--all", "--protocol", "cifar-100", "--data", str(cifar), "--patches", "9")
    assert ran.code == 2 and "--patches and --augment cannot be combined with --all" in ran.err
    ran = command("eval", str(model), "--protocol", "cifar-100", "--data", str(cifar), "--patches", "own")
    assert ran.code == 2 and "must be numbers" in ran.err
