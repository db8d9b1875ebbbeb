"""Guards against what other software does with valid input, and the page that lists them."""

import ast
import re
from pathlib import Path

import pytest

import partzoo

ROOT = Path(__file__).parents[1]
PACKAGE = Path(partzoo.__file__).parent
PAGE = ROOT / "docs" / "other-software.md"
TREES = {
    file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")
}
MODELS = [name for name in TREES if name.startswith("models/")]
# The bench measures what others do with the same weights or images.
PACKAGED = [name for name in TREES if not name.startswith("bench/")]


def imported(name: str) -> set[str]:
    """What a file of the package imports from elsewhere, as ``module`` and ``module.name``."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def calls(name: str) -> list[ast.Call]:
    return [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    """The last name of what a call calls."""
    return ast.unparse(call.func).rpartition(".")[2]


def test_one_module_writes_and_reads_safetensors():
    used = {name: {each for each in imported(name) if each.startswith("safetensors.")} for name in PACKAGED}
    assert {name for name, names in used.items() if names} == {"weights/tensors.py"}
    opened = [call for name in PACKAGED for call in calls(name) if called(call) == "safe_open"]
    assert len(opened) == 1


def test_images_are_decoded_by_pillow_and_turned_upright_in_one_place():
    others = {"cv2", "imageio", "skimage", "torchvision", "pyvips"}
    assert not {name for name in PACKAGED if {each.partition(".")[0] for each in imported(name)} & others}
    assert not {name for name in TREES for call in calls(name) if called(call) == "exif_transpose"}
    nodes = ((name, node) for name, tree in TREES.items() for node in ast.walk(tree))
    turning = {name for name, node in nodes if isinstance(node, ast.Attribute) and node.attr == "Orientation"}
    assert turning == {"images/strips.py"}


def test_files_elsewhere_are_opened_in_one_place():
    using = {name for name in PACKAGED for each in imported(name) if each.partition(".")[0] == "fsspec"}
    assert using == {"collections/storage.py"}


def test_the_hub_s_errors_and_files_do_not_depend_on_its_http_library():
    http = {"httpx", "httpx2", "requests", "aiohttp", "urllib3"}
    assert not {name for name in TREES if {each.partition(".")[0] for each in imported(name)} & http}
    assert not {name for name in TREES for call in calls(name) if called(call) == "snapshot_download"}


def test_models_take_the_batch_from_the_shape():
    """An exporter takes ``len(x)`` for a plain number, which fixes the batch without a word."""
    found = []
    for name in MODELS:
        for function in (node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef)):
            given = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
            kinds = {each.arg: ast.unparse(each.annotation) for each in given if each.annotation is not None}
            tensors = {arg for arg, kind in kinds.items() if kind in ("Tensor", "Tensor | None")}
            found += [
                f"{name}:{call.lineno}"
                for call in ast.walk(function)
                if isinstance(call, ast.Call) and called(call) == "len" and ast.unparse(call.args[0]) in tensors
            ]
    assert not found, "take x.shape[0]"


def test_models_use_nothing_that_exporters_write_with_other_values():
    functions = {"scatter_reduce", "logaddexp", "atan2", "arctan2", "index_reduce"}
    options = {"divisor_override", "ceil_mode", "decimals"}
    used = [(name, called(call), {each.arg for each in call.keywords}) for name in MODELS for call in calls(name)]
    assert not [name for name, function, _ in used if function in functions]
    assert not [name for name, _, given in used if given & options]
    antialiased = [given for _, function, given in used if function == "interpolate" and "antialias" in given]
    assert antialiased and not [given for given in antialiased if "scale_factor" in given], "resize by the size"


def guards() -> list:
    """Each link of the page whose text is the name of a test: the name, and the file that it leads to."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", text)
    return [pytest.param(name, (PAGE.parent / target).resolve(), id=name) for name, target in found]


@pytest.mark.parametrize(("name", "file"), guards())
def test_each_test_that_the_page_names_exists(name, file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_each_row_of_what_partzoo_guards_names_its_test():
    guarded, _, _ = PAGE.read_text(encoding="utf-8").partition("## Before you export yourself")
    rows = [line for line in guarded.splitlines() if line.startswith("|") and not line.startswith("|-")]
    bare = [row for row in rows if "[`test_" not in row and not row.endswith("| test |")]
    assert len(rows) > 20 and not bare
