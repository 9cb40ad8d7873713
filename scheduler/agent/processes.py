"""Starts processes so that none outlives its job, and ends whole process trees. Linux only.

Orphaned descendants become children of the nearest *subreaper* (prctl(2)), even those that called
setsid. The kernel sends a child its *parent-death signal* when the thread that forked it ends.
"""

import ctypes
import os
import resource
import select
import signal
import subprocess
import time
import traceback
from typing import Callable, List, Optional, Union

import psutil

__all__ = [
    "END_SIGNALS",
    "become_subreaper",
    "count_oom_kills",
    "descendants",
    "die_with_parent",
    "ended_child",
    "guarded",
    "is_any_stopped",
    "kill_all",
    "listed_descendants",
    "own_pid",
    "signal_process",
    "spawn",
    "status_of",
]

END_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals that tell an agent to end; Grid Engine sends the last before SIGKILL (qsub -notify)."""

CHILD_LIMIT_S = 3  # for a guarded process that was told to end

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_OWN_CHILDREN = "/proc/thread-self/children"
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def become_subreaper() -> None:
    """Make orphaned descendants children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signum: int, parent: int) -> None:
    """Get ``signum`` from the kernel when ``parent`` ends; at once if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def spawn(
    argv: List[str], cwd: str, env: dict, descriptor_limit: Optional[int] = None
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, with pipes for its output and no input.

    It may have ``descriptor_limit`` open files, by default as many as this process. It gets SIGKILL
    when this process ends. Call from the main thread only: the kernel watches the thread that
    forked. Raises OSError if the process cannot be started.
    """
    parent = os.getpid()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def prepare() -> None:
        die_with_parent(signal.SIGKILL, parent)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptor_limit or soft, hard))

    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=prepare,
    )


def count_oom_kills() -> int:
    """The number of processes that this host's kernel has killed for lack of memory."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            counts = dict(line.split() for line in file)
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def descendants(pid: int) -> List[psutil.Process]:
    """All descendants of ``pid``, found by a look at every process of this host."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listed_descendants(pid: int) -> List[psutil.Process]:
    """All descendants of ``pid``, found by the kernel's lists of children alone.

    Descendants that start or end just now may be missing.
    """
    try:
        children = _children(pid)
    except (OSError, psutil.Error):
        return []  # it has ended, or is hidden (hidepid in proc(5))
    found: List[psutil.Process] = []
    for child in children:
        try:
            process = psutil.Process(child)
            if process.ppid() == pid:  # else another process has its pid now
                found += [process, *listed_descendants(child)]
        except psutil.Error:
            pass
    return found


def is_any_stopped(pid: int) -> bool:
    """Whether a process, or any descendant, is stopped (SIGSTOP, Ctrl-Z).

    It looks at no other processes, unless the kernel was built without CONFIG_PROC_CHILDREN.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
        return state == b"T" or any(is_any_stopped(child) for child in _children(pid))
    except (OSError, psutil.Error):
        return False  # as above


def _children(pid: int) -> List[int]:
    """Its children; those that start or end just now may be missing."""
    if not os.path.exists(_OWN_CHILDREN):
        return [process.pid for process in psutil.Process(pid).children()]
    children: List[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has gone
    return children


def own_pid(process: psutil.Process) -> int:
    """The pid by which a process knows itself: in a container it has a PID namespace of its own."""
    try:
        with open(f"/proc/{process.pid}/status", "rb") as file:
            pids = [line.split()[-1] for line in file if line.startswith(b"NSpid:")]
    except OSError:  # it has ended
        return process.pid
    return int(pids[0]) if pids else process.pid


def signal_process(process: psutil.Process, signum: int) -> None:
    """Signal a process unless it has ended; never another process that has its pid now."""
    # Python 3.8 has neither function, and a later one that was built with old headers lacks one.
    if not (hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal")):
        _signal_by_pid(process, signum)
        return
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # the kernel is older than 5.3
        _signal_by_pid(process, signum)
        return
    try:
        # From here on the descriptor means one process: this one, if it still runs.
        if process.is_running():
            signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        pass  # it has just ended, or is another user's
    finally:
        os.close(descriptor)


def _signal_by_pid(process: psutil.Process, signum: int) -> None:
    try:
        process.send_signal(signum)
    except psutil.Error:
        pass


def ended_child() -> int:
    """The pid of a child that has ended and is not reaped; 0 if there is none.

    Until it is reaped, no other process gets its pid, nor the number of the group that it led.
    """
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended is not None else 0


def kill_all(pid: int, limit_s: float = 5.0) -> List[int]:
    """SIGKILL all descendants of ``pid`` until none is left; returns the pids of survivors.

    It loops, because a process may fork meanwhile. It reaps if ``pid`` is this process.
    """
    deadline = time.monotonic() + limit_s
    while True:
        if pid == os.getpid():
            _reap()
        alive = [p for p in descendants(pid) if status_of(p) not in (None, psutil.STATUS_ZOMBIE)]
        if not alive or time.monotonic() > deadline:
            return [p.pid for p in alive]
        for process in alive:
            signal_process(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=0.2)


def guarded(main: Callable[[], int]) -> int:
    """Run ``main()`` in a child process; returns its exit code once no descendant is left.

    If one of the two is killed, even with SIGKILL, the other ends all descendants: the parent
    because it is a subreaper, so they become its children; the child, a subreaper as well, because
    it gets SIGTERM when the parent dies. A child that does not end when the other end of standard
    input hangs up is stopped or stuck; it gets SIGKILL. Call before any thread exists.
    """
    become_subreaper()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        exit_code = 1
        try:
            become_subreaper()
            die_with_parent(signal.SIGTERM, parent)
            exit_code = main()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(exit_code)

    def pass_on(signum: int, frame: object) -> None:
        try:
            # The child may be stopped. If it does not end soon, the alarm kills it.
            os.kill(child, signal.SIGKILL if signum == signal.SIGALRM else signum)
            os.kill(child, signal.SIGCONT)
            signal.alarm(CHILD_LIMIT_S)
        except ProcessLookupError:
            pass  # the child has ended, and its descendants are about to

    for signum in (*END_SIGNALS, signal.SIGALRM):
        signal.signal(signum, pass_on)
    _wait_for(child, lambda: signal.alarm(CHILD_LIMIT_S))
    for signum in (*END_SIGNALS, signal.SIGALRM):
        signal.signal(signum, _ignore)  # another process may get its pid from here on
    status = os.waitpid(child, 0)[1]
    kill_all(os.getpid())
    return _exit_code(status)


def _wait_for(child: int, on_hang_up: Callable[[], object]) -> None:
    """Wait until ``child`` has ended, and reap all other children. Call in the main thread.

    ``on_hang_up()`` is called once, when no process holds the other end of standard input.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _ignore)  # so that it wakes the poll
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    poll.register(0, select.POLLHUP | select.POLLRDHUP)
    while True:
        pid = ended_child()
        if pid == child:
            return
        if pid:
            os.waitpid(pid, 0)
            continue
        for descriptor, _ in poll.poll():
            if descriptor == wake_read:
                os.read(wake_read, 4096)
            else:
                poll.unregister(0)
                on_hang_up()


def _ignore(signum: int, frame: object) -> None:
    pass


def _exit_code(status: int) -> int:
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def status_of(process: Union[int, psutil.Process]) -> Optional[str]:
    """One of psutil's STATUS_ constants; None if the process has ended."""
    try:
        return (psutil.Process(process) if isinstance(process, int) else process).status()
    except psutil.NoSuchProcess:
        return None


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
