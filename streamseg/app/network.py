"""The network of a run: from its settings to a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamseg.config import Settings
from streamseg.engine import Turns
from streamseg.errors import ConfigError
from streamseg.segment.ladder import Wanted, describe_running, open_session
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.ort import Runs
from streamseg.segment.store import ResolvedModel


class Sessions:
    """The network sessions of a process: streams that ask for the same network share one, and take turns."""

    def __init__(self) -> None:
        self._shared: dict[Wanted, _InTurns] = {}
        self._remarks: list[str] = []

    def __call__(self, wanted: Wanted, say: Callable[[str], None]) -> Runs:
        """The session of a network; built at the first time.

        Raises:
            ModelLoadError: it cannot be.
        """
        wanted = replace(wanted, path=wanted.path.resolve())
        if wanted not in self._shared:
            self._shared[wanted] = _InTurns(open_session(wanted, say))
            if wanted.provider == "auto":
                self._remarks.append(f"the network runs on {describe_running(self._shared[wanted].on)}")
        return self._shared[wanted]

    def take_remarks(self) -> list[str]:
        """What "auto" took, one line a session, since the last call."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def close(self) -> None:
        """Nobody waits for a network any more: the runs end."""
        for session in self._shared.values():
            session.turns.close()


class _InTurns:
    """A session that several threads may use; whoever has waited longest comes first."""

    def __init__(self, session: Runs) -> None:
        self._session = session
        self.turns = Turns()
        self.on = session.on

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self.turns:
            return self._session.run(outputs, feeds)


def segmenter_of(
    resolved: ResolvedModel, settings: Settings, sessions: Sessions, say: Callable[[str], None]
) -> tuple[Segmenter, frozenset[int] | None]:
    """The segmenter, and the class ids to keep; None where the network tells no classes apart."""
    path, model = resolved.path, settings.model
    keep = None
    if resolved.family == "yolo-seg":
        keep = _class_ids(settings.keep.classes, resolved.facts.names, path)
    size_wh = None
    if model.size != "auto":
        width, height = model.size.split("x")
        size_wh = (int(width), int(height))
    segmenter = load_segmenter(
        path,
        provider=model.provider,
        threads=model.threads or None,
        precision=model.precision,
        open_session=lambda wanted: sessions(wanted, say),
        size_wh=size_wh,
        confidence=model.confidence,
        iou=model.iou,
        max_instances=model.max_instances,
        # The results list everything that was seen; else what is not kept need not even be decoded.
        classes=None if settings.output.results else keep,
    )
    if keep is None and settings.keep.classes != ["person"]:
        raise ConfigError(
            f"{path.name} finds people and tells no classes apart; "
            f"leave out --keep {','.join(settings.keep.classes)} or choose a YOLO model with --model"
        )
    return segmenter, keep


def _class_ids(wanted: Sequence[str], names: Mapping[int, str], path: Path) -> frozenset[int]:
    by_name = {name: index for index, name in names.items()}
    ids = set()
    for name in wanted:
        if name not in by_name:
            near = get_close_matches(name, by_name, 3, 0.5)
            known = near or list(by_name)[:10]
            hint = "near matches" if near else "some of its classes"
            raise ConfigError(f"{path.name} has no class {name!r}; {hint}: {', '.join(known)}")
        ids.add(by_name[name])
    if not ids:
        raise ConfigError("keep.classes is empty; name at least one class, such as person")
    return frozenset(ids)
