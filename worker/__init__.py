"""What runs inside the user's own process: the start-up hook and the KVStore.

Importing this package costs next to nothing: every Python below a worker does it.
"""

from .devices import devices

__all__ = ["devices"]
