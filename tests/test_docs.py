"""The README, docs, help texts and examples agree with the package."""

import ast
import importlib
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from helpers.weight_records import record_of, toy

import partzoo
from partzoo.cli import main
from partzoo.errors import UsageError
from partzoo.evaluate import reproduction
from partzoo.evaluate.floors import BOX, FLOORS
from partzoo.evaluate.measurement import digest
from partzoo.evaluate.report import read_csv, rows, write_csv
from partzoo.features import DEFAULT_MODEL
from partzoo.weights.manifest import NAME, PACKAGE, WeightFile, manifest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_ARGUMENTS = "onnx_parts.py"  # runs in tests/export/test_example.py
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != WITH_ARGUMENTS)
NEEDS_MORE = (
    "dinov2",
    "timm/",
    "torch.hub",
    "import polars",
    "import ray",
    "import datasets",
)  # a network, a clone, or other libraries
if importlib.util.find_spec("supervision") is None:  # which brings 100 MB of video codecs, and is not in the extra dev
    NEEDS_MORE += ("to_supervision",)


def blocks(language: str) -> list:
    """The fenced blocks of all pages, each with the page's name and its number there."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1)
    ]


def tables():
    """Import ``scripts/tables.py`` as a module."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "scripts" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def released() -> bool:
    """Return whether the manifest in use has the weights that the pages mention."""
    return {DEFAULT_MODEL, "part-vitt8.tin"} <= set(manifest())


TABLES = tables()


@pytest.fixture
def clone(tmp_path):
    """Make a clone with this one's pages, manifest and bench, and invented results."""
    for name in (
        *TABLES.PAGES,
        NAME,
        *(f"results/{file}" for file in ("bench.json", "ordinary.csv", "reliability.json")),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    asked = {
        "faces68": {k: (*TABLES.FACES, *TABLES.FACES_MORE) for k in (4, 8, 16)},
        **{name: {None: TABLES.FOREGROUND} for name in TABLES.MASKS},
        **{name: {8: TABLES.LABELLED} for name in TABLES.LABEL_MAPS},
        **{name: {None: TABLES.TAUGHT_FIGURES} for name in TABLES.TAUGHT},
        "tiny-imagenet": {
            None: (*TABLES.PROBES, *TABLES.POSITIONS, *TABLES.RELATIONS, "constant_mse_x", "random_antisymmetry")
        },
    }
    for protocol, metrics in asked.items():
        records = [
            {
                "format": 1, "protocol": protocol, "split": "report", "model": model, "setting": "default",
                "images": 489, "command": f"partzoo eval {model} --protocol {protocol} --data DIR",
                "runs": [
                    {"k": k, "seed": seed, "metrics": {name: 20.0 + seed + number for name in names}}
                    for k, names in metrics.items() for seed in (0, 1)
                ],
            }
            for number, model in enumerate((*manifest(ROOT / NAME), *FLOORS, BOX))
        ]  # fmt: skip
        write_csv(records, tmp_path / "results" / f"{protocol}.csv")
    return tmp_path


@pytest.mark.parametrize("name", TABLES.PAGES)
def test_pages_show_what_manifest_results_and_protocols_say(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert TABLES.page(name, TABLES.Sources(ROOT)) == text, "run: python scripts/tables.py"


@pytest.mark.parametrize("protocol", ["faces68", "tiny-imagenet"])
def test_results_are_those_of_the_records_of_the_released_weights(protocol):
    files = (ROOT / "results" / "eval" / protocol).glob("*.json")
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    assert read_csv(ROOT / "results" / f"{protocol}.csv") == rows(records)
    measured = {record["model"]: record["weights_sha256"] for record in records}
    names = [name for name in manifest(ROOT / NAME) if name in {*reproduction.measured(), *measured}]
    released = {name: digest(partzoo.load(name, device="cpu", dtype="float32")) for name in names}
    assert {name: measured[name] for name in released} == released


@pytest.mark.parametrize("name", TABLES.PAGES)
def test_a_digit_changed_in_a_page_is_noticed(name, clone):
    TABLES.main(clone)
    sources, page = TABLES.Sources(clone), clone / name
    written = page.read_text(encoding="utf-8")
    assert TABLES.page(name, sources) == written
    for mark in TABLES.PAGES[name]:
        _, begin, rest = written.partition(f"<!-- {mark}: written by python scripts/tables.py -->")
        digit = re.search(r"\d", rest.partition("<!-- end of")[0])
        start = len(written) - len(rest) + digit.start()
        page.write_text(f"{written[:start]}{(int(digit[0]) + 1) % 10}{written[start + 1 :]}", encoding="utf-8")
        assert TABLES.page(name, sources) == written != page.read_text(encoding="utf-8"), begin


def test_a_digit_changed_in_the_results_is_noticed(clone):
    TABLES.main(clone)
    results = clone / "results" / "faces68.csv"
    results.write_text(re.sub(r"(,8,nmi5,\d+)\.5,", r"\1.7,", results.read_text()))
    for name in ("README.md", "docs/evaluation.md", "docs/reproduction.md"):
        assert TABLES.page(name, TABLES.Sources(clone)) != (clone / name).read_text(encoding="utf-8")


def test_results_that_lack_a_weight_name_the_command(clone):
    results = clone / "results" / "tiny-imagenet.csv"
    kept = [line for line in results.read_text().splitlines() if not line.startswith("part-vitt8.tin")]
    results.write_text("\n".join(kept) + "\n")
    with pytest.raises(UsageError, match=r"lacks part-vitt8\.tin\. Run: partzoo eval --all --protocol tiny-imagenet"):
        TABLES.Sources(clone).results("tiny-imagenet")


def test_nothing_is_written_when_a_page_cannot_be(clone):
    (clone / "results" / "tiny-imagenet.csv").unlink()
    before = (clone / "README.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="partzoo eval --all --protocol tiny-imagenet"):
        TABLES.main(clone)
    assert (clone / "README.md").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_mark_is_one_that_is_filled(page):
    marks = re.findall(r"<!-- (.*): written by python scripts/tables.py -->", page.read_text(encoding="utf-8"))
    assert sorted(marks) == sorted(TABLES.PAGES.get(page.relative_to(ROOT).as_posix(), {}))


@pytest.mark.parametrize("text", ["no marks", "<!-- models: written by python scripts/tables.py -->", "{0}{0}"])
def test_a_page_without_its_marks_is_an_error(text):
    both = "<!-- models: written by python scripts/tables.py -->\n<!-- end of models -->"
    with pytest.raises(ValueError, match="models"):
        TABLES.filled(text.format(both), "models", "table")


def test_a_record_becomes_a_row_with_its_figures_data_and_terms():
    record = record_of(toy(), (WeightFile("weights/toy-vit.test.safetensors", "0" * 64, 12_300_000),))
    row = TABLES.models({record.name: record}).splitlines()[-1]
    for words in ("`toy-vit.test`", "top-1 0.125", "12.3 MB, in the package", record.terms, "| none |"):
        assert words in row


def test_the_readme_shows_one_figure_for_each_measured_weight_beside_the_best_floor():
    lines = TABLES.overview(manifest(ROOT / NAME), TABLES.Sources(ROOT).results).splitlines()
    row = next(line for line in lines if line.startswith("| `partformer-resnet18.faces-k8` |"))
    floors = [each for each in read_csv(ROOT / "results" / "faces68.csv") if each.model in FLOORS]
    best = max(each.mean for each in floors if (each.metric, each.k, each.setting) == ("nmi5", 8, "default"))
    assert f"({best:.1f})" in row and "| PartFormer |" in row
    assert not any(".masks-first" in line for line in lines), "it has a training loss alone"


def test_the_readme_counts_what_the_reader_of_the_sheets_found(tmp_path):
    sheet = tmp_path / "ordinary.csv"
    sheet.write_text("number,name,foreground,parts,remark\n1,a,1,0,\n2,b,1,1,\n3,c,0,0,\n")
    sentence = " ".join(TABLES.ordinary(sheet).split())
    assert "settings on 3 [" in sentence and "right on 2 of them, and the parts were sensible on 1." in sentence


def test_the_installed_manifest_is_the_clone_s():
    assert manifest() == manifest(ROOT / NAME)


@pytest.mark.parametrize("text", blocks("python"))
def test_snippets_name_what_exists_and_call_it_rightly(text):
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "partzoo":
            assert hasattr(partzoo, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("partzoo."):
            called = eval(ast.unparse(node.func), {"partzoo": partzoo})
            inspect.signature(called).bind(*node.args, **{keyword.arg: None for keyword in node.keywords})


@pytest.mark.parametrize(
    "text", [block for block in blocks("python") if not any(w in block.values[0] for w in NEEDS_MORE)]
)
def test_snippets_run(text, tmp_path, monkeypatch):
    if not released():
        pytest.skip("the default weights are not released yet")
    if "onnxruntime" in text:
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    for name in ("examples", "weights_manifest.json", "checkpoints"):  # the pages say that snippets run in a clone
        (tmp_path / name).symlink_to(ROOT / name)
    exec(compile(text, "snippet", "exec"), {})


def commands() -> list:
    """Return every ``partzoo ...`` line of the pages and of the commands' examples."""
    lines = [line for block in blocks("bash") for line in block.values[0].splitlines()]
    for command in (main, *main.commands.values()):
        lines += (command.epilog or "").splitlines()
    found = []
    for line in lines:
        for piece in re.split(r"&&|#|>>?|\s{3,}(?!partzoo)", line.strip()):
            piece = re.sub(r"^\w+: +", "", piece.strip())
            if piece.startswith("partzoo "):
                found.append(piece)
    return sorted(set(found))


@pytest.mark.parametrize("line", commands())
def test_commands_shown_are_commands_there_are(line):
    _, name, *arguments = shlex.split(line)
    try:
        main.commands[name].make_context(name, arguments, obj=[])
    except click.exceptions.Exit as done:
        assert done.exit_code == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_run_offline(path, tmp_path):
    if not released():
        pytest.skip("the default weights are not released yet")
    if "import duckdb" in path.read_text(encoding="utf-8"):
        pytest.importorskip("duckdb")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(PACKAGE.parent),
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run([sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_command_is_in_the_changelog():
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert [name for name in main.commands if name not in changes] == []
