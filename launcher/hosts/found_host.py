"""A host of a job, and what the launcher has found out about it so far."""

import json
from typing import Any, Callable, Dict, Optional, Sequence

from baryon.ps import BaryonError, PeerError

from ..parallel import side_by_side
from ..ssh import Connection, RemoteProcess
from . import probe
from .answers import NoAnswer, read_answer
from .findings import HostReport

__all__ = ["HERE", "FoundHost", "ask_probe", "each"]

HERE = -1
"""The number of this machine, among those that hosts try to reach."""

_ANSWER_LIMIT_S = 90.0


class FoundHost:
    """``index`` is the host's number in the job.

    ``scheduler_address`` is the address of this machine that the host was asked to reach.
    """

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.report = HostReport(name)
        self.connection: Optional[Connection] = None
        self.scheduler_address = ""
        self.probe: Optional[RemoteProcess] = None

    @property
    def reaches_here(self) -> bool:
        return HERE not in self.report.unreachable


def each(hosts: Sequence[FoundHost], what: Callable[[FoundHost], None]) -> None:
    """Call ``what`` for all ``hosts`` without an error at once. What it raises becomes an error."""

    def guarded(host: FoundHost) -> None:
        try:
            what(host)
        except BaryonError as error:
            host.report.error = str(error)

    side_by_side(guarded, [host for host in hosts if not host.report.error])


def ask_probe(process: RemoteProcess, question: Dict[str, Any]) -> Dict[str, Any]:
    """Ask a probe. Raises PeerError or ProtocolError if it does not answer."""
    try:
        process.write(json.dumps(question).encode() + b"\n")
        return read_answer(lambda: process.readline(_ANSWER_LIMIT_S), probe.MARK, "its state")
    except OSError as error:
        raise PeerError(f"its probe takes no questions: {error}") from error
    except NoAnswer as error:
        raise PeerError(f"{error}; its probe {process.how_it_ended()}") from error
