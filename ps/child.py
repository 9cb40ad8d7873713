"""A task that speaks to a server, as the job knows it."""

from typing import Tuple

import msgspec

__all__ = ["Child"]


class Child(msgspec.Struct, frozen=True):
    """A worker, or a server one level below, that sends the sum of the workers ``ranks``.

    ``member`` is its number in the memory of the server's host; 0 if it does not share that memory.
    """

    public_key: str
    name: str
    ranks: Tuple[int, ...]
    token: str = ""
    is_worker: bool = False
    member: int = 0
