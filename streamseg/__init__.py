"""Cut out, clean up and annotate a live picture: capture, segment, smooth, composite."""

import os

__version__ = "0.1.0"

# ONNX Runtime (1.29 and later) else writes an identifier of the machine to the disk when it is imported, and sends what
# it runs to its maker. Here, before anything can import it, so that it holds for every child process too.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
