"""Starting processes so that none outlives its job, and ending whole process trees.

Linux only: a *subreaper* (prctl(2)) is the process to which orphaned descendants return, also
those that called setsid; a *parent-death signal* is sent to a child when the thread that forked
it ends.
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
"""Those that tell an agent to end; the last is Grid Engine's warning of SIGKILL (qsub -notify)."""

CHILD_LIMIT_S = 3  # for a guarded process to end when it is told to

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
    """Have the kernel send ``signum`` when ``parent`` ends, or do it now if it has."""
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def spawn(
    argv: List[str], cwd: str, env: dict, descriptor_limit: Optional[int] = None
) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, with pipes for its output and no input.

    ``descriptor_limit`` is how many files it may have open; by default as many as this process.

    It gets SIGKILL when this process ends. Call from the main thread only: the kernel watches
    the thread that forked. Raises OSError if it cannot be started.
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
    """How many processes this host's kernel has ended for want of memory since it started."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            counts = dict(line.split() for line in file)
    except OSError:
        return 0
    return int(counts.get("oom_kill", 0))


def descendants(pid: int) -> List[psutil.Process]:
    """All living processes under ``pid``, without itself."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listed_descendants(pid: int) -> List[psutil.Process]:
    """As `descendants`, by the kernel's own lists: it looks at no other processes.

    Some may be missing that start or end just now.
    """
    try:
        children = _children(pid)
    except (OSError, psutil.Error):
        return []  # it has gone, or is hidden (hidepid in proc(5))
    found: List[psutil.Process] = []
    for child in children:
        try:
            process = psutil.Process(child)
            if process.ppid() == pid:  # or another has its pid now
                found += [process, *listed_descendants(child)]
        except psutil.Error:
            pass
    return found


def is_any_stopped(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP, Ctrl-Z), or one below it.

    Looks at no others, unless the kernel was built without CONFIG_PROC_CHILDREN.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
        return state == b"T" or any(is_any_stopped(child) for child in _children(pid))
    except (OSError, psutil.Error):
        return False  # as above


def _children(pid: int) -> List[int]:
    """Some may be missing that start or end just now."""
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
    """Its pid as it knows it: in a container's PID namespace that is another one than here."""
    try:
        with open(f"/proc/{process.pid}/status", "rb") as file:
            pids = [line.split()[-1] for line in file if line.startswith(b"NSpid:")]
    except OSError:  # it has gone
        return process.pid
    return int(pids[0]) if pids else process.pid


def signal_process(process: psutil.Process, signum: int) -> None:
    """Signal a process if it has not gone; never another one that has its pid now."""
    # Before Python 3.9 there is neither; later, one built with old headers may have but the other.
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
        # From here on the descriptor stands for one process: for this one if it still runs.
        if process.is_running():
            signal.pidfd_send_signal(descriptor, signum)
    except OSError:
        pass  # it has just gone, or is another user's
    finally:
        os.close(descriptor)


def _signal_by_pid(process: psutil.Process, signum: int) -> None:
    try:
        process.send_signal(signum)
    except psutil.Error:
        pass


def ended_child() -> int:
    """The pid of a child that has ended and is not reaped, 0 if there is none.

    Until it is, its pid, and the number of the process group that it led, are nobody else's.
    """
    try:
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return ended.si_pid if ended is not None else 0


def kill_all(pid: int, limit_s: float = 5.0) -> List[int]:
    """SIGKILL everything under ``pid`` until nothing is left; returns the pids that would not go.

    Loops, because a process may fork while the list is made. Reaps if ``pid`` is this process.
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

    Whichever of the two is killed, even with SIGKILL, the other ends everything under them: the
    parent because its children come back to it as a subreaper, the child (which must be one as
    well) because it gets SIGTERM when the parent dies. If the other end of standard input hangs
    up and the child does not end because of that, it is stopped or stuck, and gets SIGKILL. Call
    before any thread exists.
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
            # It may be stopped; and if it does not end soon, the alarm ends it.
            os.kill(child, signal.SIGKILL if signum == signal.SIGALRM else signum)
            os.kill(child, signal.SIGCONT)
            signal.alarm(CHILD_LIMIT_S)
        except ProcessLookupError:
            pass  # it has ended, and everything below is being ended

    for signum in (*END_SIGNALS, signal.SIGALRM):
        signal.signal(signum, pass_on)
    _wait_for(child, lambda: signal.alarm(CHILD_LIMIT_S))
    for signum in (*END_SIGNALS, signal.SIGALRM):
        signal.signal(signum, _ignore)  # from here on its pid may be another's
    status = os.waitpid(child, 0)[1]
    kill_all(os.getpid())
    return _exit_code(status)


def _wait_for(child: int, on_hang_up: Callable[[], object]) -> None:
    """Wait until ``child`` has ended, and reap all others. Call in the main thread.

    ``on_hang_up()`` is called once, when nobody holds the other end of standard input any more.
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
    """One of psutil's STATUS_ words, or None if the process (or pid) has gone."""
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
