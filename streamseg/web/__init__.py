"""What can be looked at from outside: the picture in a browser, numbers for Prometheus, a word for systemd."""

from streamseg.web.notify import Notifier
from streamseg.web.preview import PreviewSink
from streamseg.web.server import listen_address
from streamseg.web.status import StatusServer

__all__ = ["Notifier", "PreviewSink", "StatusServer", "listen_address"]
