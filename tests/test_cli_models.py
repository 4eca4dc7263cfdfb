"""`streamseg models`: what is printed, where, and the exit code."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from streamseg.cli import models
from streamseg.errors import ConfigError, ModelLoadError
from streamseg.segment import store
from streamseg.segment.cache import models_folder, sources_folder
from tests.file_server import FileServer, serving
from tests.test_inspect import RGB, SEG, Tensors, write_onnx
from tests.test_store import CHECKPOINT, TFLITE, entry

Run = Callable[..., tuple[str, str]]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "STREAMSEG_MODELS", "STREAMSEG_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(TFLITE) as state:
        yield state


@pytest.fixture
def tiny(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A network called `tiny`, and no other; where it comes from."""
    known = {"tiny": entry(server)}
    monkeypatch.setattr(store, "registry", lambda: known)
    monkeypatch.setattr(models, "registry", lambda: known)
    return server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command; its standard output and error."""

    def call(*words: str) -> tuple[str, str]:
        parser = argparse.ArgumentParser(prog="streamseg")
        models.add_parser(parser.add_subparsers())
        args = parser.parse_args(["models", *words])
        capsys.readouterr()
        assert args.function(args) == 0
        return capsys.readouterr()

    return call


def test_list(run: Run) -> None:
    write_onnx(Path("models/mine.onnx"), RGB, SEG, {"license": "AGPL-3.0 License (x)", "task": "segment"})
    Path("models/broken.onnx").write_bytes(b"rubbish")
    Path("models/selfie-landscape.onnx").write_bytes(b"rubbish")
    wide: Tensors = [("images", [1, 3, 384, 640])]
    write_onnx(Path("models/yolov8n-seg.onnx"), wide, SEG, {"license": "AGPL-3.0 License (x)"})
    lines = run("list")[0].splitlines()
    assert lines[0].split() == ["NAME", "TASK", "FAMILY", "INPUT", "LICENCE", "FOUND", "IN"]
    rows = {line.split()[0]: line.split() for line in lines[1:]}
    assert rows["selfie"][1:5] == ["matte", "matte", "256x256", "Apache-2.0"]
    assert " ".join(rows["selfie"][5:]) == "not here; streamseg models pull selfie"
    assert " ".join(rows["yolov8x-seg"][5:]) == "not here; streamseg models import yolov8x-seg"
    assert rows["mine"][1:] == ["segment", "yolo-seg", "640x640", "AGPL-3.0", "License", "./models"]
    assert rows["broken"][1:] == ["damaged", "./models"]
    assert rows["selfie-landscape"][1:] == ["matte", "damaged", "Apache-2.0", "./models"]
    assert rows["yolov8n-seg"][1:] == ["segment", "yolo-seg", "384x640", "AGPL-3.0", "./models"]
    listed = {one["name"]: one for one in json.loads(run("list", "--json")[0])}
    assert listed["mine"]["path"] == str(Path("models/mine.onnx"))
    assert listed["selfie"]["found_in"] is None


def test_pull_then_info(run: Run, tiny: FileServer) -> None:
    out, err = run("pull", "tiny")
    ready = models_folder() / "tiny.onnx"
    digest = hashlib.sha256(ready.read_bytes()).hexdigest()
    assert out == ""
    assert err.splitlines() == [f"tiny from 127.0.0.1: {ready}", "a tiny network", f"sha256 {digest}"]
    assert run("pull", "tiny")[1].splitlines()[0] == f"tiny is here: {ready}"
    assert run("pull", "tiny", "--force", "--quiet") == ("", "")
    assert len(tiny.requests) == 2
    info = json.loads(run("info", "tiny", "--json")[0])
    assert info["sha256"] == digest
    assert (info["family"], info["found_in"], info["licence"]) == ("matte", "the user cache", "Apache-2.0")
    assert (info["inputs"], info["outputs"]) == (["image float32 [1,1,8,8]"], ["output float32 [1,1,8,8]"])
    assert (info["classes"], info["made"]["made_from"]) == (["person"], "tiny.tflite")
    text = run("info", "tiny")[0].splitlines()
    assert "dynamic        no" in text
    assert f"sha256         {digest}" in text
    assert not any(line.startswith("stride") for line in text), "what is not known is not shown"


def test_info_of_a_file_and_of_what_is_not_here(run: Run, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "x.onnx", RGB, SEG, {"names": "{0: 'cat', 1: 'dog'}", "stride": "32"})
    info = json.loads(run("info", str(path), "--json")[0])
    assert (info["classes"], info["stride"], info["found_in"], info["made"]) == (
        ["cat", "dog"],
        32,
        "the given path",
        None,
    )
    absent = json.loads(run("info", "yolov8n-seg", "--json")[0])
    assert (absent["found_in"], absent["licence"], absent["source_sha256"]) == (None, "AGPL-3.0", None)
    assert (len(absent["classes"]), absent["get_it"]) == (80, "streamseg models import yolov8n-seg")
    # An unusable network is still described.
    write_onnx(path, RGB, [("logits", [1, 1000])])
    assert json.loads(run("info", str(path), "--json")[0])["family"] == "unknown"


def test_a_pulled_checkpoint_says_how_to_go_on(run: Run, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.content = CHECKPOINT
    known = {"tiny": entry(server, kind="pt", pinned=False)}
    monkeypatch.setattr(store, "registry", lambda: known)
    monkeypatch.setattr(models, "registry", lambda: known)
    err = run("pull", "tiny")[1].splitlines()
    assert "first seen, not pinned" in err[0]
    assert err[-1] == "this is a checkpoint; to run it, turn it into ONNX: streamseg models import tiny"
    assert [path.name for path in sources_folder().glob("[!.]*")] == ["tiny.pt"]


def test_import_of_an_onnx_file(run: Run, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "theirs.onnx", RGB, SEG)
    err = run("import", str(path), "--name", "mine")[1]
    assert f"mine is ready: {models_folder() / 'mine.onnx'}" in err
    assert "use it with --model mine" in err
    assert "had this name" not in run("import", str(path), "--name", "mine.onnx")[1]
    assert store.resolve("mine.onnx").path == models_folder() / "mine.onnx"
    states: Tensors = [("src", [1, 3, 8, 8]), ("r1i", [1, 16, 4, 4])]
    write_onnx(path, states, [("pha", [1, 1, 8, 8]), ("r1o", [1, 16, 4, 4])])
    err = run("import", str(path), "--name", "mine")[1]
    assert f"mine is ready: {models_folder() / 'mine.onnx'}, in place of the one that had this name" in err
    assert "networks of the family recurrent-matte cannot be run yet" in err


def test_import_of_another_kind_of_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.torchscript").touch()
    with pytest.raises(ModelLoadError, match=r"net\.torchscript is neither \.pt nor \.onnx"):
        run("import", str(tmp_path / "net.torchscript"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pull", "selfi"), "no model 'selfi': did you mean selfie"),
        (("pull", "selfie", "--offline"), "'selfie' is not here and nothing may be fetched"),
        (("import", "selfie"), "selfie needs no import; run: streamseg models pull selfie"),
        (("import", "absent.pt"), "no model file 'absent.pt'; check the spelling"),
        (("import", "absent.onnx"), "cannot read model absent.onnx: no such file"),
        (("import", "x.onnx", "--imgsz", "96", "--half"), "--imgsz, --half: for checkpoints alone, x.onnx is ONNX"),
        (("import", "x.onnx", "--make-env"), "--make-env: for checkpoints alone, x.onnx is ONNX"),
        (("import", "x.pt", "--imgsz", "100"), "imgsz must be multiples of 32"),
        (("import", "yolov8n-seg", "--offline"), "'yolov8n-seg' is not here and nothing may be fetched"),
        (("info", "x.pt"), "streamseg models import x.pt"),
        (("info", "selfi"), "did you mean selfie"),
    ],
)
def test_mistakes(run: Run, words: tuple[str, ...], message: str) -> None:
    with pytest.raises((ModelLoadError, ConfigError)) as caught:
        run(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.usefixtures("tiny")
def test_a_bar_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    err = run("pull", "tiny")[1]
    assert "tiny.tflite" in err
    assert "100%" in err or "bytes" in err or "kB" in err


def test_every_subcommand_explains_itself(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["list"], ["pull"], ["import"], ["info"]):
        with pytest.raises(SystemExit) as stopped:
            run(*words, "--help")
        assert stopped.value.code == 0
    assert "executes code" in _help("import", capsys)


def _help(action: str, capsys: pytest.CaptureFixture[str]) -> str:
    parser = argparse.ArgumentParser(prog="streamseg")
    models.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["models", action, "--help"])
    return " ".join(capsys.readouterr().out.split())
