"""The client's end of the wire, in a worker or in a server that has servers above it."""

from .client import Client
from .departures import Operation
from .row_operation import RowOperation
from .store_client import StoreClient

__all__ = ["Client", "Operation", "RowOperation", "StoreClient"]
