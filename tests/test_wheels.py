"""One file out of a wheel, by the real pip."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from streamseg.errors import ModelLoadError
from streamseg.segment import wheels
from streamseg.segment.download import ChecksumError
from streamseg.segment.wheels import fetch_from_wheel
from tests.tiny_wheel import only_these_wheels, write_wheel

MEMBER = "tiny/data/picture.bin"
DATA = b"the file that is wanted"
SHA256 = hashlib.sha256(DATA).hexdigest()
PLATFORM = "cp311-cp311-manylinux_2_28_x86_64"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    files = {MEMBER: DATA, "tiny/__init__.py": b""}
    write_wheel(folder, "tiny", "1.0", files, PLATFORM)
    write_wheel(folder, "tiny", "2.0", {MEMBER: b"newer"}, PLATFORM)
    only_these_wheels(monkeypatch, folder)
    monkeypatch.delenv("STREAMSEG_OFFLINE", raising=False)
    return folder


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


@pytest.mark.usefixtures("index")
def test_the_file_is_verified_and_then_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "out" / "picture.bin"
    said: list[str] = []
    assert fetch_from_wheel("tiny==1.0", MEMBER, path, sha256=SHA256, say=said.append) == SHA256
    assert path.read_bytes() == DATA
    assert said == ["fetching tiny==1.0 from the package index for one file in it"]
    before = path.stat().st_mtime_ns
    fetch_from_wheel("tiny==1.0", MEMBER, path, sha256=SHA256, say=said.append, offline=True)
    assert (len(said), path.stat().st_mtime_ns) == (1, before)
    assert visible(tmp_path / "out") == ["picture.bin"]


def test_what_is_here_is_given_from_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"here")
    digest = hashlib.sha256(b"here").hexdigest()

    def unwritable(path: Path, say: object = None) -> None:
        raise ModelLoadError(f"cannot write {path}")

    monkeypatch.setattr(wheels, "locked", unwritable)
    assert fetch_from_wheel("tiny==1.0", MEMBER, path, sha256=digest) == digest


@pytest.mark.usefixtures("index")
def test_another_file_than_expected(tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match=r"picture\.bin from tiny-2\.0-.*: expected sha256"):
        fetch_from_wheel("tiny==2.0", MEMBER, tmp_path / "out" / "a", sha256=SHA256)
    assert visible(tmp_path / "out") == []


@pytest.mark.usefixtures("index")
def test_a_file_that_is_not_in_it_is_answered_with_near_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=rf"holds no tiny/picture\.bin; near it are {MEMBER}"):
        fetch_from_wheel("tiny==1.0", "tiny/picture.bin", tmp_path / "a")


@pytest.mark.usefixtures("index")
def test_the_reason_is_pips_own(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        fetch_from_wheel("tiny==3.0", MEMBER, tmp_path / "a")
    assert str(caught.value).startswith("pip could not get tiny==3.0: Could not find a version that satisfies")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelLoadError, match=r"pip could not get absent==1: .*from versions: none"):
        fetch_from_wheel("absent==1", MEMBER, tmp_path / "a")


def test_a_damaged_wheel(index: Path, tmp_path: Path) -> None:
    wheel = next(index.glob("tiny-1.0-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        start = archive.getinfo(MEMBER).header_offset + 30 + len(MEMBER)
    data = bytearray(wheel.read_bytes())
    data[start] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(ModelLoadError, match=r"tiny-1\.0-.*damaged"):
        fetch_from_wheel("tiny==1.0", MEMBER, tmp_path / "out" / "a")
    assert visible(tmp_path / "out") == []


@pytest.mark.usefixtures("index")
def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_OFFLINE", "1")
    with pytest.raises(
        ModelLoadError, match=r"a \(from tiny==1\.0\) is not here .*offline\); run the same command once with"
    ):
        fetch_from_wheel("tiny==1.0", MEMBER, tmp_path / "a")


def test_a_python_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    bare = tmp_path / "bare" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(
        ModelLoadError, match=r"cannot get tiny==1\.0: this python has no pip \(python -m ensurepip adds it\)"
    ):
        fetch_from_wheel("tiny==1.0", MEMBER, tmp_path / "a")


def test_an_index_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_these_wheels(monkeypatch, tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    with pytest.raises(ModelLoadError) as caught:
        fetch_from_wheel("tiny==1.0", MEMBER, tmp_path / "a")
    assert str(caught.value) == "pip could not get tiny==1.0: no connection to the package index (connection refused)"


@pytest.mark.parametrize(
    ("warning", "cause"),
    [
        ("NewConnectionError('<x object at 0x7>: Failed: [Errno 111] Connection refused')", " (connection refused)"),
        (
            "ReadTimeoutError(\"HTTPSConnectionPool(host='x', port=443): Read timed out. (read timeout=15)\")",
            " (timed out)",
        ),
        (
            "SSLError(SSLCertVerificationError(1, '[SSL: X] certificate verify failed: y'))",
            " (certificate verify failed)",
        ),
        ("ProxyError('Cannot connect to proxy.', OSError('403'))", " (cannot connect to proxy)"),
        ("SomethingNew()", ""),
    ],
)
def test_pips_warnings_tell_what_its_errors_hide(warning: str, cause: str) -> None:
    output = f"""WARNING: Retrying (Retry(total=0)) after connection broken by '{warning}': /simple/tiny/
ERROR: Could not find a version that satisfies the requirement tiny==1.0 (from versions: none)
ERROR: No matching distribution found for tiny==1.0
"""
    assert wheels._reason(output) == f"no connection to the package index{cause}"


def test_a_reason_holds_no_password_and_no_list_of_versions() -> None:
    assert wheels._reason("ERROR: 401 for http://me:secret@a/simple.\nWARNING: later") == "401 for http://***@a/simple"
    assert wheels._reason("ERROR: no x (from versions: 1, 2)\nERROR: none") == "no x"
    assert wheels._reason("Traceback\n  File\nOSError: full") == "OSError: full"
    assert wheels._reason("ERROR: Exception:\nTraceback\n  File\nOSError: full") == "OSError: full"
    assert wheels._reason("") == "it gave no reason"


@pytest.mark.network
def test_the_astronaut(tmp_path: Path) -> None:
    path = tmp_path / "astronaut.png"
    sha256 = "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"
    assert fetch_from_wheel("scikit-image==0.26.0", "skimage/data/astronaut.png", path, sha256=sha256) == sha256
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
