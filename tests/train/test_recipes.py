"""Recipes that are part of partzoo, and settings that override theirs."""

import functools
import os
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.command_line import partzoo
from PIL import Image

from partzoo.errors import UsageError, WeightsError
from partzoo.locks import locked
from partzoo.models.registry import find, split_tag
from partzoo.settings import check_tables, checked, parse_settings, to_toml, types_of
from partzoo.train.loop import LoopOptions
from partzoo.train.recipe import BUDGET, Recipe, read_recipe, recipes
from partzoo.train.run import RECIPE, carried_over, setting_types, train
from partzoo.train.tasks import methods
from partzoo.weights.tensors import read_state

SMALL = {"dim": 24, "depth": 1, "heads": 2, "size": 32}


@functools.cache
def built(name, config):
    """An architecture without memory for its weights."""
    with torch.device("meta"):
        return find(name).build(config)


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_one_of_a_registered_architecture_and_all_its_settings_exist(name):
    recipe = read_recipe(name)
    entry = find(recipe.architecture)
    assert recipe.method in methods()
    assert split_tag(name)[0] == recipe.architecture == entry.name and split_tag(name)[1]
    given = {table: getattr(recipe, table) for table in ("task", "config", "loop", "data")}
    given = check_tables(recipe.method, given, setting_types(recipe.method, entry))
    LoopOptions(**{each: getattr(recipe, each) for each in BUDGET}, **given["loop"])
    data = methods()[recipe.method].DATA(**given["data"])
    assert data.name and data.terms
    built(entry.name, entry.configure(given["config"]))


def test_the_papers_schedules_fall_where_their_code_says():
    for name, epochs, milestones in (
        ("partformer-vits8.celeba-k4", 15, (10, 13)),
        ("partformer-vits8.cub-f", 100, (90, 95)),
        ("partformer-vits8.partimagenet-k4", 200, (180, 190)),
        ("mpae-vitb14reg.cub-k16", 100, (80, 90)),
        ("mpae-vitb14reg.celeba-k16", 20, (15, 18)),
        ("mpae-vitb14reg.partimagenet-seg-k50", 70, (50, 60)),
    ):
        recipe = read_recipe(name)
        assert recipe.epochs == epochs and recipe.loop["factor"] == 0.2
        assert np.abs(np.array(recipe.loop["milestones"]) * epochs - milestones).max() < 0.01


# Settings


def test_settings_go_to_their_tables_as_toml_reads_them():
    texts = ["alpha=0.5", "exchange=false", "network=timm/vgg19.tv_in1k", "config.parts=4", "loop.lr=1e-4",
             "data.categories=['a', 'b']", "presence=area"]  # fmt: skip
    assert parse_settings(texts) == {
        "task": {"alpha": 0.5, "exchange": False, "network": "timm/vgg19.tv_in1k", "presence": "area"},
        "config": {"parts": 4},
        "loop": {"lr": 1e-4},
        "data": {"categories": ["a", "b"]},
    }
    with pytest.raises(UsageError, match="--set alpha is not KEY=VALUE"):
        parse_settings(["alpha"])


@pytest.mark.parametrize(
    ("method", "architecture", "key", "value", "message"),
    [
        ("partformer", "partformer-resnet18", "task.exchnage", True, r"'exchnage'.*Did you mean 'exchange'"),
        ("partformer", "partformer-resnet18", "config.taus", 1, r"'config\.taus'.*Did you mean 'config\.tau'"),
        ("partformer", "partformer-resnet18", "task.tau", 1, r"'tau'.*Its settings are exchange, .*loop\.lr"),
        ("partformer", "partformer-resnet18", "task.exchange", 1, r"exchange=1 must be true or false"),
        ("partformer", "partformer-resnet18", "task.alpha", "much", r"alpha='much' must be a number"),
        ("partformer", "partformer-resnet18", "task.network_weights", 1.0, r"must be a list, each a number"),
        ("mpae", "mpae-patchresnet14", "task.presence", "pair", r"presence='pair' must be 'group', 'batch' or 'area'"),
        ("mpae", "mpae-patchresnet14", "config.parts", 4.5, r"config\.parts=4\.5 must be a whole number"),
        ("mpae", "mpae-patchresnet14", "loop.betas", [0.9], r"loop\.betas=\[0\.9\] must be a list of 2, each a number"),
        ("part", "part-vitt8", "data.layout", "imagenet", r"data\.layout='imagenet' must be 'folder', 'aflw'"),
    ],
)  # fmt: skip
def test_a_wrong_setting_says_what_is_right(method, architecture, key, value, message):
    table, name = key.split(".")
    given = {each: {} for each in ("task", "config", "loop", "data")} | {table: {name: value}}
    with pytest.raises(UsageError, match=message):
        check_tables(method, given, setting_types(method, find(architecture)))


def test_values_become_what_is_meant():
    kinds = types_of(LoopOptions)
    assert checked("lr", 1, kinds["lr"]) == 1.0 and isinstance(checked("lr", 1, kinds["lr"]), float)
    assert checked("milestones", [0.5], kinds["milestones"]) == (0.5,)
    assert checked("steps", None, kinds["steps"]) is None
    for value in (True, "1", float("nan")):
        with pytest.raises(UsageError):
            checked("lr", value, kinds["lr"])


def test_toml_that_is_written_reads_the_same():
    values = {"text": 'a "quoted"\nline \\ é', "none": None, "table": {"yes": True, "n": 3, "x": 5e-05, "big": 1e22,
              "inf": float("inf"), "list": (0.5, 2.0), "texts": ["a", "b"]}, "empty": {}}  # fmt: skip
    read = tomllib.loads(to_toml(values))
    assert read["text"] == values["text"] and set(read) == {"text", "table"}
    assert read["table"] == values["table"] | {"list": [0.5, 2.0]}


# A run's own recipe


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(10):
        pixels = generator.integers(0, 256, (40, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def test_a_run_records_its_settings_and_can_be_repeated(folder, tmp_path):
    settings = [f"config.{name}={value}" for name, value in SMALL.items()]
    settings += [
        "pairs=16",
        "loop.batch_size=3",
        "loop.schedule=multistep",
        "loop.milestones=[0.5]",
        "data.frame=squash",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    first, second = tmp_path / "runs/first", tmp_path / "runs/second"
    ran = partzoo("train", "part", "--data", folder, "--epochs", 2, "--seed", 7, "--limit", 6, "-o", first, *options)
    assert ran.code == 0, ran.err
    recipe = read_recipe(first / RECIPE)
    assert (recipe.method, recipe.architecture, recipe.epochs, recipe.minutes) == ("part", "part-vitn8", 2, None)
    assert SMALL.items() <= recipe.config.items() and recipe.task["pairs"] == 16
    assert (recipe.loop["seed"], recipe.loop["batch_size"], recipe.loop["milestones"]) == (7, 3, [0.5])
    assert (recipe.data["frame"], recipe.data["limit"], recipe.data["name"]) == ("squash", 6, str(folder))
    assert "terms" not in recipe.data
    _, state = train("part", recipe=first / RECIPE, data=folder, out=second, progress=False)
    assert state.step == 4 and (second / RECIPE).read_text() == (first / RECIPE).read_text()
    one, other = (read_state([run / "model.safetensors"]) for run in (first, second))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_goes_on_with_its_own_settings(folder, tmp_path):
    run, loop = tmp_path / "run", {"batch_size": 2, "lr": 5e-4}
    train("part", data=folder, out=run, steps=1, config=SMALL, task={"pairs": 16}, progress=False, **loop)
    model, state = train("part", data=folder, out=run, steps=3, resume=True, progress=False)
    assert state.step == 3 and model.config.dim == 24
    recipe = read_recipe(run / RECIPE)
    assert (recipe.task["pairs"], recipe.loop["lr"], recipe.steps) == (16, 5e-4, 3)
    before = (run / RECIPE).read_text()
    with pytest.raises(UsageError, match="already holds a run"):
        train("part", data=folder, out=run, steps=1, config=SMALL, task={"pairs": 8}, progress=False)
    assert (run / RECIPE).read_text() == before


def test_other_settings_of_a_resumed_run_are_named_and_recorded_with_its_checkpoint(folder, tmp_path, recwarn):
    run = tmp_path / "run"
    train("part", data=folder, out=run, steps=1, batch_size=2, config=SMALL, progress=False)
    before = (run / RECIPE).stat()
    train("part", data=folder, out=run, steps=1, resume=True, progress=False)
    assert (run / RECIPE).stat() == before  # the same settings: not written again
    assert not [each for each in recwarn if "other settings" in str(each.message)]
    (tmp_path / "data").symlink_to(folder)
    changed = {"batch_size": 3, "lr": 1e-4}
    with pytest.warns(UserWarning, match=(
        r"^The run goes on with other settings: loop\.batch_size was 2, is 3, loop\.lr was 0\.\d+, is 0\.0001, "
        r"data\.name was '.*', is '.*/data'\.$"
    )):  # fmt: skip
        train("part", data=tmp_path / "data", out=run, steps=2, resume=True, progress=False, **changed)
    assert read_recipe(run / RECIPE).loop["batch_size"] == 3


def test_a_resumption_that_fails_leaves_the_recipe(folder, tmp_path):
    run = tmp_path / "run"
    train("part", data=folder, out=run, steps=1, batch_size=2, config=SMALL, progress=False, log_steps=1)
    before = {each: each.read_bytes() for each in (run / RECIPE, run / "checkpoint.safetensors")}
    options = {"data": folder, "out": run, "steps": 3, "resume": True, "progress": False}
    with pytest.raises(UsageError, match=r"checkpoint of step 1 is kept\. Add resume=True and a lower lr="):
        train("part", lr=1e30, **options)
    assert {each: each.read_bytes() for each in before} == before
    (run / "checkpoint.safetensors").write_bytes(b"")
    recipe, log = (run / RECIPE).read_bytes(), (run / "log.csv").read_bytes()
    with pytest.raises(WeightsError):
        train("part", lr=1e-4, **options)
    assert ((run / RECIPE).read_bytes(), (run / "log.csv").read_bytes()) == (recipe, log)


def test_a_second_training_in_a_folder_is_refused_before_the_data_is_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("partzoo.train.run._data", lambda *_: pytest.fail("data was read"))
    with locked(tmp_path):
        ran = partzoo("train", "part", "--data", folder, "--steps", 1, "-o", tmp_path)
    assert ran.code == 2 and f"is being written by process {os.getpid()} on" in ran.err and ran.err.count("\n") == 1


def test_a_run_never_replaces_what_it_begins_with(folder, tmp_path):
    """Neither a recipe that someone has written, nor the model whose weights are taken, by whatever path."""
    run = tmp_path / "run"
    run.mkdir()
    text = 'method = "part"\narchitecture = "part-vitn8"\nsteps = 1  # to begin with\n'
    (run / RECIPE).write_text(text)
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(UsageError, match="would replace"):
        train("part", data=folder, out=run, recipe=tmp_path / "link" / RECIPE)
    assert [(each.name, each.read_text()) for each in run.iterdir()] == [(RECIPE, text)]
    (run / RECIPE).unlink()
    (run / "model.safetensors").write_bytes(b"precious")
    for out, resume in ((run, True), (tmp_path / "link", True), (run / ".." / "run", False)):
        with pytest.raises(UsageError, match="would replace"):
            train("part", data=folder, out=out, grow_from=str(run / "model.safetensors"), resume=resume)
    with pytest.raises(UsageError, match="already holds a run"):
        train("part", data=folder, out=run, config=SMALL, grow_from="none")
    assert [each.read_bytes() for each in run.iterdir()] == [b"precious"]


def test_another_architecture_gets_its_own_sizes_from_a_runs_recipe(folder, tmp_path):
    budget = {"data": folder, "steps": 1, "batch_size": 2, "grow_from": "none", "progress": False}
    small, _ = train("part", out=tmp_path / "a", config={"size": 32}, task={"pairs": 16}, **budget)
    recipe = tmp_path / "a" / RECIPE
    large, _ = train("part", out=tmp_path / "b", recipe=recipe, model="part-vitt8", config={"depth": 1}, **budget)
    registered = find("part-vitt8").config
    assert (large.config.dim, large.config.heads) == (registered.dim, registered.heads) != (small.config.dim, 1)
    assert large.config.size == small.config.size == 32 != registered.size and large.config.depth == 1
    assert read_recipe(tmp_path / "b" / RECIPE).task["pairs"] == 16
    with pytest.raises(UsageError, match=r"model='part-vitt8': the run in .* trains part-vitn8\. Leave model out"):
        train("part", out=tmp_path / "a", model="part-vitt8", resume=True, **(budget | {"steps": 2}))
    assert read_recipe(recipe).architecture == "part-vitn8"


def test_a_size_that_a_run_set_for_another_architecture_is_refused(folder, tmp_path):
    budget = {"data": folder, "steps": 1, "batch_size": 2, "grow_from": "none", "progress": False}
    train("part", out=tmp_path / "a", config={"dim": 24, "heads": 2}, task={"pairs": 16}, **budget)
    with pytest.raises(
        UsageError, match=r"sets config\.dim=24 for part-vitn8, but part-vitt8 has 192\. Set config\.dim"
    ):
        train("part", out=tmp_path / "b", recipe=tmp_path / "a" / RECIPE, model="part-vitt8", **budget)


def test_all_values_of_a_recipe_that_states_few_hold_for_another_architecture():
    recipe, entry = read_recipe("partformer-resnet18.celeba-k8"), find("partformer-vits8")
    assert entry.config.parts != 8 and carried_over(recipe, entry, {}, {}) == {"parts": 8}


def test_settings_stand_in_place_of_the_recipe_s():
    recipe = read_recipe("partformer-vits8.cub-1")
    assert isinstance(recipe, Recipe) and recipe.data["categories"] == ["001.Black_footed_Albatross"]
    ran = partzoo("train", "partformer", "--data", ".", "--recipe", "partformer-vits8.cub-f", "--set", "alfa=1")
    assert ran.code == 2 and "Did you mean 'alpha'" in ran.err
    ran = partzoo("train", "--release", "part-vitt8.tin", "--data", ".", "--set", "pairs=1")
    assert ran.code == 2 and "--set cannot be set with --release" in ran.err


def test_parts_of_each_class_need_as_many_classes(folder, tmp_path):
    with pytest.raises(UsageError, match=r"config\.classes=3, but data=.* has no classes"):
        train("partformer", data=folder, out=tmp_path / "run", steps=1, config={"classes": 3}, progress=False)


def shown():
    """Return the training commands of a docs page that use a recipe."""
    page = Path(__file__).parents[2] / "docs" / "training.md"
    lines = [line for line in page.read_text().splitlines() if line.startswith("partzoo train ")]
    return [line for line in lines if "--set" in line or "--recipe" in line]


@pytest.mark.parametrize("line", shown(), ids=lambda line: line.rpartition("-o ")[2])
def test_settings_that_the_docs_show_are_settings_there_are(line):
    method, *words = shlex.split(line)[2:]
    options = list(pairwise(words))
    name = dict(options).get("--recipe", methods()[method].RECIPE)
    recipe = read_recipe(name if name in recipes() else methods()[method].RECIPE)
    assert recipe.method == method
    given = parse_settings([value for option, value in options if option == "--set"])
    entry = find(recipe.architecture)
    given = check_tables(method, given, setting_types(method, entry))
    config = recipe.config | given["config"]
    if config.get("encoder") == "models/mocov3":  # a folder that the page's line before makes
        config["encoder"] = "mocov3-vitb16"
    assert not given["config"] or built(entry.name, entry.configure(config))
