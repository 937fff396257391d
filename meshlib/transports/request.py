"""What the hosts that are not on the call engine yet share with it."""

from meshlib.hosts.asking import retry_of

__all__ = ["retry_of"]
