"""Imports go one way: from commands down to files and errors, and never round in a circle."""

import ast
from pathlib import Path

import partzoo

ROOT = Path(partzoo.__file__).parent

# From the top down. A package or module may import those of later lines, and those of its own line without a circle.
LAYERS = (
    ("cli", "__main__"),
    ("bench", "demo"),
    ("train",),
    ("evaluate",),
    ("export",),
    ("collections",),
    (
        *("attention", "conversion", "discovery", "estimators", "features", "hub", "light", "matching", "pyramid"),
        *("reconstruction", "relations", "report", "swapping"),
    ),
    ("models",),
    ("tracing",),
    ("data", "images", "parts", "signals", "weights"),
    ("archives",),
    ("addresses", "errors", "files", "limits", "locks", "skipping", "places", "progress", "settings", "system"),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(ROOT.rglob("*.py"))}


def targets(node: ast.AST) -> list[str]:
    """Return the package's modules that a statement imports, except the package itself, whose names are lazy."""
    if isinstance(node, ast.Import):
        found = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        found = [name if name in MODULES else node.module for name in inside]
    else:
        return []
    return [name for name in found if name in MODULES and name != "partzoo"]


def imports(file: Path) -> tuple[set[str], set[str]]:
    """Return what a file imports at run time, also inside functions, and what it imports for annotations only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    run, annotated = set(), set()
    for node in ast.walk(tree):
        (annotated if id(node) in typing else run).update(targets(node))
    return run, annotated


GRAPH = {name: imports(file) for name, file in MODULES.items() if name != "partzoo"}


def first(module: str) -> str:
    return module.split(".")[1]


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Return a path back to itself for each node that has one."""
    found, done = [], set()

    def follow(node: str, path: list[str]) -> None:
        if node in path:
            found.append(" > ".join([*path[path.index(node) :], node]))
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                follow(target, [*path, node])
            done.add(node)

    for node in sorted(graph):
        follow(node, [])
    return found


def test_every_package_has_its_layer():
    assert {first(name) for name in GRAPH} == set(LAYER)


def test_imports_go_down():
    """Annotations count too, since naming a type of a higher layer is a dependency."""
    upward = [
        f"{name} imports {target}"
        for name, (run, annotated) in GRAPH.items()
        for target in sorted(run | annotated)
        if LAYER[first(target)] < LAYER[first(name)]
    ]
    assert not upward


def test_modules_import_each_other_in_no_circle():
    """Imports inside functions count as well."""
    assert not circles({name: run for name, (run, _) in GRAPH.items()})


def test_packages_import_each_other_in_no_circle():
    packages: dict[str, set[str]] = {name: set() for name in LAYER}
    for name, (run, annotated) in GRAPH.items():
        packages[first(name)] |= {first(target) for target in run | annotated} - {first(name)}
    assert not circles(packages)


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b > c > b"]
