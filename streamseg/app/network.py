"""The network of a run: from its settings to a segmenter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamseg.config import Settings
from streamseg.engine import Turns
from streamseg.errors import ConfigError
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.ort import Runs, Session
from streamseg.segment.store import ResolvedModel


class Sessions:
    """The network sessions of a process: streams that ask for the same network share one, and take turns."""

    def __init__(self) -> None:
        self._shared: dict[tuple[Path, str, int | None], _InTurns] = {}

    def __call__(self, path: Path, provider: str, threads: int | None) -> Runs:
        """The session of a network; built at the first time.

        Raises:
            ModelLoadError: it cannot be.
        """
        key = (path.resolve(), provider, threads)
        if key not in self._shared:
            self._shared[key] = _InTurns(Session(path, provider=provider, threads=threads))
        return self._shared[key]

    def close(self) -> None:
        """Nobody waits for a network any more: the runs end."""
        for session in self._shared.values():
            session.turns.close()


class _InTurns:
    """A session that several threads may use; whoever has waited longest comes first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.turns = Turns()
        self.provider = session.provider
        self.cpu_nodes = session.cpu_nodes
        self.threads = session.threads

    def run(self, outputs: list[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        with self.turns:
            return self._session.run(outputs, feeds)


def segmenter_of(
    resolved: ResolvedModel, settings: Settings, sessions: Sessions
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
        open_session=sessions,
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
