"""Imports point in one direction: within the layer, within ``src/``, and from ``src/`` to the layer."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LAYER = Path(__file__).parents[2] / "layers/meibo/meibo"
PROVIDERS = ("auth0", "cybozu")

# From the lowest floor to the highest. A package imports only from itself and from lower floors.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"__init__", "clock", "errors", "formatting", "validation"}),
    frozenset({"aws", "documents"}),
    frozenset({"secrets", "observability", "settings", "archive.content"}),
    frozenset({"http"}),
    frozenset({"archive.copy", "providers"}),
    frozenset({"archive", "providers.auth0", "providers.cybozu"}),
    frozenset({"configuration", "report"}),
    frozenset({"changes", "exports"}),
)
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
SRC = Path(__file__).parents[2] / "src"
MODULES = {".".join(path.relative_to(LAYER).with_suffix("").parts): path for path in LAYER.rglob("*.py")}


def _package(module: str) -> str:
    """Return the package of the floors that contains a module: the longest prefix of its name."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(prefix for prefix in prefixes if prefix in FLOOR)


def _resolve(name: str) -> str:
    """Return the module that an import of ``meibo.…`` loads, without the prefix."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        for module in (prefix, f"{prefix}.__init__"):
            if module in MODULES:
                return module
    return "__init__"


def _imports(path: Path) -> Iterator[str]:
    """Yield the full name of each import of a file, including imports in functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported_modules(module: str) -> set[str]:
    names = (name for name in _imports(MODULES[module]) if name.split(".")[0] == "meibo")
    return {_resolve(name) for name in names} - {module}


def test_every_module_is_on_a_floor() -> None:
    assert {_package(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_from_floors_below(module: str) -> None:
    package = _package(module)

    wrong = {
        imported
        for imported in _imported_modules(module)
        if _package(imported) != package and FLOOR[_package(imported)] >= FLOOR[package]
    }

    assert wrong == set()


def test_there_are_no_import_circles() -> None:
    try:
        TopologicalSorter({module: _imported_modules(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' → '.join(error.args[1])}")


def _source_modules() -> dict[str, Path]:
    names = ((path.relative_to(SRC).with_suffix("").parts, path) for path in SRC.rglob("*.py"))
    return {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for parts, path in names}


def test_packages_of_the_checkout_have_no_import_circles() -> None:
    modules = _source_modules()
    graph = {
        module: {
            imported
            for name in _imports(path)
            for imported in (name, name.rpartition(".")[0])
            if imported in modules and imported != module
        }
        for module, path in modules.items()
    }

    assert {"meibo_cli.main", "meibo_local.aws", "meibo_simulators.auth0.api"} <= graph.keys()
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_layer_imports_nothing_that_is_built_on_it(module: str) -> None:
    roots = {name.split(".")[0] for name in _imports(MODULES[module])}

    assert roots.isdisjoint({"meibo_cli", "meibo_local", "meibo_simulators", "tests"})


@pytest.mark.parametrize("package", ["exports", "archive"])
def test_exports_and_archive_name_no_provider(package: str) -> None:
    for module, path in MODULES.items():
        if module.split(".")[0] != package:
            continue
        assert not {_package(name) for name in _imported_modules(module)} & {
            f"providers.{name}" for name in PROVIDERS
        }, module
        # The names of providers in identifiers and string constants. Docstrings may contain them as examples.
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        constants = [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        ]
        identifiers = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        assert [text for text in constants + identifiers if any(name in text.lower() for name in PROVIDERS)] == [], (
            module
        )


def test_exports_name_no_concept_of_a_provider() -> None:
    concept = re.compile("|".join((*PROVIDERS, "organization", "tenant")), re.IGNORECASE)

    named = {
        module
        for module, path in MODULES.items()
        if module.startswith("exports.") and concept.search(path.read_text(encoding="utf-8"))
    }

    assert named == set()


@pytest.mark.parametrize("function", ["archive_export", "check_export", "finish_run"])
def test_function_does_not_import_slow_packages(function: str) -> None:
    """These imports would take longer than everything else in a cold start."""
    code = "import app, sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    path = os.pathsep.join(map(str, (LAYER.parent.parent.parent / "functions" / function, LAYER.parent)))
    environment = {**os.environ, "PYTHONPATH": path, "POWERTOOLS_SERVICE_NAME": "meibo"}
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert not {"boto3", "cryptography", "jwt", "pydantic", "s3transfer"} & set(done.stdout.split())
