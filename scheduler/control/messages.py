"""The control plane's messages: agents and tasks to the scheduler, and back.

One frame each, encoded as the data plane's headers are (ps/wire.py), behind an envelope
(delivery.py). Who sent one is known from its CURVE key, so no message says so.
docs/protocol.md has the same for readers.
"""

from typing import Dict, Tuple

from baryon.ps import Codec, Message

__all__ = [
    "CONTROL",
    "Abort",
    "AgentHello",
    "Alive",
    "EndProcess",
    "Exited",
    "Failed",
    "Gather",
    "Gathered",
    "Gone",
    "Join",
    "Left",
    "MAX_VALUE_NBYTES",
    "Output",
    "Peer",
    "Position",
    "Release",
    "Resume",
    "Roster",
    "StartTasks",
    "StopTasks",
    "Suspend",
    "Suspended",
    "TaskSpec",
]


MAX_VALUE_NBYTES = 16 << 20
"""Of one worker's value in a `Gather`."""


class TaskSpec(Message, frozen=True):
    """A process for an agent to start.

    ``runner`` says what runs ``argv``: "program" (it is the program itself), "python" (the agent's
    own interpreter, since paths differ between hosts) or "server" (our server; argv is empty).
    ``credentials`` is the content of its 0600 file; ``env`` is laid over the agent's own
    environment. A ``cwd`` that is relative or begins with ~ is below the home directory there.
    """

    slug: str
    runner: str
    argv: Tuple[str, ...]
    cwd: str
    env: Dict[str, str]
    credentials: bytes


class Peer(Message, frozen=True):
    """Where a server listens, and the public key that it must prove."""

    endpoint: str
    public_key: str


# Agent to scheduler


class AgentHello(Message, frozen=True, tag=True):
    """The first message of an agent.

    ``address`` is where other hosts reach this one, so its servers listen there; ``endpoint`` is
    where this host reaches the scheduler, so its tasks connect there. ``gpus`` are those that the
    agent itself was given (CUDA_VISIBLE_DEVICES), empty if nothing was said.
    """

    version: str
    hostname: str
    pid: int
    address: str
    endpoint: str
    gpus: Tuple[str, ...] = ()


class Output(Message, frozen=True, tag=True):
    """Whole lines that a task has written; ``is_error`` if to its standard error.

    ``is_transient``: the present text of progress bars, one a line; empty when they are gone.
    """

    task: str
    is_error: bool
    is_transient: bool
    data: bytes


class Exited(Message, frozen=True, tag=True):
    """A task has ended and all of its output has been sent.

    ``code`` is its exit code, or minus the signal that ended it; ``error`` says why it could not
    be started, and is empty otherwise. ``oom_kills`` counts the processes that the host's kernel
    has ended for want of memory while the task ran. ``was_late``: a process of it had to be killed,
    since it was not gone in the time that `EndProcess` gave it.
    """

    task: str
    code: int
    seconds: float
    error: str
    oom_kills: int = 0
    was_late: bool = False


class Suspended(Message, frozen=True, tag=True):
    """The tasks of this host are stopped, as `Suspend` has asked for."""


# Agent or task to scheduler, and back


class Position(Message, frozen=True):
    """How far a worker's script is in store number ``store``.

    ``events`` counts what all workers have to do at the same place of the script (initialise a
    key), ``last`` names the last of them, and ``at`` is where that was. ``now`` is where the worker
    is. A place is (joins, calls since the last one): pushes to a synchronous store, and meetings.
    """

    store: int
    events: int
    last: str
    at: Tuple[int, int]
    now: Tuple[int, int]


class Alive(Message, frozen=True, tag=True):
    """Sent regularly; silence means trouble.

    From an agent: ``stopped`` are its tasks of which a process is stopped (SIGSTOP). From a worker:
    ``positions`` are those in its stores.
    """

    stopped: Tuple[str, ...] = ()
    positions: Tuple[Position, ...] = ()


# Task to scheduler


class Join(Message, frozen=True, tag=True):
    """The task takes part; ``endpoint`` is where a server listens, empty for workers."""

    pid: int
    endpoint: str


class Gather(Message, frozen=True, tag=True):
    """A worker gives ``value`` to all others that do the same under this ``name``.

    ``call`` is what the script has called, for people. All that meet must have called the same.
    """

    name: str
    call: str
    value: bytes


class Gone(Message, frozen=True, tag=True):
    """The task has nothing more to do with the job, though its process may still run.

    ``code`` is the exit code that this process will have; 128 + N if signal N will end it.
    """

    code: int = 0


class Failed(Message, frozen=True, tag=True):
    """The task cannot go on, and why, in a few lines for the user."""

    text: str


# Scheduler to agent


class StartTasks(Message, frozen=True, tag=True):
    tasks: Tuple[TaskSpec, ...]


class StopTasks(Message, frozen=True, tag=True):
    """Send ``signal`` to the tasks of ``role``, and SIGKILL to what is left after ``grace_s``."""

    role: str
    signal: int
    grace_s: float


class EndProcess(Message, frozen=True, tag=True):
    """Process ``pid`` of ``task`` has nothing more to do: SIGKILL if it is not gone ``limit_s``
    from now, alone, since the task's command may go on."""

    task: str
    pid: int
    limit_s: float


class Release(Message, frozen=True, tag=True):
    """Nothing is left to do: end whatever still runs, and then yourself."""


class Suspend(Message, frozen=True, tag=True):
    """Stop all tasks (SIGSTOP), until Resume: launch.py is going to be stopped as well (Ctrl-Z).

    Meanwhile it is not heard. An agent that would not notice its end waits for ``patience_s``.
    """

    patience_s: float


class Resume(Message, frozen=True, tag=True):
    """Let all tasks go on."""


# Scheduler to task


class Roster(Message, frozen=True, tag=True):
    """All have joined; ``servers`` in rank order."""

    servers: Tuple[Peer, ...]


class Gathered(Message, frozen=True, tag=True):
    """What every worker that has not ended well has given under ``name``, by rank."""

    name: str
    values: Tuple[Tuple[int, bytes], ...]


class Abort(Message, frozen=True, tag=True):
    """To workers while the job is stopping: ``text`` says why their rounds can never complete."""

    text: str


class Left(Message, frozen=True, tag=True):
    """To servers: worker ``rank`` has ended well and will contribute no more."""

    rank: int


CONTROL = Codec(
    (
        Abort,
        AgentHello,
        Output,
        Exited,
        Alive,
        Join,
        Gather,
        Failed,
        Gone,
        StartTasks,
        StopTasks,
        EndProcess,
        Release,
        Suspend,
        Suspended,
        Resume,
        Roster,
        Gathered,
        Left,
    )
)
