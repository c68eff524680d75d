"""The plan of the house: which way imports point, and that a reader finds things by their names."""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "napari_unet"
LAYERS = ("core", "nn", "gui", "cli")


def module_name(path: Path) -> str:
    """Return a file's module below the package: "core.io.stack", or "core.io" for a package."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def statements(tree: ast.AST, with_types: bool) -> Iterator[ast.ImportFrom]:
    """Yield imports of names, those inside functions, too; those for type checkers if asked."""
    for node in ast.iter_child_nodes(tree):
        types_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if isinstance(node, ast.ImportFrom):
            yield node
        elif with_types or not types_only:
            yield from statements(node, with_types)


def imports(name: str, with_types: bool) -> set[str]:
    """Return the modules of the package that a module imports."""
    found = set()
    for node in statements(TREES[name], with_types):
        base = (node.module or "").removeprefix("napari_unet").removeprefix(".")
        if (node.module or "").split(".")[0] == "napari_unet":
            inside = [f"{base}.{item.name}".removeprefix(".") for item in node.names]
            found |= {item if item in MODULES else base for item in inside}
    return found & MODULES.keys() - {name, ""}


def room(name: str) -> str:
    """Return the package that a module belongs to; a module right below a layer is its own."""
    parent = name.rpartition(".")[0]
    is_package = MODULES[name].name == "__init__.py"
    return name if is_package or parent in ("", *LAYERS) else parent


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (Tarjan 1972)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == order[node]:
            at = stack.index(node)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                groups.append(group)

    for node in list(graph):
        if node not in order:
            visit(node)
    return groups


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}
    assert circles(graph) == [["a", "b", "c"]]


@pytest.mark.parametrize("with_types", [False, True], ids=["at run time", "with types"])
def test_no_file_imports_one_that_imports_it(with_types):
    assert sys.getrecursionlimit() > len(MODULES)
    assert circles({name: imports(name, with_types) for name in MODULES if name}) == []


def test_no_package_imports_one_that_imports_it():
    graph: dict[str, set[str]] = defaultdict(set)
    for name in filter(None, MODULES):
        graph[room(name)] |= {room(other) for other in imports(name, False)} - {room(name)}
    assert circles(graph) == []


GENERAL = {"core.errors", "core.settings.fields", "core.text"}
"""What widgets may know: errors, fields of settings, sentences."""


def test_widgets_know_nothing_of_segmentation():
    outside = {
        (name, other)
        for name in MODULES
        if room(name) == "gui.widgets"
        for other in imports(name, with_types=True)
        if room(other) != "gui.widgets" and other not in GENERAL
    }
    assert outside == set()


def test_no_two_classes_share_a_name():
    homes = defaultdict(list)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_two_files_differ_by_an_s():
    # A command's file has the command's name.
    names = {path.stem for name, path in MODULES.items() if not name.startswith("cli.")}
    assert {name for name in names if f"{name}s" in names} == set()


def packages() -> list[str]:
    return [
        name
        for name, path in MODULES.items()
        if path.name == "__init__.py" and path.parent != SOURCE
    ]


@pytest.mark.parametrize("package", packages())
def test_a_package_says_what_is_in_its_files(package):
    listed = ast.get_docstring(TREES[package]) or ""
    inside = [n.rpartition(".")[2] for n in MODULES if n.rpartition(".")[0] == package]
    words = re.findall(r"(?m)^\w+/?(?:, \w+)*", listed)
    named = {name.strip("/") for word in words for name in word.split(", ")}
    assert inside and [name for name in inside if name not in named] == []


def test_no_module_stands_beside_the_package_of_its_topic():
    twins = {
        name
        for name, path in MODULES.items()
        if path.name != "__init__.py" and (path.with_suffix("").is_dir())
    }
    assert twins == set()
