"""Looks at all hosts of a job side by side: connects, asks each what it has, and lets each try to
reach every other.

What comes of it is data for preflight.py to judge, and open connections to start agents on. The
program that runs on the hosts meanwhile is probe.py, which also describes the messages.
"""

import getpass
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import zmq

import baryon
from baryon.ps import BaryonError, PeerError, UsageError, bind_to, endpoint_of, new_key_pair
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
from .answers import NoAnswer, read_answer
from .preflight import Expectations, HostReport, skew_s, some

__all__ = ["HOME", "FoundHost", "Survey", "each", "expectations", "program_of"]

HOME = str(Path(baryon.__file__).resolve().parent.parent)
"""The folder that holds the package baryon on this machine."""

_HELLO_LIMIT_S = 3.0
_ANSWER_LIMIT_S = 90.0
_HERE = -1  # this machine, among those to be reached
_NEIGHBOURS = 4
_CLOSE_LIMIT_S = 2.0


class FoundHost:
    """A host of the job, by its number there, and what is known of it.

    ``scheduler_address`` is the address of this machine that it was asked to reach.
    """

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.report = HostReport(name)
        self.connection: Optional[Connection] = None
        self.scheduler_address = ""
        self.probe: Optional[RemoteProcess] = None

    @property
    def reaches_here(self) -> bool:
        return _HERE not in self.report.unreachable


class Survey:
    """The hosts that a job uses. `run` finds out about them; `close` ends the connections.

    If it ``is_thorough``, MXNet is really imported on each host, and each host tries to reach every
    other; else only the next few, since with many it is a host whose ports are closed, not a pair.
    ``fingerprint`` is that of this machine's baryon.
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
        self._do(self._ask)
        self._let_them_meet()
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
        theirs_s = _ask(process, {})["time"]
        host.report.skew_s = skew_s(sent_at_s, time.time(), theirs_s)
        host.report.found = _ask(
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

    def _let_them_meet(self) -> None:
        """Every host says hello to every other, and to this machine, over ZeroMQ with CURVE."""
        able = [h for h in self.hosts if h.report.found.get("address") and _has_zmq(h)]
        if not able:
            return
        server, client = new_key_pair(), new_key_pair()
        keys = {
            "server_secret": server.secret,
            "server_public": server.public,
            "client_secret": client.secret,
            "client_public": client.public,
        }
        endpoints: Dict[int, str] = {}

        def listen(host: FoundHost) -> None:
            assert host.probe is not None
            endpoints[host.index] = _ask(host.probe, keys)["endpoint"]

        self._do(listen, able)
        able = [host for host in able if host.index in endpoints]
        numbers = {host.index: number for number, host in enumerate(self.hosts)}
        count = len(able) if self._is_thorough else _NEIGHBOURS + 1

        def others(index: int) -> List[int]:
            """The hosts after this one, in a ring."""
            ring = sorted(endpoints)
            start = ring.index(index)
            return (ring[start:] + ring[:start])[1:count]

        with _Greeter(server.secret, server.public, self._job.port, able) as here:

            def meet(host: FoundHost) -> None:
                assert host.probe is not None
                targets = [[numbers[index], endpoints[index]] for index in others(host.index)]
                endpoint = here.endpoints.get(host.scheduler_address)
                targets += [[_HERE, endpoint]] if endpoint else []
                answer = _ask(host.probe, {"targets": targets, "limit_s": _HELLO_LIMIT_S})
                missed = [] if host.scheduler_address else [_HERE]
                host.report.unreachable = (*missed, *answer["unreachable"])

            here.answer_while(lambda: self._do(meet, able))

    def _do(
        self, what: Callable[[FoundHost], None], hosts: Optional[Sequence[FoundHost]] = None
    ) -> None:
        """Do something with all hosts (that are still well) at once; note who fails."""
        wanted = self.hosts if hosts is None else hosts
        each([host for host in wanted if not host.report.error], what)


def expectations(job: Job, options: Options, hosts: Sequence[int]) -> Expectations:
    """What reports of these hosts of a job, by number, are to be judged by."""
    workers, program = job.of_role("worker"), program_of(job, options)
    return Expectations(
        python_version=".".join(map(str, sys.version_info[:2])),
        platform=[str(sys.implementation.cache_tag), platform.machine(), *platform.libc_ver()],
        workers=[sum(task.host == host for task in workers) for host in hosts],
        gpus=[len(job.hosts[host].gpus) for host in hosts],
        devices=job.devices,
        program=program,
        cwd=job.cwd,
        is_script=job.is_script,
        is_here=os.path.exists(program),
        is_synced=options.sync_dst_dir is not None,
    )


def program_of(job: Job, options: Options) -> str:
    """What hosts must have to run the command; empty if that is brought along, or a module.

    Of a program that is copied, it is the interpreter that its first line names.
    """
    program = job.command[0] if job.command and job.command[0] != "-m" else ""
    is_outside = os.path.isabs(program) or os.path.normpath(program).startswith("../")
    is_file = job.is_script or "/" in program
    if options.sync_dst_dir is None or is_outside or not is_file:
        return program
    return "" if job.is_script else (probe.interpreter_of(program) or [""])[-1]


def each(hosts: Sequence[FoundHost], what: Callable[[FoundHost], None]) -> None:
    """Do something with all of ``hosts`` at once; what it raises becomes the error of its host."""

    def guarded(host: FoundHost) -> None:
        try:
            what(host)
        except BaryonError as error:
            host.report.error = str(error)

    side_by_side(guarded, hosts)


def _ask(process: RemoteProcess, question: Dict[str, Any]) -> Dict[str, Any]:
    """Ask a probe. Raises PeerError or ProtocolError if it does not answer."""
    try:
        process.write(json.dumps(question).encode() + b"\n")
        return read_answer(lambda: process.readline(_ANSWER_LIMIT_S), probe.MARK, "its state")
    except OSError as error:
        raise PeerError(f"its probe takes no questions: {error}") from error
    except NoAnswer as error:
        raise PeerError(f"its probe {process.how_it_ended()}") from error


def _has_zmq(host: FoundHost) -> bool:
    return host.probe is not None and bool(host.report.found["modules"]["zmq"])


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


class _Greeter:
    """Answers the hosts' hellos where the scheduler is going to listen."""

    def __init__(self, secret: str, public: str, port: int, hosts: Sequence[FoundHost]) -> None:
        self.endpoints: Dict[str, str] = {}  # by address; those that can be listened at
        self._context = zmq.Context()
        self._sockets: List[zmq.Socket] = []
        for address in {host.scheduler_address for host in hosts} - {""}:
            socket = self._context.socket(zmq.REP)
            socket.linger = 0
            socket.curve_server = True
            socket.curve_secretkey, socket.curve_publickey = secret.encode(), public.encode()
            try:
                self.endpoints[address] = bind_to(socket, endpoint_of(address, port or "*"))
            except zmq.ZMQError:
                socket.close()
                continue  # nobody is asked to reach it: the scheduler will say why it cannot listen
            self._sockets.append(socket)

    def __enter__(self) -> "_Greeter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._context.destroy(linger=0)

    def answer_while(self, what: Callable[[], None]) -> None:
        """Call ``what()``, and answer until it returns."""
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        # The hosts are asked in this thread, which alone hears Ctrl-C; another answers.
        is_over = threading.Event()

        def answer() -> None:
            while not is_over.is_set():
                for socket, _ in poller.poll(20):
                    socket.recv()
                    socket.send(b"hello")

        thread = threading.Thread(target=answer, name="hello", daemon=True)
        thread.start()
        try:
            what()
        finally:
            is_over.set()
            thread.join(_CLOSE_LIMIT_S)
