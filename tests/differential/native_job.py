"""A job on MXNet's own store, all of whose roles are forked from one process.

    python -m tests.differential.native_job --workers 2 --results FOLDER --cases NAME...

Importing MXNet is most of what a small job costs; this way it is done once for a job, before
DMLC_ROLE says what a process is, and not five times. The job is over when all workers have run
their cases, or half a second after a process of it has ended by itself; then all are killed, since
MXNet's own store may abort or hang at its end. ``FOLDER/codes`` then has the workers' exit codes.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from baryon.worker.mxnet.compat import import_mxnet
from benchmarks.native import LOOPBACK, free_port

GRACE_S = 0.5
POLL_S = 0.02
PR_SET_PDEATHSIG = 1


def main() -> None:
    import_mxnet()
    from . import cases  # imports MXNet

    options = cases.arguments()
    cases.load()
    os.environ.update(
        DMLC_PS_ROOT_URI=LOOPBACK,
        DMLC_PS_ROOT_PORT=str(free_port(LOOPBACK)),
        DMLC_NODE_HOST=LOOPBACK,
        DMLC_NUM_WORKER=str(options.workers),
        DMLC_NUM_SERVER=str(options.servers),
    )
    os.chdir(options.results)  # where a server writes its profile
    done, tell = os.pipe()

    def work() -> None:
        cases.work(options)
        os.write(tell, b".")
        signal.pause()

    children = [_fork("scheduler", _serve)]
    children += [_fork("server", _serve) for _ in range(options.servers)]
    workers = [_fork("worker", work) for _ in range(options.workers)]
    codes = _wait([*children, *workers], done, options.workers)
    with open(os.path.join(options.results, "codes"), "w", encoding="utf-8") as file:
        json.dump([codes[worker] for worker in workers], file)


def _serve() -> None:
    """Be a server or the scheduler, as `import mxnet` makes a process that has such a role."""
    from mxnet.kvstore import kvstore_server

    kvstore_server._init_kvstore_server_module()


def _fork(role: str, run: Callable[[], Any]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            os.environ["DMLC_ROLE"] = role
            run()
            code = 0
    except SystemExit:
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait(children: List[int], done: int, workers: int) -> Dict[int, Optional[int]]:
    """Wait for the job's end, and kill what is left; the exit codes, None for what was killed."""
    codes: Dict[int, Optional[int]] = dict.fromkeys(children)
    running, finished, deadline = set(children), 0, None
    while finished < workers and (deadline is None or time.monotonic() < deadline):
        if select.select([done], [], [], POLL_S)[0]:
            finished += len(os.read(done, workers))
        for child in list(running):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                running.remove(child)
                is_signal = os.WIFSIGNALED(status)
                codes[child] = -os.WTERMSIG(status) if is_signal else os.WEXITSTATUS(status)
                deadline = deadline or time.monotonic() + GRACE_S
    for child in running:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return codes


if __name__ == "__main__":
    main()
