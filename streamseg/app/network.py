"""The network of a run: from its settings to a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from streamseg.app.answers import Timed
from streamseg.config import ModelSettings, Settings, parse_size, parse_three
from streamseg.engine import Metrics, Turns
from streamseg.errors import ConfigError
from streamseg.segment.ladder import Wanted, describe_running, open_session
from streamseg.segment.load import Segmenter, load_segmenter
from streamseg.segment.ort import Runs, usable_cores
from streamseg.segment.pool import Pool
from streamseg.segment.preprocess import Preprocess
from streamseg.segment.store import ResolvedModel

__all__ = ["Network", "Sessions", "class_ids", "kept_classes", "network_of"]

# More networks side by side take more memory than they gain time: decoding and encoding need cores too.
_MOST_SESSIONS = 4
# What runs on the cores of the machine.
_OF_CORES = ("cpu", "openvino")


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
            self._shared[wanted] = _InTurns(self.alone(wanted, say))
        return self._shared[wanted]

    def alone(self, wanted: Wanted, say: Callable[[str], None]) -> Runs:
        """A session that nobody else uses.

        Raises:
            ModelLoadError: it cannot be built.
        """
        session = open_session(wanted, say)
        if wanted.provider == "auto":
            remark = f"the network runs on {describe_running(session.on)}"
            if remark not in self._remarks:
                self._remarks.append(remark)
        return session

    def take_remarks(self) -> list[str]:
        """What "auto" took, one line a kind of session, since the last call."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """The network of a run.

    Attributes:
        model: which it is.
        pool: of its segmenters.
        took_s: how long the last inference took.
        settled: its thresholds do not change while it runs.
        classes_of: the classes that it looks for under other settings, None for those of now; raises `ConfigError`.
    """

    model: ResolvedModel
    pool: Pool
    took_s: Callable[[], float]
    settled: bool = False
    classes_of: Callable[[Settings], frozenset[int] | None] = lambda settings: None

    @property
    def sessions(self) -> int:
        """How many frames it looks at side by side."""
        return int(self.pool.describe()["sessions"])


def network_of(
    resolved: ResolvedModel,
    settings: Settings,
    metrics: Metrics,
    *,
    classes: frozenset[int] | None,
    sessions: Sessions,
    shared: bool,
    say: Callable[[str], None],
    stack: ExitStack,
) -> Network:
    """The network that the settings ask for.

    Args:
        resolved: the model.
        settings: of the run.
        metrics: receives the time of every inference.
        classes: of a YOLO network, that are decoded; None for all.
        sessions: of the process.
        shared: with other runs, in turns; else the run has as many sessions of its own as suit a file.
        say: told in one line each what could not be had.
        stack: closes it.

    Raises:
        StreamsegError: it cannot be had as asked.
    """
    count = 1 if shared else settings.model.sessions or min(usable_cores(), _MOST_SESSIONS)

    def load() -> Segmenter:
        open_session = partial(sessions if shared else sessions.alone, say=say)
        return _segmenter(resolved, settings.model, classes, open_session, side_by_side=count > 1)

    segmenters = [load()]
    # Side by side pays where a session has a core; an accelerator is one, whatever the cores are.
    if segmenters[0].describe()["provider"] in _OF_CORES:
        segmenters += [load() for _ in range(count - 1)]
    timed = [Timed(segmenter, metrics) for segmenter in segmenters]
    pool = Pool(timed)
    stack.callback(pool.close)
    return Network(resolved, pool, lambda: timed[0].took_s)


def _segmenter(
    resolved: ResolvedModel,
    model: ModelSettings,
    classes: frozenset[int] | None,
    open_session: Callable[[Wanted], Runs],
    *,
    side_by_side: bool,
) -> Segmenter:
    return load_segmenter(
        resolved.path,
        provider=model.provider,
        threads=model.threads or (1 if side_by_side else None),
        precision=model.precision,
        open_session=open_session,
        size_wh=parse_size(model.size),
        confidence=model.confidence,
        iou=model.iou,
        max_instances=model.max_instances,
        classes=classes,
        preprocess=_preprocess(model),
    )


def _preprocess(model: ModelSettings) -> Preprocess | None:
    """What the settings say of a semantic network's input; None where they say nothing, and its file is asked."""
    asked = {
        "mean": parse_three(model.mean),
        "std": parse_three(model.std),
        "swapped": model.channel_order == "bgr" or None,
        "letterbox": model.letterbox or None,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    return Preprocess(**given) if given else None


def kept_classes(resolved: ResolvedModel, settings: Settings, names: Sequence[str] = ()) -> frozenset[int] | None:
    """The class ids of the subject; None where the network tells no classes apart.

    Args:
        resolved: the network.
        settings: of the run.
        names: of a semantic network's classes, the background first, which are known when it is loaded.

    Raises:
        ConfigError: the network has no such class.
    """
    wanted, path = settings.keep.classes, resolved.path
    if resolved.family == "yolo-seg" or len(names) > 2:  # of two classes, one is the subject, whatever its name
        if not wanted:
            raise ConfigError("keep.classes is empty; name at least one class, such as person")
        return class_ids(wanted, dict(enumerate(names)) or resolved.facts.class_names, path)
    if wanted != ["person"]:
        raise ConfigError(
            f"{path.name} finds people and tells no classes apart; "
            f"leave out --keep {','.join(wanted)} or choose a YOLO model with --model"
        )
    return None


def class_ids(wanted: Sequence[str], names: Mapping[int, str], path: Path) -> frozenset[int]:
    """The ids of classes by name.

    Raises:
        ConfigError: a name is no class of the network.
    """
    by_name: dict[str, set[int]] = {}  # several classes may share a name
    for index, name in names.items():
        by_name.setdefault(name, set()).add(index)
    ids: set[int] = set()
    for name in wanted:
        if name not in by_name:
            near = get_close_matches(name, by_name, 3, 0.5)
            known = near or list(by_name)[:10] or ["none are named"]
            hint = "near matches" if near else "some of its classes"
            raise ConfigError(f"{path.name} has no class {name!r}; {hint}: {', '.join(known)}")
        ids |= by_name[name]
    return frozenset(ids)
