"""Fetch a file over HTTP so that it is whole and the right one, or absent.

What came before a break is kept beside the target as `.partial` and continued, also by a later run, as long as the
server says that its file has not changed.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from streamseg import __version__
from streamseg.errors import ModelAbsentError, ModelLoadError, redact
from streamseg.segment.cache import prepare, sha256_of, unwritable

__all__ = ["ChecksumError", "Progress", "check_sha256", "download", "is_offline"]

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes had so far and the bytes in all (None where the server does not tell)."""

_CHUNK = 1 << 16
_BUSY = (429, 500, 502, 503, 504)


class ChecksumError(ModelLoadError):
    """What came is not the file that was asked for."""


class _BrokenOffError(Exception):
    """The transfer stopped in a way that another try may mend."""


@dataclass(frozen=True, slots=True)
class _Partial:
    """A file that is still growing, and what must hold for it to be continued."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def size(self, url: str) -> tuple[int, str | None]:
        """Bytes had of this URL's file and the server's mark of its version."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return (self.path.stat().st_size, note.get("version")) if note["url"] == redact(url) else (0, None)
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return 0, None

    def begin(self, url: str, version: str | None) -> None:
        self.path.unlink(missing_ok=True)
        self.note.write_text(json.dumps({"url": redact(url), "version": version}), encoding="utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


class _SameSecurity(urllib.request.HTTPRedirectHandler):
    """Refuse to be sent from https to anything less: an unpinned file is only as good as its transport."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.URLError(f"redirected from https to {redact(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_offline(offline: bool = False) -> bool:
    """Whether nothing may be fetched: asked for, or `$STREAMSEG_OFFLINE` is set to anything but 0, no or false."""
    return offline or os.environ.get("STREAMSEG_OFFLINE", "").strip().lower() not in ("", "0", "no", "false")


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    progress: Progress = lambda name, done, total: None,
    timeout_s: float = 20.0,
    attempts: int = 4,
    pause_s: float = 1.0,
) -> str:
    """Fetch `url` to `path`; its sha256.

    Args:
        url: http or https.
        path: where it ends up; nothing stands there before it is whole and verified.
        sha256: what it must be; None takes what comes.
        progress: told of every piece.
        timeout_s: for the connection and for each silence.
        attempts: how often a broken transfer is continued.
        pause_s: before the second attempt; doubled each time.

    Raises:
        ChecksumError: it came whole and is another file.
        ModelAbsentError: the server is away, or the connection breaks off again and again.
        ModelLoadError: it cannot be fetched or written.
    """
    prepare(path.parent)
    partial = _Partial(path.with_name(f"{path.name}.partial"))
    host = urlsplit(url).hostname or redact(url)
    try:
        for attempt in range(attempts):
            try:
                continued = _transfer(
                    url, partial, path.name, pinned=sha256 is not None, progress=progress, timeout_s=timeout_s
                )
                found = sha256_of(partial.path)
                if continued and sha256 is not None and found != sha256 and attempt + 1 < attempts:
                    # The old part may belong to another version: once more, from the start.
                    partial.discard()
                    continue
                break
            except _BrokenOffError as error:
                if attempt + 1 == attempts:
                    kept = "what came so far is kept, " if partial.path.exists() else ""
                    raise ModelAbsentError(f"{host}: {error}; {kept}run the same command again") from error
                time.sleep(pause_s * 2**attempt)
        try:
            check_sha256(f"{path.name} from {host}", found, sha256)
        except ChecksumError:
            partial.discard()
            raise
        with partial.path.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial.path, path)
        partial.discard()
    except OSError as error:
        raise unwritable(path, error) from error
    return found


def check_sha256(what: str, found: str, expected: str | None) -> None:
    """Compare two digests; None expects nothing.

    Raises:
        ChecksumError: they differ.
    """
    if expected is not None and found != expected:
        raise ChecksumError(f"checksum mismatch of {what}: expected sha256 {expected}, got {found}; nothing was kept")


def _transfer(url: str, partial: _Partial, name: str, *, pinned: bool, progress: Progress, timeout_s: float) -> bool:
    """Bring the partial file to its full length; whether an older part was continued."""
    have, version = partial.size(url)
    if version is None and not pinned:
        have = 0  # nothing would tell us if the server's file had changed meanwhile
    headers = {"User-Agent": f"streamseg/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if version is not None:
            headers["If-Range"] = version
    host = urlsplit(url).hostname or "?"
    opener = urllib.request.build_opener(_SameSecurity)
    try:
        response = opener.open(_request(url, headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                if error.headers.get("Content-Range", "").strip() == f"bytes */{have}":
                    return True  # all of it had come, only the renaming had not
                partial.discard()
                raise _BrokenOffError("the server's file is shorter than what was here") from error
            if error.code in _BUSY:
                raise _BrokenOffError(f"the server answered {error.code} {error.reason}") from error
            raise ModelLoadError(f"{host} answered {error.code} {_one_line(error.reason)}") from error
    except TimeoutError as error:
        raise ModelAbsentError(f"{host} did not answer within {timeout_s:g} s") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        text = _one_line(getattr(reason, "strerror", None) or str(reason)) or type(reason).__name__
        raise ModelAbsentError(redact(f"cannot reach {host}: {text.lower()}")) from error

    with response:
        if response.headers.get_content_type() == "text/html":
            raise ModelLoadError(
                f"{host} answered with a web page instead of the file; is this network waiting for a log-in"
            )
        packed = response.headers.get("Content-Encoding", "identity").strip().lower()
        if packed != "identity":
            raise ModelLoadError(f"{host} sent the file packed with {packed}, which was not asked for; is this a proxy")
        start, total = _span(response.status, response.headers)
        if start != have or (have and response.status != 206):
            have = 0
        if start not in (0, have):
            partial.discard()
            raise _BrokenOffError("the server sent another part than was asked for")
        if have == 0:
            partial.begin(url, _version(response.headers))
        with partial.path.open("ab") as file:
            done = have
            progress(name, done, total)
            while piece := _piece(response):
                file.write(piece)
                done += len(piece)
                progress(name, done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection broke off after {done} of {total} bytes")
    return have > 0


def _one_line(text: object) -> str:
    """The first line; urllib tells of a circle of redirections in several."""
    return str(text).strip().partition("\n")[0].rstrip(" .\r")


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """A request that carries the user and password of the URL, which urllib would take for a part of the host."""
    parts = urlsplit(url)
    userinfo, _, address = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=address).geturl(), headers=headers)
    if userinfo:
        secret = base64.b64encode(unquote(userinfo).encode()).decode()
        # Not to be handed on to whichever server this one points to.
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    return request


def _piece(response: Any) -> bytes:
    try:
        return bytes(response.read(_CHUNK))
    except TimeoutError as error:
        raise _BrokenOffError("the server fell silent") from error
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenOffError(f"the connection broke off ({type(error).__name__})") from error


def _span(status: int, headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Where the answer starts in the file, and how long the whole file is."""
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        if match is None:
            return -1, None
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _version(headers: Mapping[str, str]) -> str | None:
    """What `If-Range` may carry: a strong entity tag, or a date."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
