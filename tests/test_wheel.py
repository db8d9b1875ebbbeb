"""The built wheel holds what an installation without a clone needs."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from partzoo.discovery.factory import FOREGROUND
from partzoo.features import DEFAULT_MODEL
from partzoo.weights.manifest import NAME

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_manifest_and_its_schema_are_inside(wheel):
    assert json.loads(wheel.read(f"partzoo/{NAME}")) == json.loads((ROOT / NAME).read_text())
    assert "partzoo/weights_manifest.schema.json" in wheel.namelist()


def test_every_source_file_is_inside(wheel):
    files = ((ROOT / "partzoo").rglob(f"*.{ending}") for ending in ("css", "html", "js", "py"))
    sources = {path.relative_to(ROOT).as_posix() for found in files for path in found}
    assert "partzoo/report/page.html" in sources
    assert sources <= set(wheel.namelist())
    assert "partzoo/py.typed" in wheel.namelist()
    assert any(name.startswith("partzoo/train/recipes/") and name.endswith(".toml") for name in wheel.namelist())


def test_every_bundled_file_is_inside_and_nothing_else_is(wheel):
    records = json.loads((ROOT / NAME).read_text())["weights"]
    paths = {file["path"] for record in records for file in record["files"] if file["path"].startswith("weights/")}
    assert {f"partzoo/{path}" for path in paths} == {n for n in wheel.namelist() if n.endswith(".safetensors")}
    assert not [name for name in wheel.namelist() if name.startswith(("tests/", "examples/", "checkpoints/"))]


def test_the_wheel_is_small_and_holds_what_needs_no_name(wheel):
    assert sum(each.compress_size for each in wheel.infolist()) <= 25_000_000
    for name in (DEFAULT_MODEL, FOREGROUND, "part-vitn8.tin", "partformer-resnet18.faces-k8"):
        assert f"partzoo/weights/{name}.safetensors" in wheel.namelist()


def test_licence_and_command_are_stated(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    assert "License-Expression: Apache-2.0" in wheel.read(metadata).decode()
    assert [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    (points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "partzoo = partzoo.__main__:run" in wheel.read(points).decode()
