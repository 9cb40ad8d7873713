"""Looks at all hosts of a job side by side.

It connects to them, asks each for a report, and lets each try to reach the others. The results are
reports for preflight.py to judge, and open connections on which agents can be started. On the
hosts it runs probe.py, which also describes the messages.
"""

import getpass
import sys
import time
from pathlib import Path
from typing import Dict, Sequence

import baryon
from baryon.ps import UsageError
from baryon.scheduler.control import Job, own_address

from ..flags import Options
from ..hostfile import HostLine
from ..parallel import side_by_side
from ..ssh import (
    Access,
    ConnectError,
    Connection,
    HostKeys,
    Interpreter,
    RemoteProcess,
    SshConfig,
    connect_all,
)
from . import probe
from .expectations import Expectations, expectations, program_of
from .findings import some
from .found_host import FoundHost, ask_probe, each
from .meeting import let_them_meet
from .preflight import skew_s

__all__ = ["HOME", "Survey"]

HOME = str(Path(baryon.__file__).resolve().parent.parent)
"""The folder that holds the package baryon on this machine."""

_CLOSE_LIMIT_S = 2.0


class Survey:
    """The hosts that a job uses. `run` fills in their reports; `close` ends the connections.

    If it ``is_thorough``, each host really imports MXNet, and tries to reach every other host.
    ``fingerprint`` identifies the version of baryon on this machine.
    """

    def __init__(self, job: Job, options: Options, is_thorough: bool = False) -> None:
        self._job = job
        self._options = options
        self._is_thorough = is_thorough
        self.fingerprint = probe.fingerprint_of(HOME)
        used = sorted({task.host for task in job.tasks})
        self.hosts = [FoundHost(index, job.hosts[index].name) for index in used]
        self._lines: Dict[int, HostLine] = {index: options.lines[index] for index in used}
        if options.python:
            candidates = [options.python]
        else:
            candidates = ["python", "python3"] if options.setup else [job.python, "python3"]
        self.interpreter = Interpreter(candidates, options.setup, options.start_timeout)

    def run(self) -> None:
        """Fill in the reports. Raises UsageError if the ssh configuration is wrong."""
        self._connect()
        each(self.hosts, self._ask)
        let_them_meet(self.hosts, self._job.port, self._is_thorough)
        for host in self.hosts:
            if host.probe is not None:
                host.probe.close()

    def expectations(self) -> Expectations:
        """What the reports are to be judged by."""
        return expectations(self._job, self._options, [host.index for host in self.hosts])

    def close(self) -> None:
        connections = [host.connection for host in self.hosts if host.connection is not None]
        side_by_side(Connection.close, connections, _CLOSE_LIMIT_S)

    # -- step by step -------------------------------------------------------------------------

    def _connect(self) -> None:
        options = self._options
        config = SshConfig(options.ssh_config)
        targets = [config.target(self._lines[host.index]) for host in self.hosts]
        access = Access(HostKeys(options.accept_new_host_keys), min(10.0, options.start_timeout))
        outcomes = connect_all(targets, access)
        for wanted in ("passphrase", "password"):
            locked = [
                number
                for number, outcome in enumerate(outcomes)
                if isinstance(outcome, ConnectError) and outcome.wants == wanted
            ]
            if not locked or not sys.stdin.isatty():
                continue
            said = self._prompt(wanted, locked)
            if wanted == "password":
                access = access._replace(password=said)
            else:
                access = access._replace(passphrase=said)
            again = connect_all([targets[number] for number in locked], access)
            for number, outcome in zip(locked, again):
                outcomes[number] = outcome
        for host, outcome in zip(self.hosts, outcomes):
            if isinstance(outcome, ConnectError):
                host.report.error = str(outcome)
            else:
                host.connection = outcome
        self._find_scheduler_addresses()

    def _prompt(self, wanted: str, numbers: Sequence[int]) -> str:
        names = some([self.hosts[number].report.name for number in numbers])
        what = {"passphrase": "passphrase of the key", "password": "password"}[wanted]
        try:
            return getpass.getpass(f"{what} for {names}: ")
        except EOFError:
            raise UsageError(f"no {wanted} was given for {names}") from None

    def _find_scheduler_addresses(self) -> None:
        """For each host, which of this machine's addresses leads here from there."""
        for host in self.hosts:
            if host.connection is not None:
                toward = host.connection.peer_address() or host.connection.target.hostname
                try:
                    host.scheduler_address = own_address(toward)
                except OSError:
                    pass  # no route: through a jump, then
        # A host that is this machine must be where the others find it, too.
        addresses = [host.scheduler_address for host in self.hosts]
        others = [address for address in addresses if address and not _is_loopback(address)]
        for host in self.hosts:
            if _is_loopback(host.scheduler_address) and others:
                host.scheduler_address = others[0]

    def _ask(self, host: FoundHost) -> None:
        assert host.connection is not None
        job = self._job
        process = RemoteProcess.of_source(host.connection, self.interpreter, probe.source())
        sent_at_s = time.time()
        theirs_s = ask_probe(process, {})["time"]
        host.report.skew_s = skew_s(sent_at_s, time.time(), theirs_s)
        host.report.found = ask_probe(
            process,
            {
                "program": program_of(job, self._options),
                "is_script": job.is_script,
                "cwd": job.cwd,
                "env": {**job.env, **job.env_worker},
                "toward": host.scheduler_address,
                "interfaces": job.interfaces,
                "homes": [HOME],
                "fingerprint": self.fingerprint,
                "import_mxnet": self._is_thorough,
            },
        )
        host.probe = process


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
