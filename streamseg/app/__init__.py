"""Joins the rooms: from settings to a pipeline ready to start, and from a finished one to its report."""

from streamseg.app.background import VirtualBackground, background_edges, background_smoother
from streamseg.app.build import build
from streamseg.app.fleet import Fleet
from streamseg.app.run import Run, versions

__all__ = ["Fleet", "Run", "VirtualBackground", "background_edges", "background_smoother", "build", "versions"]
