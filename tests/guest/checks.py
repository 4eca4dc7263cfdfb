"""Runs the checks of one script in the guest: every function named ``check_...`` of it, one line of JSON for each.

A check fails by raising (assert); what it returns, a mapping of what JSON knows, is printed as seen. A script ends with

    if __name__ == "__main__":
        run_checks(globals())

and may say in a constant `GUESTS` in which guests it is run: by the names that `tests/test_guest.py` knows, the names
of the checks, none for all.
"""

from __future__ import annotations

import faulthandler
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

__all__ = ["MARK", "patience", "run_checks"]

MARK = "@check "
# Where a check stands is shown this often, in case it never ends.
_SHOWN_EVERY_S = 240
# What starting Python takes in the guest while its host does nothing else.
_PYTHON_S = 0.5


def patience() -> float:
    """How much longer things take just now than on an idle host, at least 1: limits in seconds are multiplied by it."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return max(1.0, (time.monotonic() - began_s) / _PYTHON_S)


def run_checks(names: Mapping[str, Any]) -> None:
    """Call the checks in the order they are written; arguments of the script choose some of them by name."""
    faulthandler.dump_traceback_later(_SHOWN_EVERY_S, repeat=True)
    for name, check in list(names.items()):
        if not name.startswith("check_") or not callable(check) or (sys.argv[1:] and name not in sys.argv[1:]):
            continue
        began, error, seen = time.monotonic(), None, None
        print(f"{name} begins", flush=True)
        try:
            seen = check()
        except Exception:
            error = traceback.format_exc()
        line = {"check": name, "error": error, "seen": seen, "took_s": round(time.monotonic() - began, 2)}
        # In one write, so that the kernel's messages do not cut it in two.
        sys.stdout.write("\n" + MARK + json.dumps(line) + "\n")
        sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
