"""Data flows one way: a package imports only from packages before it."""

import ast
import pathlib

import pytest

import codesign

_ORDER = (
    *("records", "numerics", "kernels", "models", "workload", "hardware", "optim"),
    *("data", "training", "parallel", "objective", "search", "report", "studies"),
)
_ROOT = pathlib.Path(codesign.__file__).parent
_FREE = {"types", "units"}  # modules that anyone may import


def _imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _packages() -> list[str]:
    return sorted(path.parent.name for path in _ROOT.glob("*/__init__.py"))


def test_every_package_has_its_place():
    assert set(_packages()) <= set(_ORDER)


def _violations(path: pathlib.Path, package: str) -> list[str]:
    """What a file of `package` imports and must not."""
    allowed = set(_ORDER[: _ORDER.index(package) + 1]) | _FREE
    names = [name.split(".") for name in sorted(_imports(path))]
    ours = [parts for parts in names if parts[0] in ("codesign", "experiments")]
    return [".".join(p) for p in ours if len(p) < 2 or p[1] not in allowed]


@pytest.mark.parametrize("package", _packages())
def test_imports_only_what_comes_before(package):
    for path in (_ROOT / package).rglob("*.py"):
        assert not _violations(path, package), path


def test_only_models_see_linen():
    for path in _ROOT.rglob("*.py"):
        if path.parent.name != "models":
            names = _imports(path)
            assert not any(n.startswith("flax.linen") for n in names), path


def test_the_checker_sees_upward_imports(tmp_path):
    source = tmp_path / "bad.py"
    source.write_text("from codesign.search import study\nimport experiments.bench\n")
    bad = ["codesign.search.study", "experiments.bench"]
    assert _violations(source, "hardware") == bad
    assert _violations(source, "search") == bad[1:]
