"""Sound that outlives the source it came from."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import av

from streamseg.frame import Track
from streamseg.libav import reason
from streamseg.sinks.tracks import stream_metadata
from streamseg.sounds import form_of

__all__ = ["KeptTracks"]


class KeptTracks:
    """Copies of a source's tracks, good for as long as they are kept open: the source may be closed and opened again.

    Args:
        tracks: of the source, which must still be open.

    Attributes:
        notices: a line for each track that is left out.
    """

    def __init__(self, tracks: Iterable[Track] = ()) -> None:
        self._kept: dict[int, Track] = {}
        self._forms: dict[int, tuple[Any, ...]] = {}
        self._seen: dict[int, Track] = {}
        self._shelves: dict[int, Any] = {}
        self.notices: list[str] = []
        self.update(tracks)

    @property
    def tracks(self) -> tuple[Track, ...]:
        """The copies, with the indices of the originals."""
        return tuple(self._kept.values())

    def update(self, tracks: Iterable[Track]) -> bool:
        """Take over tracks that are new, or coded in another way than before; whether there were any."""
        changed = False
        for track in tracks:
            if self._seen.get(track.index) is track or track.kind == "attachment":
                continue
            self._seen[track.index] = track
            form = form_of(track)
            if self._forms.get(track.index) == form:
                continue
            self._forms[track.index] = form
            shelf = av.open(io.BytesIO(), "w", format="nut")  # holds about everything
            try:
                template = shelf.add_stream_from_template(track.template, opaque=True)
            except (av.FFmpegError, ValueError, NotImplementedError) as error:
                shelf.close()
                notice = f"{track.kind} track {track.index} ({track.codec}) is left out: {reason(error)}"
                if notice not in self.notices:
                    self.notices.append(notice)
                changed |= self._kept.pop(track.index, None) is not None
                continue
            template.metadata.update(stream_metadata(dict(track.template.metadata)))
            template.disposition = track.template.disposition
            if before := self._shelves.get(track.index):
                before.close()
            self._shelves[track.index] = shelf
            self._kept[track.index] = Track(track.index, track.kind, track.codec, template)
            changed = True
        return changed

    def close(self) -> None:
        """Let go of the copies."""
        for shelf in self._shelves.values():
            shelf.close()
