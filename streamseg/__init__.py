"""Cut out, clean up and annotate a live picture: capture, segment, smooth, composite."""

__version__ = "0.1.0"
