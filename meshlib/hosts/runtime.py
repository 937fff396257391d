"""What of the runtime a host may use: values that a child makes anew, the mesh's own waits."""

from meshlib.runtime.process import Local
from meshlib.runtime.signal import Alarm, bound, later

__all__ = ["Alarm", "Local", "bound", "later"]
