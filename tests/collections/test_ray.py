"""The engine ``ray``, and stages in a user's own dataset of Ray Data; slow, because a cluster is started."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.image_sets import encoded

import partzoo
from partzoo.collections.run import write_collection

ray = pytest.importorskip("ray")
data = pytest.importorskip("ray.data")
pytest.importorskip("pycocotools")

MODEL = "toy-vit"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    """A cluster on this machine, which reports nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(partzoo.__file__).parents[1]), *sys.path]))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """The images, with a damaged one among them."""
    place = tmp_path_factory.mktemp("ray") / "images"
    shutil.copytree(images, place)
    (place / "a" / "3.png").write_bytes(encoded(3)[:200])
    return place


def contents(folder):
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    write_collection(folder, partzoo.ExtractFeatures(MODEL), out, per_shard=2)
    return contents(out)


def test_the_command_starts_a_cluster_by_itself(folder, whole, tmp_path):
    words = ["features", str(folder), "--model", MODEL, "--pooled", "--per-shard", "2"]
    words += ["-o", str(tmp_path / "out"), "--format", "parquet", "--run-on", "ray"]
    ran = subprocess.run([sys.executable, "-m", "partzoo", *words], capture_output=True, text=True)
    assert ran.returncode == 1 and "1 of the 7 images could not be read" in ran.stderr, ran.stderr
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_ray_makes_the_bytes_of_the_local_engine(cluster, workers, folder, whole, tmp_path):
    write_collection(folder, partzoo.ExtractFeatures(MODEL), tmp_path, per_shard=2, engine="ray", workers=workers)
    assert contents(tmp_path) == whole


def test_taught_parts_are_those_of_the_local_engine(cluster, folder, tmp_path):
    labels = np.zeros((24, 32), np.uint8)
    labels[:12, :16], labels[12:, 16:] = 1, 2
    words = partzoo.fit_parts([encoded(0)], labels=[labels], names=["head", "legs"], model=MODEL)
    for engine in ("local", "ray"):
        write_collection(folder, partzoo.DiscoverParts(words), tmp_path / engine, per_shard=2, engine=engine)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def test_an_error_of_a_worker_is_one_of_ours(cluster, folder, tmp_path):
    stage = partzoo.ExtractFeatures("no-such-model")
    with pytest.raises(partzoo.UnknownModelError, match="no-such-model"):
        write_collection(folder, stage, tmp_path / "out", engine="ray")


@pytest.mark.parametrize("form", ["class", "instance"])
def test_stages_in_a_dataset_of_mixed_images(cluster, form):
    """Arrays, of which Ray gives grey ones beside colour a leading axis; then encoded bytes, one of them damaged."""
    draw = np.random.default_rng(0)
    grey, colour = (draw.integers(0, 256, shape, np.uint8) for shape in ((24, 32), (20, 16, 3)))
    for images in ([grey, colour, grey], [encoded(0), encoded(1)[:200], encoded(2)]):
        rows = data.from_items(
            [{"key": str(i), "image": image} for i, image in enumerate(images)], override_num_blocks=1
        )
        if form == "class":
            compute = data.ActorPoolStrategy(size=1)
            made = rows.map_batches(partzoo.ExtractFeatures, fn_constructor_args=(MODEL,), compute=compute)
        else:
            made = rows.map_batches(partzoo.ExtractFeatures(MODEL))
        for row in made.take_all():
            image = images[int(row["key"])]
            if row["error"]:
                assert row["key"] == "1" and isinstance(image, bytes)
            else:
                assert np.array_equal(row["pooled"], partzoo.extract_features(image, model=MODEL).pooled)
