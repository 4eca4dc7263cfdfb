"""Several runs in one process: each on its own, sharing the networks."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from streamseg.app.build import Preparation, build, prepare
from streamseg.app.network import Sessions
from streamseg.app.outputs import written_files
from streamseg.app.privacy import Progress, unwatched
from streamseg.app.run import Run, rss_bytes
from streamseg.config import Settings
from streamseg.engine import in_parallel, stream_name
from streamseg.errors import ConfigError, PipelineStuckError, StreamsegError, redact, shown

__all__ = ["Fleet"]

_log = logging.getLogger(__name__)
_STUCK_AFTER_S = 15.0
_END_S = 5.0


class Fleet:
    """The runs of a process. One run is a fleet of one.

    What goes wrong with a single run is raised. Of several, one that cannot be begun or fails on the way is said and
    the others go on; only when none is left is the first failure raised.

    Args:
        settings: by the name of the stream; the empty name where there is only one.
        say: receives one-line remarks for the user.
        protected: files that no output may replace.
        progress: shows how far that is which has to be done before the runs begin.

    Raises:
        StreamsegError: a single run, or every one of several, cannot be begun.
    """

    def __init__(
        self,
        settings: Mapping[str, Settings],
        say: Callable[[str], None],
        *,
        protected: Sequence[str] = (),
        progress: Progress = unwatched,
    ) -> None:
        _refuse_shared_files(settings)
        self._say = say
        self._began = time.monotonic()
        self._failures: dict[str, Exception] = {}
        self._over: dict[str, str] = {}
        self._pace: dict[str, tuple[int, float, float]] = {}  # frames in, when last counted, frames per second
        self._moved: dict[str, tuple[int, float]] = {}
        self._newest: dict[str, tuple[int, float]] = {}
        self._names = frozenset(settings)
        self.runs: dict[str, Run] = {}
        self._sessions = Sessions()
        several = len(settings) > 1
        preparations: dict[str, Preparation] = {}
        try:
            for name, own in settings.items():
                with self._bearing(name, several):
                    preparations[name] = prepare(own, self._voice_of(name, several), protected=protected)
            # Side by side: one silent camera must not keep the others waiting.
            in_parallel(
                [partial(self._connect, preparations[name], name, several) for name in preparations],
                interrupts=[preparation.interrupt for preparation in preparations.values()],
            )
            for name, preparation in preparations.items():
                with self._bearing(name, several):
                    self.runs[name] = build(
                        settings[name],
                        self._voice_of(name, several),
                        preparation=preparation,
                        name=name,
                        sessions=self._sessions,
                        several=several,
                        progress=progress,
                    )
            if not self.runs:
                raise next(iter(self._failures.values()))
        except BaseException:
            self.discard()
            raise
        finally:
            for preparation in preparations.values():
                preparation.discard()

    def discard(self) -> None:
        """Let go of everything; for runs that were never started."""
        for run in self.runs.values():
            run.discard()

    def start(self) -> None:
        """Begin all runs."""
        self._began = time.monotonic()
        for run in self.runs.values():
            run.pipeline.start()

    def stop(self) -> None:
        """Ask all runs to end in good order; any thread."""
        if len(self.runs) > 1 and all(run.source.info.live for run in self.runs.values()):
            # Else each would still wait for its turn at the network, one after the other.
            self._sessions.close()
        for run in self.runs.values():
            run.stop()

    def abort(self) -> None:
        """Ask all runs to end at once; any thread."""
        self._sessions.close()
        for run in self.runs.values():
            run.abort()

    def wait(self, timeout_s: float) -> bool:
        """Wait for all to end; True when they have.

        Raises:
            StreamsegError: the failure of a single run, or the first of several when none is left and none ended well.
        """
        deadline = time.monotonic() + timeout_s
        for name, run in self.runs.items():
            if name in self._over:
                continue
            try:
                if not run.pipeline.wait(max(0.0, deadline - time.monotonic())):
                    continue
                self._end(name, "ended")
            except PipelineStuckError:
                raise
            except Exception as error:  # whatever it is, it is this stream's alone
                self._end(name, "failed")
                if len(self.runs) == 1 and not self._failures:
                    raise
                _log.debug("stream %s failed", name, exc_info=error)
                self._fail(name, error)
        if len(self._over) < len(self.runs):
            return False
        if self._failures and all(name in self._failures for name in self.runs):
            raise next(iter(self._failures.values()))
        return True

    def is_moving(self) -> bool:
        """Whether every live run that has not ended still gives pictures, be they slates: a stuck one does not."""
        now = time.monotonic()
        for name, run in self.runs.items():
            if name in self._over or not run.source.info.live:
                continue
            shown, when = self._moved.get(name, (-1, now))
            if run.frames_out != shown:
                self._moved[name] = (run.frames_out, now)
            elif now - when > _STUCK_AFTER_S:
                return False
        return True

    @property
    def failed(self) -> Mapping[str, Exception]:
        """What went wrong, by stream."""
        return self._failures

    def change(self, settings: Mapping[str, Settings]) -> None:
        """Take over what may change while the runs go on; streams that come or go are named, and wait.

        Raises:
            StreamsegError: something cannot be had as asked; nothing has changed.
        """
        running = {name: run for name, run in self.runs.items() if name in settings and name not in self._over}
        # All or nothing: a mistake in one stream's settings changes none of them.
        changes = [
            run.prepare_change(settings[name], self._voice_of(name, len(self.runs) > 1))
            for name, run in running.items()
        ]
        for change in changes:
            change()
        for names, how in ((settings.keys() - self._names, "new"), (self._names - settings.keys(), "no longer named")):
            if names:
                told = ", ".join(name or "the stream without a name" for name in sorted(names))
                self._say(f"streams come and go with the next start: {how}: {told}")

    def end(self) -> None:
        """Break off what still runs, and wait until nothing of it does."""
        for name, run in self.runs.items():
            if name not in self._over and run.pipeline.running:
                run.abort()
                # What it was about to say is not what is being raised now.
                with contextlib.suppress(Exception):
                    run.pipeline.wait(_END_S)

    def close(self) -> None:
        """Let go of what the runs held; after they ended."""
        for run in self.runs.values():
            run.resources.close()

    def notices(self) -> list[str]:
        """Remarks so far, in one line each."""
        return [line for run in self.runs.values() for line in run.notices()]

    def sample(self) -> dict[str, Any]:
        """The state of this moment, as `web.prometheus.render` takes it; called about once a second."""
        now = time.monotonic()
        streams = {}
        for name, run in self.runs.items():
            measured, (state, reason) = run.measured(), run.state
            frames = measured["counts"].get("frames in", 0)
            counted, when, fps = self._pace.get(name, (frames, now, 0.0))
            if now - when >= 1.0:
                self._pace[name] = (frames, now, (frames - counted) / (now - when))
            else:
                self._pace.setdefault(name, (frames, now, 0.0))
            newest = self._newest.get(name, (0, self._began))
            if frames != newest[0]:
                newest = self._newest[name] = (frames, now)
            streams[name or "main"] = {
                "state": self._over.get(name, state),
                "reason": reason,
                "counts": {**measured["counts"], **measured["irregularities"]},
                "stages": measured["stages"],
                "drops": measured["drops"],
                "reconnects": measured["irregularities"].get("reconnects", 0),
                "frame_age_s": now - newest[1],
                "fps": fps,
                "sinks": measured["sinks"],
            }
        for name, error in self._failures.items():
            streams.setdefault(name, {"state": "failed", "reason": redact(str(error))})
        return {"streams": streams, "rss_bytes": rss_bytes() or 0, "uptime_s": now - self._began}

    def reports(self, *, outcome: str) -> dict[str, dict[str, Any]]:
        """The report of every run, by stream; `outcome` is what is said of those that did not fail."""
        wall_s = time.monotonic() - self._began
        return {
            name: run.report(
                wall_s=wall_s, outcome=redact(str(self._failures[name])) if name in self._failures else outcome
            )
            for name, run in self.runs.items()
        }

    def _connect(self, preparation: Preparation, name: str, several: bool) -> None:
        with self._bearing(name, several):
            preparation.connect()

    @contextlib.contextmanager
    def _bearing(self, name: str, several: bool) -> Iterator[None]:
        """Within, what goes wrong with one of several streams is said under its name, and the others go on."""
        before = stream_name.set(name if several else "")
        try:
            yield
        except StreamsegError as error:
            if not several:
                raise
            self._fail(name, error)
        finally:
            stream_name.reset(before)

    def _voice_of(self, name: str, several: bool) -> Callable[[str], None]:
        return (lambda line: self._say(f"{name}: {line}")) if several else self._say

    def _end(self, name: str, how: str) -> None:
        self._over[name] = how

    def _fail(self, name: str, error: Exception) -> None:
        self._failures[name] = error
        self._voice_of(name, True)(str(error))


def _refuse_shared_files(settings: Mapping[str, Settings]) -> None:
    writers: dict[str, str] = {}
    for name, own in settings.items():
        for path in written_files(own):
            real = os.path.realpath(path) if "://" not in path and not path.startswith("virtualcam:") else path
            if real in writers and writers[real] != name:
                raise ConfigError(
                    f"streams {writers[real]} and {name} both write {shown(path)}; give each an output of its own"
                )
            writers[real] = name
