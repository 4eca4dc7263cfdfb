"""Checkpoints into ONNX: the whole way with a stand-in for ultralytics, and for real where one is named."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from streamseg.errors import ConfigError, ModelLoadError
from streamseg.segment.cache import cache_folder, models_folder, read_records
from streamseg.segment.export import (
    EXPORT_REQUIREMENTS,
    ExportOptions,
    import_checkpoint,
    import_onnx,
    parse_imgsz,
)
from streamseg.segment.store import resolve
from tests.test_inspect import RGB, SEG, write_onnx

# Hands out the file that stands beside it as its export, and notes what it was asked for.
STAND_IN = """
import json, os, pathlib, shutil
from . import cfg
__version__ = "9.9"
here = pathlib.Path(__file__).parent
class YOLO:
    task = "segment"
    def __init__(self, checkpoint):
        if pathlib.Path(checkpoint).read_bytes() == b"broken":
            raise RuntimeError("no checkpoint\\nsecond line")
        self.checkpoint = checkpoint
    def export(self, **options):
        import importlib.metadata
        seen = {name: os.environ.get(name) for name in ("YOLO_AUTOINSTALL", "YOLO_OFFLINE", "YOLO_CONFIG_DIR")}
        seen |= {"options": options, "torchvision": importlib.metadata.version("torchvision"), "cwd": os.getcwd()}
        (here / "seen.json").write_text(json.dumps(seen))
        result = self.checkpoint.replace(".pt", ".onnx")
        shutil.copy(here / "export.onnx", result)
        return result
"""


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STREAMSEG_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an ultralytics that exports what its `export.onnx` is."""
    folder = tmp_path / "packages" / "ultralytics"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN)
    (folder / "cfg.py").write_text("DEFAULT_CFG_DICT = {'half': False}")
    (tmp_path / "packages" / "torch.py").write_text("__version__ = '9.8'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setenv("STREAMSEG_ULTRALYTICS_PYTHON", sys.executable)
    write_onnx(folder / "export.onnx", RGB, SEG, {"names": "{0: 'person'}", "task": "segment"})
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "my net.pt"
    path.write_bytes(b"checkpoint")
    return path


def test_the_way_through(stand_in: Path, checkpoint: Path) -> None:
    said: list[str] = []
    done = import_checkpoint(checkpoint, ExportOptions((384, 640)), name="mine", say=said.append)
    assert done.path == models_folder() / "mine.onnx"
    assert resolve("mine").sha256 == done.sha256 == read_records()["mine.onnx"]["sha256"]
    assert done.facts.names == {0: "person"}
    assert (done.made_by["ultralytics"], done.made_by["torch"]) == ("9.9", "9.8")
    seen = json.loads((stand_in / "seen.json").read_text())
    assert seen["options"] == {
        "format": "onnx", "imgsz": [384, 640], "dynamic": False, "simplify": True, "opset": 17, "device": "cpu"
    }  # fmt: skip
    assert (seen["YOLO_AUTOINSTALL"], seen["YOLO_OFFLINE"]) == ("false", "true")
    assert Path(seen["YOLO_CONFIG_DIR"]).parent == cache_folder()
    assert not Path(seen["cwd"]).exists(), "the working folder must go"
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["cache", "my net.pt", "packages"]
    assert "AGPL-3.0" in said[0]
    assert "executes code that is stored in it" in said[1]


@pytest.mark.usefixtures("stand_in")
def test_the_licence_is_shown_once(checkpoint: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        import_checkpoint(checkpoint, ExportOptions(), name="mine", say=said.append)
    assert len([line for line in said if "AGPL-3.0" in line]) == 1
    assert len([line for line in said if "executes code" in line]) == 2


@pytest.mark.parametrize(("known", "asked"), [("half", {"half": True}), ("quantize", {"quantize": 16})])
def test_half_is_asked_for_in_the_words_of_the_version(
    stand_in: Path, checkpoint: Path, known: str, asked: dict[str, object]
) -> None:
    (stand_in / "cfg.py").write_text(f"DEFAULT_CFG_DICT = {{{known!r}: None}}")
    with pytest.raises(ModelLoadError, match="cannot export half precision without a GPU; upgrade"):
        import_checkpoint(checkpoint, ExportOptions(half=True), name="mine")  # and it came as float32
    assert asked.items() <= json.loads((stand_in / "seen.json").read_text())["options"].items()
    assert not models_folder().exists()


@pytest.mark.usefixtures("stand_in")
def test_what_ultralytics_said_is_told_in_one_line(checkpoint: Path) -> None:
    checkpoint.write_bytes(b"broken")
    with pytest.raises(ModelLoadError) as caught:
        import_checkpoint(checkpoint, ExportOptions(), name="mine")
    assert str(caught.value) == "ultralytics could not export my net.pt: RuntimeError: no checkpoint"


def test_a_child_that_dies(stand_in: Path, checkpoint: Path) -> None:
    (stand_in / "cfg.py").write_text(
        "import os, sys; print('first\\nout of memory', file=sys.stderr, flush=True); os._exit(9)"
    )
    with pytest.raises(ModelLoadError, match=r"could not export my net\.pt: out of memory$"):
        import_checkpoint(checkpoint, ExportOptions(), name="mine")
    (stand_in / "cfg.py").write_text("import os; os._exit(9)")
    with pytest.raises(ModelLoadError, match=r"exit code 9$"):
        import_checkpoint(checkpoint, ExportOptions(), name="mine")


def test_a_network_for_another_task(stand_in: Path, checkpoint: Path) -> None:
    write_onnx(stand_in / "export.onnx", RGB, [("output0", [1, 84, 8400])])
    with pytest.raises(ModelLoadError, match=r"my net\.pt is no segmentation network .*output0 float32 \[1,84,8400\]"):
        import_checkpoint(checkpoint, ExportOptions(), name="mine")
    assert not models_folder().exists()


def test_without_ultralytics_the_error_says_how(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMSEG_ULTRALYTICS_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelLoadError, match=r"add --make-env .*STREAMSEG_ULTRALYTICS_PYTHON"):
        import_checkpoint(checkpoint, ExportOptions(), name="mine")
    monkeypatch.setenv("STREAMSEG_ULTRALYTICS_PYTHON", str(checkpoint.parent / "absent"))
    with pytest.raises(ModelLoadError, match="names no program"):
        import_checkpoint(checkpoint, ExportOptions(), name="mine")


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_is_not_taken_for_one(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMSEG_ULTRALYTICS_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(checkpoint.parent))
    for _ in range(2):
        with pytest.raises(ModelLoadError, match=r"cannot make the export environment: .*(ultralytics|onnx)"):
            import_checkpoint(checkpoint, ExportOptions(), name="mine", make_env=True)
    assert not (cache_folder() / "export-env" / "complete").exists()


def test_the_environment_is_what_the_extra_asks_for() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["project"]["optional-dependencies"]["export"]) <= set(EXPORT_REQUIREMENTS)


# ---- what is typed


@pytest.mark.parametrize(("text", "hw"), [("640", (640, 640)), ("384x640", (384, 640)), (" 320,32 ", (320, 32))])
def test_sizes(text: str, hw: tuple[int, int]) -> None:
    assert parse_imgsz(text) == hw


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("600", "must be multiples of 32, not '600'; near it is 608x608"),
        ("384x650", "near it is 384x640"),
        ("10x10", "near it is 32x32"),
        ("00", "near it is 32x32"),
        ("384x000", "near it is 384x32"),
        ("big", "must be SIZE or HEIGHTxWIDTH"),
        ("640x", "must be SIZE or HEIGHTxWIDTH"),
        ("-640", "must be SIZE or HEIGHTxWIDTH"),
    ],
)
def test_bad_sizes(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_imgsz(text)


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        (ExportOptions(), ""),
        (ExportOptions((384, 640)), "-384x640"),
        (ExportOptions(dynamic=True), "-dynamic"),
        (ExportOptions((384, 640), half=True), "-384x640-half"),
    ],
)
def test_the_name_tells_the_options(options: ExportOptions, suffix: str) -> None:
    assert options.suffix == suffix


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a b", ".onnx", "a" * 101])
def test_names_stay_inside_the_folder(checkpoint: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ModelLoadError), match="a model's name may hold"):
        import_checkpoint(checkpoint, ExportOptions(), name=name)
    assert not models_folder().exists()


# ---- ONNX files


def test_an_onnx_file_is_checked_and_copied(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "theirs.onnx", RGB, [("matte", [1, 1, 640, 640])])
    done = import_onnx(source, name="mine")
    assert (done.path, done.facts.family) == (models_folder() / "mine.onnx", "matte")
    assert import_onnx(source).path.name == "theirs.onnx"
    write_onnx(source, RGB, [("logits", [1, 1000])])
    with pytest.raises(ModelLoadError, match=r"is no segmentation network .*logits float32 \[1,1000\]"):
        import_onnx(source)
    source.write_bytes(b"not onnx")
    with pytest.raises(ModelLoadError, match=r"theirs\.onnx is no ONNX file"):
        import_onnx(source)
    with pytest.raises(ModelLoadError, match="no such file"):
        import_onnx(tmp_path / "absent.onnx")


def test_weights_in_files_of_their_own_come_along(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "theirs.onnx", RGB, [("matte", [1, 1, 640, 640])])
    model = onnx.load(str(source))
    weights = np.arange(2000, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    onnx.save(model, str(source), save_as_external_data=True, location="theirs.bin", size_threshold=0)
    copied = onnx.load(str(import_onnx(source).path), load_external_data=False)
    np.testing.assert_array_equal(numpy_helper.to_array(copied.graph.initializer[0]), weights)
    (tmp_path / "theirs.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"theirs\.onnx is no valid ONNX: .*theirs\.bin"):
        import_onnx(source, name="other")


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    def tensor(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8])

    nodes = [
        helper.make_node("Add", ["b", "c"], ["y"]),
        helper.make_node("Relu", ["x"], ["c"]),
        helper.make_node("Neg", ["c"], ["b"]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [tensor("x")], [tensor("y")]), ir_version=8)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", 17))
    onnx.save(model, str(tmp_path / "late.onnx"))
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    done = import_onnx(tmp_path / "late.onnx")
    assert [node.op_type for node in onnx.load(str(done.path)).graph.node] == ["Relu", "Neg", "Add"]
    nodes[1].input[0] = "y"
    circle = helper.make_model(helper.make_graph(nodes, "g", [tensor("x")], [tensor("y")]))
    onnx.save(circle, str(tmp_path / "circle.onnx"))
    with pytest.raises(ModelLoadError, match="in a circle"):
        import_onnx(tmp_path / "circle.onnx")


# ---- for real


@pytest.mark.fullspec
@pytest.mark.material
@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        pytest.param(ExportOptions(), [(640, 640)], id="640"),
        pytest.param(ExportOptions((384, 640)), [(384, 640)], id="384x640"),
        pytest.param(ExportOptions(dynamic=True), [(640, 640), (224, 384)], id="dynamic"),
        pytest.param(ExportOptions((384, 640), half=True), [(384, 640)], id="half"),
        pytest.param(ExportOptions(opset=13), [(640, 640)], id="opset 13"),
    ],
)
def test_a_real_export(
    options: ExportOptions, shapes: list[tuple[int, int]], material: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.environ.get("STREAMSEG_ULTRALYTICS_PYTHON"):
        pytest.skip("STREAMSEG_ULTRALYTICS_PYTHON names no Python with ultralytics")
    done = import_checkpoint(material / "models" / "yolov8n-seg.pt", options)
    assert done.path.stem == "yolov8n-seg" + options.suffix
    assert (done.facts.family, done.facts.stride, done.facts.names[0]) == ("yolo-seg", 32, "person")
    assert (done.facts.opset, done.facts.dynamic) == (options.opset, options.dynamic)
    assert done.facts.precision == ("float16" if options.half else "float32")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    reference = onnxruntime.InferenceSession(
        str(material / "models" / "yolov8n-seg.onnx"), providers=["CPUExecutionProvider"]
    )
    dtype = np.float16 if done.facts.inputs[0].dtype == "float16" else np.float32
    for height, width in shapes:
        pixels = np.random.default_rng(0).random((1, 3, height, width), np.float32)
        boxes, masks = session.run(None, {"images": pixels.astype(dtype)})
        assert boxes.shape == (1, 116, height * width * 21 // 1024)
        assert masks.shape == (1, 32, height // 4, width // 4)
        if (height, width) == (640, 640):
            for ours, theirs in zip((boxes, masks), reference.run(None, {"images": pixels}), strict=True):
                np.testing.assert_allclose(ours, theirs, atol=2e-2, rtol=1e-3)
