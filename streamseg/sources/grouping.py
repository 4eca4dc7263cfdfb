"""The files that a dashcam writes, ordered and joined into drives: by the time in their names, or their own.

drives = group(video_files("card/"), print)
drives[0].pieces        # files of the main camera, each with its place on the drive's clock
drives[0].others        # {"rear": ...}: the other cameras' files, on the same clock
drives[0].gaps          # [(begin_s, end_s)]: nothing was recorded
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path

import av

from streamseg.errors import SourceOpenError, redact
from streamseg.libav import reason
from streamseg.sources.images import named, natural_key
from streamseg.sources.probe import lacks_index, stream_duration_s

__all__ = ["SLACK_S", "Drive", "Piece", "creation_time_s", "group", "name_time_s", "playlist_files", "video_files"]

_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".3gp", ".wmv", ".flv"}
)
# Names tell whole seconds, and cameras lose a moment between two files: less than this is no gap.
SLACK_S = 2.0
# A pause longer than this ends the drive.
_SPLIT_S = 300.0

# Year to second with any separators: 20240501_120000, 2024_0501_120000, REC_2024-05-01-12-00-00, 240501_120000.
_STAMP = re.compile(r"(?<!\d)(20\d\d|\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_.T ]?(\d\d)[-_.h]?(\d\d)[-_.m]?(\d\d)(?!\d)")
# GX020123: the second part of recording 123.
_PARTED = re.compile(r"(G[HXLP])(\d\d)(\d{4})$", re.IGNORECASE)
# After a number: which kind of recording, which camera, which of two qualities.
_LETTERS = re.compile(r"(?<=\d)[-_]?[A-Z]?([FRBIA])([HL]?)$")
# 0001_N_B: a kind, then one of several cameras, the first of which looks ahead; where the others look, models differ.
_CHANNEL = re.compile(r"(?<=\d)_[A-Z]_([ABC])$")
_LETTER_CAMERAS = {"F": "front", "A": "front", "R": "rear", "B": "rear", "I": "inside"}
_WORDS = re.compile(
    r"(?:^|[-_ .])(front|rear|back|inside|interior|cabin|(?:left|right)(?:[-_](?:repeater|pillar))?)$", re.I
)
_WORD_CAMERAS = {"back": "rear", "interior": "inside", "cabin": "inside"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a drive.

    Attributes:
        path: of the file.
        begin_s: when it begins, on the drive's clock, which is 0 where the main camera's first file begins.
        duration_s: as its container says.
        clock_s: when it began by the camera's own clock, as seconds since 1970; None where nobody knows.
    """

    path: Path
    begin_s: float
    duration_s: float
    clock_s: float | None = None

    @property
    def end_s(self) -> float:
        """When it ends, on the drive's clock."""
        return self.begin_s + self.duration_s


@dataclass(frozen=True, slots=True)
class Drive:
    """Files that belong together.

    Attributes:
        camera: "front", "rear" and so on; "" where the names do not tell.
        pieces: of the main camera, in order.
        others: those of the other cameras, by camera.
    """

    camera: str
    pieces: tuple[Piece, ...]
    others: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """That of its first file, without the suffix."""
        return self.pieces[0].path.stem

    @property
    def duration_s(self) -> float:
        """From the first file's begin to the last one's end, gaps included."""
        return self.pieces[-1].end_s

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(begin, end) on the drive's clock, where the main camera recorded nothing."""
        return [(one.end_s, two.begin_s) for one, two in pairwise(self.pieces) if two.begin_s > one.end_s]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    camera: str
    family: str  # files of different families are never one drive
    order: tuple[object, ...]
    size_wh: tuple[int, int]
    duration_s: float
    clock_s: float | None


def video_files(url: str) -> list[Path]:
    """The videos in a folder, or among what a glob names, "2" before "10"; empty where there are none."""
    # Mac computers leave ._NAME on memory cards; what a killed run of ours left is no part of a drive.
    return sorted(
        (
            path
            for path in named(url)
            if path.suffix.lower() in _SUFFIXES and path.is_file() and not re.search(r"^\.|\.partial", path.name)
        ),
        key=natural_key,
    )


def playlist_files(path: Path) -> list[Path]:
    """The files that an M3U playlist names, relative to its own folder.

    Raises:
        SourceOpenError: it cannot be read, names nothing, or something that is no file here.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceOpenError(f"cannot open {path}: {reason(error)}") from error
    names = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not names:
        raise SourceOpenError(f"cannot open {path}: it names no file; write one a line")
    for name in names:
        if "://" in name:
            raise SourceOpenError(redact(f"cannot open {path}: {name} is no file; only files are joined"))
    return [path.parent / name for name in names]


def name_time_s(stem: str) -> float | None:
    """The time that stands in a file's name, as seconds since 1970 on the camera's own clock; None without one.

    >>> name_time_s("2024_0501_120000_000123F") == name_time_s("NO20240501-120000-000123F") == 1714564800.0
    True
    """
    found = _STAMP.search(stem)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        return datetime(year if year > 99 else 2000 + year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def group(paths: Iterable[Path], say: Callable[[str], None]) -> list[Drive]:
    """Join files into drives, in order of time.

    Files are one drive where they come from one camera, have one size and follow each other within five minutes. The
    time is that in the name, else the `creation_time` of the container; where neither is known for all, names that
    differ only in their number follow each other without gaps. Other cameras' files are paired with the drive they
    overlap.

    Args:
        paths: of video files.
        say: receives a line for each file that is left out because it cannot be read.
    """
    files = []
    for path in paths:
        try:
            files.append(_look_at(path))
        except SourceOpenError as error:
            say(f"{error}; left out")
    drives: list[Drive] = []
    files.sort(key=lambda file: (file.family, file.camera))
    for (_, camera), family in groupby(files, key=lambda file: (file.family, file.camera)):
        drives += _chained(list(family), camera)
    return _paired(drives)


def _look_at(path: Path) -> _File:
    try:
        if path.is_file() and not path.stat().st_size:
            raise SourceOpenError(f"{path.name} is empty")
        with av.open(f"file:{path}", metadata_errors="surrogateescape") as container:
            stream = next(iter(container.streams.video), None)
            if stream is None or stream.codec_context is None:
                raise SourceOpenError(f"{path.name} holds no picture")
            duration_s = stream_duration_s(stream) or (container.duration or 0) / av.time_base
            made_s = creation_time_s(container.metadata.get("creation_time", ""))
            size_wh = (stream.codec_context.width, stream.codec_context.height)
    except (av.FFmpegError, OSError, ValueError) as error:
        why = "it was cut off before its index was written" if lacks_index(path) else reason(error)
        raise SourceOpenError(f"{path.name} cannot be read: {why}") from error
    stem = path.stem
    camera = _camera(stem) or _camera(f"0_{path.parent.name}")
    clock_s = name_time_s(stem)
    if clock_s is not None:
        # Cameras put protected files and those of other cameras into folders of their own.
        family = ""
    else:
        bare = _LETTERS.sub("", _WORDS.sub("", stem))
        family = f"{path.parent}/{re.sub(r'[0-9]+', '#', _PARTED.sub('#', bare))}"
    parted = _PARTED.search(stem)
    order = (parted[3], parted[2]) if parted else natural_key(path)
    return _File(path, camera, family, order, size_wh, duration_s, made_s if clock_s is None else clock_s)


def _camera(stem: str) -> str:
    word = _WORDS.search(stem)
    if word:
        name = word[1].lower().replace("_", " ").replace("-", " ")
        return _WORD_CAMERAS.get(name, name)
    channel = _CHANNEL.search(stem)
    if channel:
        return "front" if channel[1] == "A" else f"camera {channel[1]}"
    letters = _LETTERS.search(stem)
    return _LETTER_CAMERAS[letters[1]] + (" small" if letters[2] == "L" else "") if letters else ""


def creation_time_s(text: str) -> float | None:
    """What a container says of when it was made, as seconds since 1970; None where it says nothing that can be true."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    # A clock that was never set says 1904 or 1970.
    return when.replace(tzinfo=when.tzinfo or UTC).timestamp() if 1990 < when.year < 9999 else None


def _chained(files: Sequence[_File], camera: str) -> list[Drive]:
    """Files of one camera and family as drives."""
    timed = all(file.clock_s is not None for file in files)
    ordered = sorted(files, key=lambda file: ((file.clock_s or 0.0) if timed else 0.0, file.order))
    chains: list[list[tuple[_File, float]]] = []  # with the pause before each file
    going_on: list[list[tuple[_File, float]]] = []
    for file in ordered:
        # What begins in the first half of another file does not follow it: a camera that no name tells, or a copy.
        # Parts that were cut from one file may all have its `creation_time`.
        named = timed and not file.family
        beside = [chain for chain in going_on if named and _gap_s(chain[-1][0], file) < -chain[-1][0].duration_s / 2]
        before = next((chain for chain in going_on if chain not in beside), None)
        gap_s = 0.0 if before is None or not timed else _gap_s(before[-1][0], file)
        if before is not None and gap_s <= _SPLIT_S and file.size_wh == before[-1][0].size_wh:
            before.append((file, gap_s if gap_s > SLACK_S else 0.0))
            continue
        going_on = [*beside, [(file, 0.0)]]
        chains.append(going_on[-1])
    found = []
    for chain in chains:
        pieces: list[Piece] = []
        end_s = 0.0
        for file, gap_s in chain:
            clock_s = file.clock_s if timed else None
            pieces.append(Piece(file.path, end_s + gap_s, file.duration_s, clock_s))
            end_s = pieces[-1].end_s
        found.append(Drive(camera, tuple(pieces)))
    return found


def _gap_s(one: _File, two: _File) -> float:
    """Seconds from the end of a file to the begin of another, both by their clocks."""
    return (two.clock_s or 0.0) - (one.clock_s or 0.0) - one.duration_s


def _paired(drives: list[Drive]) -> list[Drive]:
    """The other cameras' drives hung onto those of the main one, where they overlap in time."""
    rank = {"front": 0, "": 1}
    drives.sort(key=lambda drive: (rank.get(drive.camera, 2), drive.camera))
    main: list[Drive] = []
    for drive in drives:
        partner = next((index for index, other in enumerate(main) if _overlap(drive, other)), None)
        if partner is None:
            main.append(drive)
            continue
        leader = main[partner]
        moved = tuple(replace(piece, begin_s=_beside(piece, leader)) for piece in drive.pieces)
        others = {**leader.others, drive.camera: (*leader.others.get(drive.camera, ()), *moved)}
        main[partner] = replace(leader, others=others)
    return sorted(main, key=lambda drive: (drive.pieces[0].clock_s or 0.0, natural_key(drive.pieces[0].path)))


def _overlap(drive: Drive, main: Drive) -> bool:
    if drive.camera == main.camera or drive.camera == "":
        return False
    own, theirs = drive.pieces[0], main.pieces[0]
    if own.clock_s is None or theirs.clock_s is None:
        # Without a clock, the same number in the name is the same moment.
        same_folder = own.path.parent == theirs.path.parent
        return own.clock_s is theirs.clock_s and same_folder and _number(own.path) == _number(theirs.path)
    return (
        own.clock_s < theirs.clock_s + main.duration_s + SLACK_S
        and theirs.clock_s < own.clock_s + drive.duration_s + SLACK_S
    )


def _beside(piece: Piece, leader: Drive) -> float:
    """When a file of another camera begins, on the leader's clock."""
    near = [own for own in leader.pieces if own.clock_s is not None and piece.clock_s is not None]
    if not near:
        return piece.begin_s
    assert piece.clock_s is not None
    clock_s = piece.clock_s
    own = min(near, key=lambda own: abs((own.clock_s or 0.0) - clock_s))
    return own.begin_s + clock_s - (own.clock_s or 0.0)


def _number(path: Path) -> str:
    return _LETTERS.sub("", _WORDS.sub("", path.stem))
