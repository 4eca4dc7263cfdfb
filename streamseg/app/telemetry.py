"""Position and speed for the times of a video: from a file that the user names, one beside the video, or inside it.

where = whereabouts(source, Path(url), file="", offset_s=0.0, say=print)   # None: there is no telemetry
LaneOverlay(finder, where=where); EventLog(source, Path(url), where=where, ...)
where(12.5)     # Fix | None
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from streamseg.app.journey import began_s
from streamseg.errors import ConfigError, SourceOpenError
from streamseg.frame import Source
from streamseg.lanes.gpmf import gps_samples
from streamseg.lanes.page import time_of_day
from streamseg.lanes.telemetry import Fix, Telemetry, read_csv, read_gpx, read_nmea
from streamseg.libav import reason
from streamseg.sources.drive import DriveSource
from streamseg.sources.grouping import creation_time_s
from streamseg.sources.metadata import timed_metadata

__all__ = ["Where", "open_telemetry", "read_embedded", "side_file", "whereabouts"]

Where = Callable[[float], Fix | None]

_SIDE_SUFFIXES = (".gpx", ".nmea", ".nma", ".gps", ".csv")
_MOST_BYTES = 200_000_000
_HOUR_S = 3600.0


def open_telemetry(path: Path) -> Telemetry:
    """The fixes in a GPX, NMEA or CSV file; which of them it is, its content tells.

    Raises:
        ConfigError: it cannot be read, or holds no fix.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"telemetry {path} is larger than {_MOST_BYTES // 1_000_000} MB; cut it to the drive")
        text = path.read_text("utf-8-sig", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read telemetry {path}: {reason(error)}") from error
    try:
        if text.lstrip().startswith("<"):
            found = read_gpx(text)
        else:
            found = read_nmea(text) if "RMC," in text else read_csv(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not len(found):
        broken = f", only {found.skipped} broken lines" if found.skipped else ""
        raise ConfigError(
            f"telemetry {path} holds no position with a time{broken}; leave it out or choose another file"
        )
    return found


def side_file(video: Path) -> Path | None:
    """The telemetry file that lies beside a video under the same name, in any case; None where there is none."""
    try:
        beside = sorted(video.parent.iterdir())
    except OSError:
        return None
    near = [path for path in beside if path.stem.casefold() == video.stem.casefold()]
    return next((path for suffix in _SIDE_SUFFIXES for path in near if path.suffix.lower() == suffix), None)


def read_embedded(video: Path) -> Telemetry:
    """Fixes inside a video, on the clock of its pictures: GPMF data of GoPro cameras; empty where there are none.

    Raises:
        SourceOpenError: the video cannot be read.
    """
    rows: list[tuple[float, float, float, float]] = []
    skipped = 0
    for at_s, duration_s, content in timed_metadata(video):
        if not content.startswith(b"DEVC"):
            continue
        try:
            samples = gps_samples(content)
        except ValueError:
            skipped += 1
            continue
        for number, (latitude, longitude, speed) in enumerate(samples):
            rows.append((at_s + duration_s * number / len(samples), latitude, longitude, speed))
    return Telemetry(rows, skipped=skipped)


def whereabouts(source: Source, path: Path, *, file: str, offset_s: float, say: Callable[[str], None]) -> Where | None:
    """Telemetry of a file or a drive, by the time of its pictures.

    Args:
        source: a file or a drive; nothing that is wrapped around one.
        path: what the user named.
        file: the telemetry that the user named; empty looks beside the video, then inside.
        offset_s: seconds by which the telemetry's clock is ahead of the video's.
        say: receives one-line remarks: what is used, what is broken, and what does not fit.

    Returns:
        None where there is no telemetry.

    Raises:
        ConfigError: the file that the user named cannot be used.
    """
    if file:
        return _by_clock(open_telemetry(Path(file)), file, source, path, offset_s, say)
    videos = [piece.path for piece in source.drive.pieces] if isinstance(source, DriveSource) else [path]
    sides = [side for video in videos if (side := side_file(video)) is not None]
    if sides:
        found: dict[Path, Telemetry] = {}
        for side in sides:
            try:
                found[side] = open_telemetry(side)
            except ConfigError as error:
                say(f"{error}; it goes on without")
        if not found:
            return None
        name = next(iter(found)).name + (f" and {len(found) - 1} more" if len(found) > 1 else "")
        return _by_clock(Telemetry.joined(list(found.values())), name, source, path, offset_s, say)
    return _inside(source, videos, offset_s, say)


def _by_clock(
    telemetry: Telemetry, name: str, source: Source, path: Path, offset_s: float, say: Callable[[str], None]
) -> Where:
    if telemetry.skipped:
        say(f"telemetry {name}: {telemetry.skipped} broken lines left out, {len(telemetry)} read")
    named = began_s(source, path)
    # Containers should tell UTC, as telemetry does; names tell the local time.
    made = creation_time_s(source.info.metadata.get("creation_time", ""))
    length_s = source.info.duration_s or 0.0
    known = [began for began in (made, named) if began is not None]
    fitting = [began for began in known if _overlap(telemetry, began + offset_s, length_s)]
    if not known:
        say(f"nothing tells when {source.info.name} began: it is taken to begin with {name}")
    elif not fitting:
        say(_misfit(telemetry, name, source, known[-1], offset_s, length_s))
    else:
        say(f"telemetry: {name}, {len(telemetry)} positions")
    start_s = [*fitting, *reversed(known), telemetry.begin_s][0] + offset_s
    if not isinstance(source, DriveSource) or named is None:
        return lambda at_s: telemetry.at(start_s + at_s)
    # Each file by its own clock: a moment lost between two files does not add up.
    pieces = source.drive.pieces
    begins = [(piece.begin_s, piece.clock_s + start_s - named) for piece in pieces if piece.clock_s is not None]

    def at(at_s: float) -> Fix | None:
        begin_s, clock_s = max((pair for pair in begins if pair[0] <= at_s), default=begins[0])
        return telemetry.at(clock_s + at_s - begin_s)

    return at


def _overlap(telemetry: Telemetry, from_s: float, length_s: float) -> bool:
    return from_s <= telemetry.end_s and from_s + length_s >= telemetry.begin_s


def _misfit(telemetry: Telemetry, name: str, source: Source, began: float, offset_s: float, length_s: float) -> str:
    text = (
        f"telemetry {name} covers {time_of_day(telemetry.begin_s)} to {time_of_day(telemetry.end_s)[-8:]}, "
        f"{source.info.name} begins at {time_of_day(began)}"
    )
    if offset_s:
        text += f" and --telemetry-offset is {offset_s:g}"
    # Time zones lie quarters of an hour apart.
    zone_s = round((telemetry.begin_s - began) / (_HOUR_S / 4)) * _HOUR_S / 4
    if abs(zone_s) <= 14 * _HOUR_S and _overlap(telemetry, began + zone_s, length_s):
        if not zone_s:
            return f"{text}: without the offset they meet; leave it out"
        return f"{text}: if that is the time zone, add --telemetry-offset {zone_s:g}"
    return f"{text}: it does not fit and is not used"


def _inside(source: Source, videos: Sequence[Path], offset_s: float, say: Callable[[str], None]) -> Where | None:
    found: dict[Path, Telemetry] = {}
    for video in videos:
        try:
            found[video] = read_embedded(video)
        except SourceOpenError as error:
            say(f"{error}; it goes on without its positions")
    count, broken = sum(map(len, found.values())), sum(each.skipped for each in found.values())
    if broken:
        say(f"positions inside the video: {broken} broken packets left out")
    if not count:
        return None
    say(f"telemetry: {count} positions inside the video")
    if not isinstance(source, DriveSource):
        (telemetry,) = found.values()
        return lambda at_s: telemetry.at(at_s + offset_s)
    drive_source = source

    def at(at_s: float) -> Fix | None:
        leg = next((leg for leg in reversed(drive_source.legs) if leg.from_s <= at_s), None)
        telemetry = found.get(leg.path) if leg is not None else None
        return None if leg is None or telemetry is None else telemetry.at(at_s - leg.begin_s + offset_s)

    return at
