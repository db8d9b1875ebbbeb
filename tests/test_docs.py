"""What README, docs, help texts and examples show is what the package does."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from weight_records import record_of, toy

import partzoo
from partzoo.cli import main
from partzoo.features import DEFAULT_MODEL
from partzoo.manifest import NAME, PACKAGE, WeightFile, manifest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS_MORE = ("dinov2", "timm/", "torch.hub")  # a network, or a clone


def blocks(language: str) -> list:
    """The fenced blocks of all pages, each with the page's name and its number there."""
    return [
        pytest.param(text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL), 1)
    ]


def tables():
    """``docs/tables.py`` as a module."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def released() -> bool:
    """Whether the weights that the pages speak of are in the manifest that is in use."""
    return {DEFAULT_MODEL, "part-vitt8.tin"} <= set(manifest())


def test_the_model_table_is_the_one_that_the_manifest_gives():
    text = (ROOT / "README.md").read_text()
    table = tables().models(manifest(ROOT / NAME))
    assert tables().filled(text, table) == text, "run: python docs/tables.py"


def test_a_record_becomes_a_row_with_its_figures_data_and_terms():
    record = record_of(toy(), (WeightFile("weights/toy-vit.test.safetensors", "0" * 64, 12_300_000),))
    row = tables().models({record.name: record}).splitlines()[-1]
    for words in ("`toy-vit.test`", "top-1 0.125", "12.3 MB, in the package", record.terms, "| no |"):
        assert words in row


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
    monkeypatch.chdir(tmp_path)
    images = ROOT / "examples" / "images"
    (tmp_path / "herons").mkdir()
    for target in ("heron.jpg", "new.jpg", "herons/1.jpg", "herons/2.jpg"):
        shutil.copy(images / "ibis.jpg", tmp_path / target)
    partzoo.fit_parts("herons/", k=2).save("herons.parts.safetensors")
    exec(compile(text, "snippet", "exec"), {})


def commands() -> list:
    """Every ``partzoo ...`` line of the pages and of the commands' own examples."""
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
