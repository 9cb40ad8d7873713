"""Baryon's errors, split by whose fault they are.

::

    BaryonError
    ├── UsageError      the script or the command line asked for something impossible
    ├── ProtocolError   a peer sent something that the protocol does not allow
    ├── PeerError       another task of the job failed, left or fell silent
    └── WaitTimeout     nothing is known to be broken, but a wait reached its limit

A message says what happened, to which rank, key or host, how long it took, and what to do.
"""

__all__ = ["BaryonError", "UsageError", "ProtocolError", "PeerError", "WaitTimeout"]


class BaryonError(Exception):
    """Any error that Baryon raises on purpose."""


class UsageError(BaryonError):
    """The caller asked for something impossible; the message names the remedy."""


class ProtocolError(BaryonError):
    """A peer sent a frame that the protocol does not allow."""


class PeerError(BaryonError):
    """Another task of the job failed, left or fell silent."""


class WaitTimeout(BaryonError):
    """A wait reached its limit; the message names whom it waited for."""
