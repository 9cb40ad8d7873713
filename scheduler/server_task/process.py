"""A server's process, which an agent starts: joins the job, serves, and ends on SIGTERM.

It needs both the server (ps/server) and the control plane, and ps imports no scheduler; so it has
a folder of its own here. The main thread runs the reactor; another imports a framework early.
"""

import gc
import logging
import os
import signal
import threading

import zmq

from baryon.ps import Reactor, Server, UsageError, import_updater

from ..control import (
    ControlClient,
    client_of,
    host_memory_of,
    keys_of,
    raise_descriptor_limit,
    read_credentials,
)
from ..control.messages import Roster

__all__ = ["main"]

_LIKELY_KIND = "mxnet"  # of the optimizer that worker 0 may send


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    credentials = read_credentials()
    if credentials is None:
        raise UsageError("a server is started by launch.py, not by hand")
    os.environ.pop("DMLC_ROLE", None)  # MXNet would start its own server when it is imported
    raise_descriptor_limit()  # connections of strangers take some
    reactor = Reactor()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, frame: reactor.stop())
    context = zmq.Context()

    def serve(roster: Roster) -> None:
        if credentials.parents:
            server.serve(client_of(reactor, context, credentials, roster, control.failed))

    control = ControlClient(
        reactor,
        context,
        credentials,
        on_left=lambda rank: server.worker_left(rank),
        on_roster=serve,
    )
    server = Server(
        reactor,
        context,
        index=credentials.rank,
        num_owners=credentials.num_owners,
        children=credentials.children,
        guests=credentials.guests,
        keys=keys_of(credentials),
        address=credentials.address,
        timeout_s=credentials.timeout_s,
        on_fault=control.failed,
        memory=host_memory_of(credentials),
        encrypts=credentials.encrypts_data,
    )
    if not credentials.parents:
        server.serve()
    control.join(server.endpoint)
    if not credentials.parents:  # others have no optimizer
        # A framework takes a second to import. The workers do the same at this time: nobody waits.
        threading.Thread(target=_import_framework, name="import-framework", daemon=True).start()
    reactor.run()
    server.close()
    control.close()
    context.destroy(linger=0)
    reactor.close()
    return 0


def _import_framework() -> None:
    try:
        import_updater(_LIKELY_KIND)
        gc.collect()
        gc.freeze()  # or Python would look through all of it again and again
    except Exception as error:
        # A server that only sums does not need it. Loading an optimizer will say the same.
        log = logging.getLogger("baryon.server")
        log.warning("%s's optimizers cannot be imported: %s", _LIKELY_KIND, error)
