"""The other end of the wire: what a worker, or a server with servers above it, sends and awaits."""

from .client import Client
from .departures import Operation
from .row_operation import RowOperation
from .store_client import StoreClient

__all__ = ["Client", "Operation", "RowOperation", "StoreClient"]
