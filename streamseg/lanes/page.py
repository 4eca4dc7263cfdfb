"""The summary of a drive as one HTML page: a time line, a table of what happened, thumbnails; nothing is fetched.

html = drive_page(Journey("front", duration_s=180.0, shots=[Shot(event, jpeg, ["clips/front_00h01m.mp4"])]))
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from streamseg.lanes.events import Event

__all__ = ["Journey", "Shot", "drive_page", "time_of_day", "time_words"]

# Told apart with every kind of colour vision (Okabe and Ito).
_COLOURS = {
    "departure": "#e69f00",
    "lane change": "#0072b2",
    "lanes lost": "#999999",
    "cut-in": "#cc79a7",
    "person in lane": "#d55e00",
}
_WIDTH, _TRACK, _CURVE = 1000.0, 26.0, 64.0
_MOST_POINTS = 600
# Longer than this between two speeds, nothing was known.
_LEAP_S = 5.0
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem auto;max-width:64rem;padding:0 1rem}
svg{width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:currentColor}.file{fill:currentColor;opacity:.14}
.speed{fill:none;stroke:#009e73;stroke-width:1.5}.filled{stroke-dasharray:3 3;opacity:.6}
table{border-collapse:collapse;width:100%}
td,th{padding:.3rem .6rem;text-align:left;vertical-align:top;white-space:nowrap}
tr+tr td{border-top:1px solid #8884}tr:target{background:#8883}img{display:block;width:13rem}
i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}.legend span{margin-right:1.2em}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Shot:
    """An event as the page shows it.

    Attributes:
        event: what happened.
        jpeg: a small picture of it; None shows none.
        clips: where its clips lie, relative to the page.
    """

    event: Event
    jpeg: bytes | None = None
    clips: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Journey:
    """A drive as the page shows it.

    Attributes:
        name: of the drive.
        duration_s: to the end of its last picture.
        shots: its events, in any order.
        files: (name, begin, end) in seconds; what lies between two of them was not recorded.
        speeds: (time in s, m/s, filled) in order; where the time leaps, nothing is known.
        clock_s: when it began, as seconds since 1970 by the camera's clock; None where nobody knows.
        remarks: lines for the reader, such as which files could not be read.
    """

    name: str
    duration_s: float
    shots: Sequence[Shot] = ()
    files: Sequence[tuple[str, float, float]] = ()
    speeds: Sequence[tuple[float, float, bool]] = ()
    clock_s: float | None = None
    remarks: Sequence[str] = field(default_factory=tuple)


def time_words(at_s: float) -> str:
    """Hours, minutes and seconds of a drive.

    >>> time_words(3725.04), time_words(59.96)
    ('1:02:05.0', '1:00.0')
    """
    tenths = round(max(0.0, at_s) * 10)
    hours, minutes = tenths // 36000, tenths // 600 % 60
    seconds = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02d}:{seconds}" if hours else f"{minutes}:{seconds}"


def time_of_day(clock_s: float) -> str:
    """Date and time on the camera's own clock."""
    return f"{datetime.fromtimestamp(clock_s, UTC):%Y-%m-%d %H:%M:%S}"


def drive_page(journey: Journey) -> str:
    """The page, complete in itself: pictures are inside, clips are linked beside it."""
    shots = sorted(journey.shots, key=lambda shot: shot.event.begin_s)
    counted = {kind: sum(shot.event.kind == kind for shot in shots) for kind in _COLOURS}
    tally = ", ".join(f"{count} × {kind}" for kind, count in counted.items() if count) or "nothing happened"
    began = f"{time_of_day(journey.clock_s)}, " if journey.clock_s is not None else ""
    fastest = max((speed for _, speed, _ in journey.speeds), default=None)
    facts = f"{began}{time_words(journey.duration_s)} long; {tally}"
    if fastest is not None:
        facts += f"; up to {fastest * 3.6:.0f} km/h"
    legend = "".join(
        f'<span><i style="background:{_COLOURS[kind]}"></i>{kind}</span>' for kind, count in counted.items() if count
    )
    remarks = "".join(f"<li>{escape(line)}</li>" for line in journey.remarks)
    rows = "".join(_row(shot, journey, number) for number, shot in enumerate(shots, 1))
    heads = "".join(f"<th>{name}</th>" for name in ("", "time", "what", "for", "offset", "speed", "place", "clip"))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(journey.name)}</title><style>{_STYLE}</style></head><body>
<h1>{escape(journey.name)}</h1>
<p>{escape(facts)}</p>
{_time_line(journey, shots)}
<p class="legend">{legend}</p>
{f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if shots else ""}
{f"<ul>{remarks}</ul>" if remarks else ""}
</body></html>
"""


def _row(shot: Shot, journey: Journey, number: int) -> str:
    event = shot.event
    picture = ""
    if shot.jpeg is not None:
        data = base64.b64encode(shot.jpeg).decode("ascii")
        picture = f'<img alt="{escape(event.kind)}" src="data:image/jpeg;base64,{data}">'
    at = time_words(event.begin_s)
    if journey.clock_s is not None:
        at += f"<br><small>{time_of_day(journey.clock_s + event.begin_s)[-8:]}</small>"
    what = f"{event.kind} {event.side or ''}".strip()
    lasted = "" if event.end_s is None else f"{event.end_s - event.begin_s:.1f} s"
    worst = "" if event.worst is None else f"{event.worst:.0%}"
    place = speed = ""
    if event.speed_m_s is not None:
        speed = f"{event.speed_m_s * 3.6:.0f} km/h{' (filled)' if event.filled else ''}"
    if event.latitude is not None and event.longitude is not None:
        place = f"{event.latitude:.5f}, {event.longitude:.5f}"
    clips = "<br>".join(
        f'<a href="{quote(clip)}" title="{escape(clip)}">clip{f" {place}" if place > 1 else ""}</a>'
        for place, clip in enumerate(shot.clips, 1)
    )
    colour = _COLOURS.get(event.kind, "#000")
    return (
        f'<tr id="e{number}"><td>{picture}</td><td>{at}</td><td><i style="background:{colour}"></i>{escape(what)}</td>'
        f"<td>{lasted}</td><td>{worst}</td><td>{speed}</td><td>{place}</td><td>{clips}</td></tr>"
    )


def _time_line(journey: Journey, shots: Sequence[Shot]) -> str:
    length_s = max(journey.duration_s, 1e-3)

    def x(at_s: float) -> float:
        return round(min(max(at_s / length_s, 0.0), 1.0) * _WIDTH, 2)

    top = _CURVE if journey.speeds else 0.0
    height = top + _TRACK + 18
    parts = []
    for name, begin_s, end_s in journey.files or [("", 0.0, length_s)]:
        width = max(x(end_s) - x(begin_s) - 1, 0.5)
        title = f"<title>{escape(name)}</title>" if name else ""
        parts.append(
            f'<rect class="file" x="{x(begin_s)}" y="{top}" width="{width:.2f}" height="{_TRACK}">{title}</rect>'
        )
    for number, shot in enumerate(shots, 1):
        event = shot.event
        end_s = event.begin_s if event.end_s is None else event.end_s
        width = max(x(end_s) - x(event.begin_s), 3.0)
        title = f"{time_words(event.begin_s)} {event.kind} {event.side or ''}".strip()
        parts.append(
            f'<a href="#e{number}"><rect x="{x(event.begin_s)}" y="{top + 3}" width="{width:.2f}" '
            f'height="{_TRACK - 6}" fill="{_COLOURS.get(event.kind, "#000")}"><title>{escape(title)}</title></rect></a>'
        )
    step_s = next((step for step in (1, 5, 10, 30, 60, 300, 600, 1800, 3600) if length_s / step <= 12), 7200)
    for tick in range(int(length_s // step_s) + 1):
        at = x(tick * step_s)
        anchor = "start" if at < 30 else "end" if at > _WIDTH - 30 else "middle"
        words = time_words(tick * step_s).removesuffix(".0")
        parts.append(f'<text x="{at}" y="{height - 4}" text-anchor="{anchor}">{words}</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="time line">'
        f"{_curve(journey, x)}{''.join(parts)}</svg>"
    )


def _curve(journey: Journey, x: Callable[[float], float]) -> str:
    """The speed over time; what was filled in is dashed."""
    if not journey.speeds:
        return ""
    top = max(10.0, *(speed for _, speed, _ in journey.speeds))
    every = -(-len(journey.speeds) // _MOST_POINTS)
    points = journey.speeds[::every]
    pieces: list[tuple[bool, list[str]]] = []
    last: tuple[float, bool, str] | None = None
    for at_s, speed, filled in points:
        place = f"{x(at_s)},{_CURVE - 4 - speed / top * (_CURVE - 16):.1f}"
        if last is None or at_s - last[0] > _LEAP_S * every or filled != last[1]:
            joined = [last[2]] if last is not None and at_s - last[0] <= _LEAP_S * every else []
            pieces.append((filled, joined))
        pieces[-1][1].append(place)
        last = (at_s, filled, place)
    lines = "".join(
        f'<polyline class="speed{" filled" if filled else ""}" points="{" ".join(places)}"/>'
        for filled, places in pieces
        if len(places) > 1
    )
    return f'{lines}<text x="0" y="11">{top * 3.6:.0f} km/h</text>'
