"""The control plane's messages: agents and tasks to the scheduler, and back.

Each message is one frame, encoded as the data plane's headers are (ps/wire.py), after an envelope
(delivery.py). The CURVE key of its connection names the sender, so no message does.
docs/protocol-control.md describes the same messages.
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
"""The limit of a value in a `Gather`."""


class TaskSpec(Message, frozen=True):
    """A process for an agent to start.

    ``runner`` is "program" (``argv`` is the whole command), "python" (the agent's own interpreter
    runs ``argv``, since paths differ between hosts) or "server" (our server; ``argv`` is empty).
    ``credentials`` is the content of the task's 0600 file. ``env`` is laid over the agent's own
    environment. A ``cwd`` that is relative or begins with ~ is below the home directory there.
    """

    slug: str
    runner: str
    argv: Tuple[str, ...]
    cwd: str
    env: Dict[str, str]
    credentials: bytes


class Peer(Message, frozen=True):
    """Where a server listens, and the public key that it must have."""

    endpoint: str
    public_key: str


# Agent to scheduler


class AgentHello(Message, frozen=True, tag=True):
    """The first message of an agent.

    Other hosts reach this one at ``address``, so its servers listen there. This host reaches the
    scheduler at ``endpoint``, so its tasks connect there. ``gpus`` are those that the agent itself
    was given (CUDA_VISIBLE_DEVICES); empty if that is not set.
    """

    version: str
    hostname: str
    pid: int
    address: str
    endpoint: str
    gpus: Tuple[str, ...] = ()


class Output(Message, frozen=True, tag=True):
    """Whole lines that a task has written; ``is_error``: to its standard error.

    ``is_transient``: the current text of progress bars, one per line; empty once they are gone.
    """

    task: str
    is_error: bool
    is_transient: bool
    data: bytes


class Exited(Message, frozen=True, tag=True):
    """A task has ended and all of its output has been sent.

    ``code`` is its exit code, or minus the signal that ended it. ``error`` is the reason if it
    could not be started, else empty. ``oom_kills`` counts the processes that the host's kernel
    killed for lack of memory while the task ran. ``was_late``: the agent killed a process of the
    task that did not end within the limit of `EndProcess`.
    """

    task: str
    code: int
    seconds: float
    error: str
    oom_kills: int = 0
    was_late: bool = False


class Suspended(Message, frozen=True, tag=True):
    """The tasks of this host are stopped, as `Suspend` asked."""


# Agent or task to scheduler, and back


class Position(Message, frozen=True):
    """How far a worker's script is in store number ``store``.

    ``events`` counts the calls that all workers must make at the same place of the script (those
    that initialise a key). ``last`` names the last event, and ``at`` is its place. ``now`` is the
    worker's place. A place is (joins, calls since the last join), where calls are pushes to a
    synchronous store and meetings.
    """

    store: int
    events: int
    last: str
    at: Tuple[int, int]
    now: Tuple[int, int]


class Alive(Message, frozen=True, tag=True):
    """A sign of life, sent regularly.

    From an agent: in each of the tasks ``stopped``, some process is stopped (SIGSTOP). From a
    worker: ``positions`` are its positions in its stores.
    """

    stopped: Tuple[str, ...] = ()
    positions: Tuple[Position, ...] = ()


# Task to scheduler


class Join(Message, frozen=True, tag=True):
    """The task joins the job; ``endpoint`` is where a server listens, empty for workers."""

    pid: int
    endpoint: str


class Gather(Message, frozen=True, tag=True):
    """A worker comes to the meeting ``name`` with a ``value`` for all others.

    ``call`` is the function that the script called; it must be the same for all.
    """

    name: str
    call: str
    value: bytes


class Gone(Message, frozen=True, tag=True):
    """The task has left the job, though its process may still run.

    ``code`` is the exit code that the process will have: 128 + N if signal N will end it.
    """

    code: int = 0


class Failed(Message, frozen=True, tag=True):
    """The task cannot go on; ``text`` is the reason, in a few lines for the user."""

    text: str


# Scheduler to agent


class StartTasks(Message, frozen=True, tag=True):
    tasks: Tuple[TaskSpec, ...]


class StopTasks(Message, frozen=True, tag=True):
    """Send ``signal`` to the tasks of ``role``, and after ``grace_s`` SIGKILL to what is left."""

    role: str
    signal: int
    grace_s: float


class EndProcess(Message, frozen=True, tag=True):
    """Process ``pid`` of ``task`` has left the job: SIGKILL it if it still runs after ``limit_s``.

    Only that process: the task's command may go on.
    """

    task: str
    pid: int
    limit_s: float


class Release(Message, frozen=True, tag=True):
    """The agent has nothing left to do: it ends all that still runs, and then itself."""


class Suspend(Message, frozen=True, tag=True):
    """Stop all tasks (SIGSTOP) until `Resume`: launch.py is about to be stopped too (Ctrl-Z).

    It is silent then. An agent that knows its end only by silence waits for ``patience_s``.
    """

    patience_s: float


class Resume(Message, frozen=True, tag=True):
    """Continue all tasks (SIGCONT)."""


# Scheduler to task


class Roster(Message, frozen=True, tag=True):
    """All tasks have joined; ``servers`` are in rank order."""

    servers: Tuple[Peer, ...]


class Gathered(Message, frozen=True, tag=True):
    """The result of the meeting ``name``: (rank, value) of every worker that came."""

    name: str
    values: Tuple[Tuple[int, bytes], ...]


class Abort(Message, frozen=True, tag=True):
    """To workers of a job that stops: their rounds will never complete; ``text`` is the reason."""

    text: str


class Left(Message, frozen=True, tag=True):
    """To servers: worker ``rank`` has ended well and will push no more."""

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
