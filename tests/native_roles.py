"""Jobs on MXNet's own store, whose roles are forked from one process.

    python -m tests.native_roles --workers 2 --servers 2 SCRIPT ARGUMENTS [+ ARGUMENTS]...

Importing MXNet is most of what a small job costs. Here one process imports it, before DMLC_ROLE
says what a process is, and all roles of all jobs are its children. The script runs once for each
list of arguments, as a job of its own: a process can have one native store.
"""

import argparse
import ctypes
import os
import runpy
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Optional

from baryon.worker.mxnet.compat import import_mxnet
from benchmarks.native import LOOPBACK, free_port

__all__ = ["run_job"]

ATTEMPTS = 3  # MXNet does not survive every fork
GRACE_S = 0.5
POLL_S = 0.02
PR_SET_PDEATHSIG = 1

Codes = List[Optional[int]]


def run_job(workers: int, servers: int, work: Callable[[], object]) -> Codes:
    """Fork all roles of a job, whose workers call ``work``; returns the workers' exit codes.

    The job is over when all workers have returned from ``work``, or half a second after one of its
    processes has ended by itself. Then all are killed, since MXNet's own store may abort or hang at
    its end; the code of a process that was killed is None.
    """
    os.environ.update(
        DMLC_PS_ROOT_URI=LOOPBACK,
        DMLC_PS_ROOT_PORT=str(free_port(LOOPBACK)),
        DMLC_NODE_HOST=LOOPBACK,
        DMLC_NUM_WORKER=str(workers),
        DMLC_NUM_SERVER=str(servers),
    )
    done, tell = os.pipe()

    def be_worker() -> None:
        work()
        sys.stdout.flush()
        os.write(tell, b".")
        signal.pause()

    children = [_fork("scheduler", _serve)]
    children += [_fork("server", _serve) for _ in range(servers)]
    own = [_fork("worker", be_worker) for _ in range(workers)]
    codes = _wait([*children, *own], done, workers)
    os.close(done)
    os.close(tell)
    return [codes[worker] for worker in own]


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
    """Wait for the job's end, and kill what is left; returns the exit codes by process."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--servers", type=int, required=True)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    import_mxnet()
    sys.path.insert(0, os.path.dirname(os.path.abspath(options.script)))
    runs: List[List[str]] = [[]]
    for word in options.arguments:
        if word == "+":
            runs.append([])
        else:
            runs[-1].append(word)
    return 0 if all(_run_script(options, arguments) for arguments in runs) else 1


def _run_script(options: argparse.Namespace, arguments: List[str]) -> bool:
    """Whether all workers of a job have run the script to its end."""

    def work() -> None:
        sys.argv = [options.script, *arguments]
        runpy.run_path(options.script, run_name="__main__")

    for _ in range(ATTEMPTS):
        codes = run_job(options.workers, options.servers, work)
        if not any(codes):
            return True
        print(f"workers ended with {codes}", file=sys.stderr)  # noqa: T201
    return False


if __name__ == "__main__":
    sys.exit(main())
