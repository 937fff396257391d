"""What of the runtime a host may use: values that a child makes anew, the mesh's own waits, and TLS as the mesh demands it."""

from meshlib.runtime.process import Local
from meshlib.runtime.signal import Alarm, bound, later
from meshlib.runtime.tls import context_for

__all__ = ["Alarm", "Local", "bound", "context_for", "later"]
