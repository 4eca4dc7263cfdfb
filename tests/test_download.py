"""Downloads against a real server on this machine that breaks off, changes its mind and lies."""

from __future__ import annotations

import base64
import hashlib
import http.client
import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamseg.errors import ModelLoadError
from streamseg.segment import cache
from streamseg.segment.cache import locked, read_records, replacing, write_record
from streamseg.segment.download import ChecksumError, _SameSecurity, download
from tests.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 1500  # several of the pieces that are read at once
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(CONTENT) as state:
        yield state


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_a_whole_file(server: FileServer, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    found = download(server.url, tmp_path / "a.bin", sha256=SHA256, progress=lambda *step: seen.append(step))
    assert found == SHA256
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert visible(tmp_path) == ["a.bin"]
    assert seen[0] == ("a.bin", 0, len(CONTENT))
    assert seen[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert [step[1] for step in seen] == sorted({step[1] for step in seen})


def test_a_broken_transfer_is_continued_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100_000, 50_000, None]
    assert download(server.url, tmp_path / "a.bin", sha256=SHA256, pause_s=0) == SHA256
    assert [request.get("Range") for request in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert server.requests[1]["If-Range"] == '"v1"'
    assert visible(tmp_path) == ["a.bin"]


def test_a_later_run_continues(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(
        ModelLoadError, match=r"127\.0\.0\.1: the connection broke off after 1000 of 384000 bytes; what came"
    ):
        download(server.url, tmp_path / "a.bin", attempts=1)
    assert visible(tmp_path) == ["a.bin.partial", "a.bin.partial.json"]
    assert download(server.url, tmp_path / "a.bin") == SHA256
    assert server.requests[-1]["Range"] == "bytes=1000-"
    assert visible(tmp_path) == ["a.bin"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(ModelLoadError):
        download(server.url, tmp_path / "a.bin", attempts=1)
    server.content, server.etag = CONTENT[::-1], '"v2"'
    download(server.url, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_without_a_version_only_a_pinned_file_is_continued(server: FileServer, tmp_path: Path) -> None:
    server.etag = None
    server.cuts = [1000, None, 1000, None]
    download(server.url, tmp_path / "a.bin", pause_s=0)
    assert [request.get("Range") for request in server.requests] == [None, None]
    download(server.url, tmp_path / "b.bin", sha256=SHA256, pause_s=0)
    assert server.requests[-1].get("Range") == "bytes=1000-"
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes() == CONTENT


def test_a_continued_file_with_a_wrong_start_is_fetched_once_more(server: FileServer, tmp_path: Path) -> None:
    server.etag, server.content, server.cuts = None, CONTENT[::-1], [1000]
    with pytest.raises(ModelLoadError):
        download(server.url, tmp_path / "a.bin", sha256=SHA256, attempts=1)
    server.content = CONTENT
    assert download(server.url, tmp_path / "a.bin", sha256=SHA256, pause_s=0) == SHA256


def test_a_server_without_ranges(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [1000, None]
    assert download(server.url, tmp_path / "a.bin", pause_s=0) == SHA256
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_that_was_whole_already_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(ModelLoadError):
        download(server.url, tmp_path / "a.bin", attempts=1)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "a.bin", attempts=1) == SHA256


def test_a_part_that_is_too_long_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000]
    with pytest.raises(ModelLoadError):
        download(server.url, tmp_path / "a.bin", attempts=1)
    (tmp_path / "a.bin.partial").write_bytes(CONTENT * 2)
    assert download(server.url, tmp_path / "a.bin", pause_s=0) == SHA256


def test_another_file_than_expected(server: FileServer, tmp_path: Path) -> None:
    server.content = b"something else"
    got = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(
        ChecksumError, match=rf"a\.bin from 127\.0\.0\.1: expected sha256 {SHA256}, got {got}; nothing was kept"
    ):
        download(server.url, tmp_path / "a.bin", sha256=SHA256)
    assert visible(tmp_path) == []


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert download(server.url, tmp_path / "a.bin", pause_s=0) == SHA256
    server.status = 503
    with pytest.raises(ModelLoadError, match="answered 503 Service Unavailable; run the same command again"):
        download(server.url, tmp_path / "b.bin", pause_s=0)


def test_a_refusal_is_final(server: FileServer, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(ModelLoadError, match=r"^127\.0\.0\.1 answered 404 Not Found$"):
        download(server.url, tmp_path / "a.bin")
    assert len(server.requests) == 1


def test_a_page_in_place_of_the_file(server: FileServer, tmp_path: Path) -> None:
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(ModelLoadError, match="answered with a web page"):
        download(server.url, tmp_path / "a.bin")
    assert visible(tmp_path) == []


def test_no_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nothing else gets the port
        port = taken.getsockname()[1]
        with pytest.raises(ModelLoadError, match=r"^cannot reach 127\.0\.0\.1: connection refused$"):
            download(f"http://127.0.0.1:{port}/a", tmp_path / "a.bin")


def test_a_password_is_sent_to_the_server_alone(server: FileServer, tmp_path: Path) -> None:
    with serving(CONTENT) as other:
        server.redirect = other.url
        download(server.url.replace("://", "://me:s%40cret@"), tmp_path / "a.bin")
        assert server.requests[0]["Authorization"] == f"Basic {base64.b64encode(b'me:s@cret').decode()}"
        assert "Authorization" not in other.requests[0]
    server.redirect, server.cuts = None, [1000]
    with pytest.raises(ModelLoadError) as caught:
        download(server.url.replace("://", "://me:secret@"), tmp_path / "b.bin", attempts=1)
    assert "secret" not in str(caught.value) + (tmp_path / "b.bin.partial.json").read_text()


def test_a_silent_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(ModelLoadError, match=r"127\.0\.0\.1"):
            download(url, tmp_path / "a.bin", timeout_s=0.2, attempts=1)


def test_a_server_that_falls_silent_in_the_middle(tmp_path: Path) -> None:
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            release.wait(120)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as silent:
        thread = threading.Thread(target=silent.serve_forever, args=(0.02,))
        thread.start()
        try:
            with pytest.raises(ModelLoadError, match="the server fell silent"):
                download(f"http://127.0.0.1:{silent.server_port}/a", tmp_path / "a.bin", timeout_s=5, attempts=1)
        finally:
            release.set()
            silent.shutdown()
            thread.join()


def test_a_redirection_leads_on_but_not_to_files(server: FileServer, tmp_path: Path) -> None:
    with serving(CONTENT) as target:
        server.redirect = target.url
        assert download(server.url, tmp_path / "a.bin", sha256=SHA256) == SHA256
    secret = tmp_path / "secret"
    secret.write_text("secret")
    server.redirect = secret.as_uri()
    with pytest.raises(ModelLoadError):
        download(server.url, tmp_path / "b.bin")
    assert not (tmp_path / "b.bin").exists()


def test_a_circle_of_redirections_is_told_in_one_line(server: FileServer, tmp_path: Path) -> None:
    server.redirect = server.url
    with pytest.raises(ModelLoadError, match=r"127\.0\.0\.1 answered 302 .* infinite loop$") as caught:
        download(server.url, tmp_path / "a.bin")
    assert "\n" not in str(caught.value)


def test_a_packed_file_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.encoding = "gzip"
    with pytest.raises(ModelLoadError, match="sent the file packed with gzip, which was not asked for"):
        download(server.url, tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_redirection_to_less_security_is_refused() -> None:
    handler, headers = _SameSecurity(), http.client.HTTPMessage()
    secure = urllib.request.Request("https://a.example/x")
    with pytest.raises(urllib.error.URLError, match=r"redirected from https to http://\*\*\*@b\.example/x"):
        handler.redirect_request(secure, io.BytesIO(), 302, "Found", headers, "http://me:secret@b.example/x")
    assert handler.redirect_request(secure, io.BytesIO(), 302, "Found", headers, "https://b.example/x") is not None


def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelLoadError, match=r"cannot write .*STREAMSEG_CACHE"):
        download(server.url, tmp_path / "file" / "a.bin")


def test_a_write_that_fails_in_the_middle(server: FileServer, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="no limits of file sizes on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ModelLoadError, match=r"cannot write .*a\.bin: file too large"):
            download(server.url, tmp_path / "a.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "a.bin").exists()
    assert download(server.url, tmp_path / "a.bin", sha256=SHA256) == SHA256  # once there is room again


# ---- the cache


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_records_survive_rubbish_and_each_other(tmp_path: Path) -> None:
    assert read_records() == {}
    write_record("a", {"sha256": "1"})
    write_record("b", {"sha256": "2"})
    assert read_records() == {"a": {"sha256": "1"}, "b": {"sha256": "2"}}
    (cache.cache_folder() / "lock.json").write_text("{ not json")
    assert read_records() == {}
    write_record("c", {"sha256": "3"})
    assert read_records() == {"c": {"sha256": "3"}}


def test_processes_record_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from streamseg.segment.cache import write_record\n"
        "for i in range(10): write_record(f'{sys.argv[1]}{i}', {})"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, name]) for name in "ab"]
    assert [process.wait(300) for process in running] == [0, 0]
    assert len(read_records()) == 20


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "a.onnx"
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            "import sys, pathlib; from streamseg.segment.cache import locked\n"
            "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.readline()",
            str(path),
        ],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"

        def say(line: str) -> None:
            told.append(line)
            assert holder.stdin is not None
            holder.stdin.write("go\n")  # only now does the other let go
            holder.stdin.flush()

        with locked(path, say):
            assert told == ["waiting for another streamseg that is at work on a.onnx"]


def test_a_lock_that_is_never_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_LOCK_WAIT_S", 0.0)
    with (
        locked(tmp_path / "a"),
        pytest.raises(ModelLoadError, match="another streamseg is at work on"),
        locked(tmp_path / "a"),
    ):
        pass


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSEG_CACHE", os.path.join("~", "x"))
    assert cache.models_folder() == Path.home() / "x" / "models"
    monkeypatch.delenv("STREAMSEG_CACHE")
    assert cache.cache_folder().name.lower() in ("streamseg", "cache")
