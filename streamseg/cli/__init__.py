"""The command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import streamseg
from streamseg.errors import PipelineStuckError, StreamsegError, redact

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # A command tells itself what it does not know; argparse leaves that to the parser above, whose help lacks it.
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown

    def error(self, message: str) -> NoReturn:
        print(redact(f"{self.prog}: {message}; see {self.prog} --help"), file=sys.stderr)
        sys.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 1 failed, 2 wrong use or input, 130 interrupted.

    Raises:
        SystemExit: SIGTERM came, and the command has no way of its own to end; what it had begun is tidied up.
    """
    try:
        with _tidying() as interrupted:
            try:
                args = _parse(argv)
            except Exception:
                if not interrupted:  # which a library that was being imported has made something else of
                    raise
            if interrupted:  # and it was swallowed
                return 130
            return int(args.function(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our standard output has had enough; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except PipelineStuckError as error:
        _tell(f"streamseg: {error}")
        # The stuck thread is ours and no daemon: a plain exit would wait for it for ever.
        os._exit(1)
    except StreamsegError as error:
        _tell(f"streamseg: {error}")
        return error.exit_code
    except OSError as error:
        from streamseg.libav import unwritten

        # What nobody expected of a file system: a name too long, a full device under standard output.
        where = f"{error.filename}: " if error.filename else ""
        _tell(f"streamseg: {where}{unwritten(error)}")
        return 2


def _tell(line: str) -> None:
    from streamseg.cli.log import tell  # it pulls in NumPy

    tell(line)


@contextmanager
def _tidying() -> Iterator[Sequence[int]]:
    """Within, SIGTERM is an exception: by itself it ends the process, with temporary folders and children left.

    Yields:
        the interrupts that came, whoever caught the exception.
    """
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        interrupts.append(number)
        raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread, which alone hears of signals
        yield interrupts
        return
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        if heard:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, before)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    # They pull in OpenCV, PyAV and ONNX, which takes a while: an interrupt must find us ready.
    from streamseg.cli import batch, bench, demo, doctor, evaluate, models, run

    parser = _Parser(prog="streamseg", description="Cut out, clean up and annotate a live picture.")
    parser.add_argument("--version", action="version", version=f"streamseg {streamseg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in (run, batch, demo, models, evaluate, bench, doctor):
        module.add_parser(commands)
    return parser.parse_args(argv)
