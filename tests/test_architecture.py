"""Who may import whom, read from the source; see docs/architecture.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "streamseg"
MODULES = sorted(ROOT.rglob("*.py"))

# What each room may import of streamseg, besides itself.
ALLOWED = {
    "errors": set(),
    "frame": {"errors"},
    "libav": {"errors", "frame"},
    "child": {"errors"},
    "sounds": {"frame"},
    "pixels": {"errors", "frame"},
    "segment": {"errors", "frame", "pixels", "locks"},
    "temporal": {"errors", "frame", "pixels"},
    "lanes": {"errors", "frame", "pixels", "segment", "temporal"},
    "effects": {"errors", "frame", "pixels", "segment", "temporal", "lanes"},
    "sources": {"errors", "frame", "libav", "pixels", "child", "sounds"},
    "sinks": {"errors", "frame", "libav", "pixels", "child", "sounds", "units", "locks"},
    "engine": {"errors", "frame"},
    "web": {"errors", "frame", "libav", "pixels"},
    "evaluate": {"errors", "frame", "libav", "pixels", "segment", "temporal", "effects"},
    "config": {"errors", "units"},
    "units": set(),
    "locks": set(),
    "configdoc": {"config"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    names = imports(path)
    ours = {name.split(".")[1] for name in names if name.startswith("streamseg.")}
    if room(path) in ALLOWED:
        assert ours <= ALLOWED[room(path)] | {room(path), "__version__"}
    assert "cli" not in ours or room(path) in ("cli", "__main__")
    assert "web" not in ours or room(path) in ("web", "cli", "app")
    top = {name.split(".")[0] for name in names}
    if "threading" in top:
        assert room(path) in ("engine", "web", "child")
    if room(path) == "engine":
        assert not top & {"cv2", "av", "onnxruntime", "pydantic"}
    if "pydantic" in top or "yaml" in top:
        assert room(path) == "config" or path.name == "registry.py"


def exported(path: Path) -> set[str] | None:
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_module_takes_from_another_is_given_by_it(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("streamseg."):
            continue
        giver = ROOT.parent.joinpath(*str(node.module).split("."))
        given = exported(giver.with_suffix(".py") if giver.with_suffix(".py").is_file() else giver / "__init__.py")
        for alias in node.names:
            is_module = (giver / f"{alias.name}.py").is_file() or (giver / alias.name).is_dir()
            assert is_module or (given is not None and alias.name in given), f"{node.module} does not give {alias.name}"


def test_every_module_was_read() -> None:
    assert len(MODULES) > 30
