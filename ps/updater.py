"""The door to a framework's optimizer: what a server asks of one, and where to find it.

A worker sends its optimizer as a *kind* and a *blob* (wire.SetUpdater). The kind selects a module
from `KINDS`; the module's ``load_updater(blob, may_run_code)`` turns the blob into an `Updater`. To
add a framework, write such a module, worker/NAME/updater.py, and add its line to the table. It must
pass the contract in tests/ps/test_updater.py. docs/architecture.md has all steps ("Where to add").

A server needs a framework only when one of its optimizers arrives, so a server that only sums needs
none at all. A name from the wire never reaches the import system: it must be a key of
the table. Rejected: entry points, because baryon may be on a host without its package metadata.

A server calls an updater from its reactor's thread only.
"""

import importlib
import sys
from typing import Any, Dict, Optional, Protocol

import numpy as np

from .errors import ProtocolError, UsageError
from .plan import Slice
from .rows import Part
from .states import SliceState
from .wire import SetHyper

__all__ = ["KINDS", "Updater", "check_kind", "import_updater", "load_updater"]

KINDS: Dict[str, str] = {"mxnet": "baryon.worker.mxnet.updater"}


class Updater(Protocol):
    """One optimizer on one server, with its state for each *unit*.

    A unit is what one call updates: a slice or, in a store of whole keys, the whole key that begins
    with that slice. Units are updated in any order, so the result for a unit must depend on that
    unit's own rounds alone.
    """

    name: str
    """For messages: the optimizer's class."""
    is_elementwise: bool
    """Whether a slice can be updated without the rest of its key. If not, the store refuses to
    update a slice of a key that has several."""

    def update(
        self, unit: Slice, gradient: Part, value: np.ndarray, version: Optional[int] = None
    ) -> None:
        """Change ``value`` (1-D) in place. Every call for a unit gets the same memory as ``value``.

        ``gradient`` covers the same elements, or has some rows of them; it may be read-only.
        ``version`` is the version of the hyper-parameters to use (None: the last one).
        """

    def check_hyper(self, change: SetHyper) -> None:
        """Raise ProtocolError if the optimizer does not take these hyper-parameters."""

    def set_hyper(self, change: SetHyper) -> None:
        """Add the next version of the hyper-parameters, which has passed `check_hyper`."""

    def state(self, unit: Slice) -> Optional[SliceState]:
        """The state of a unit; None before its first update. Raises UsageError if the state cannot
        be sent."""

    def restore(self, unit: Slice, value: np.ndarray, state: SliceState) -> None:
        """Continue from ``state``, which `state` returned for a unit of the same elements.

        ``value`` is the one that `update` will be given; it may have changed since. Raises
        ProtocolError if the state cannot be one of this optimizer.
        """


def check_kind(kind: str) -> None:
    """Raise ProtocolError for a kind that is not in the table."""
    if kind not in KINDS:
        raise ProtocolError(
            f"there is no optimizer of the kind {kind!r}; servers know {', '.join(sorted(KINDS))}"
        )


def import_updater(kind: str) -> Any:
    """The module of a kind, with its framework. Raises ProtocolError for a kind that is not in the
    table, and ImportError."""
    check_kind(kind)
    return importlib.import_module(KINDS[kind])


def load_updater(kind: str, blob: bytes, may_run_code: bool) -> Updater:
    """The updater in ``blob``. With ``may_run_code``, the blob is known to come from worker 0 and
    may contain code of the user's.

    Raises ProtocolError for an unknown kind, and UsageError if the framework is not installed, the
    blob cannot be read, or the blob contains what it may not.
    """
    try:
        module = import_updater(kind)
    except ImportError as error:
        raise UsageError(
            f"the optimizer needs {kind} on the servers, and there: {error}; install it in the "
            f"environment of {sys.executable}, or let the workers update the weights"
        ) from error
    updater: Updater = module.load_updater(blob, may_run_code)
    return updater
