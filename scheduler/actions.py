"""What the scheduler's core asks its loop to do. Pure.

Besides actions the core returns events (observers/events.py), which the loop passes on.
"""

from typing import FrozenSet, NamedTuple, Union

from baryon.ps import Message

from .observers import Event

__all__ = ["Action", "Finish", "Kill", "Pause", "ReleaseAgent", "Send"]


class Send(NamedTuple):
    """Send ``message`` to ``peer``: a task's slug or ``agent-N``."""

    peer: str
    message: Message


class ReleaseAgent(NamedTuple):
    """Tell the agent of a host to end, and have the cluster let go of it."""

    host: int


class Kill(NamedTuple):
    """End all agents, and so all tasks, at once; do not wait for agents of hosts ``lost``."""

    lost: FrozenSet[int] = frozenset()


class Pause(NamedTuple):
    """Stop this process, as its shell wants; once it goes on, tell the core."""


class Finish(NamedTuple):
    """The job is over with this exit code."""

    exit_code: int


Action = Union[Send, ReleaseAgent, Kill, Pause, Finish, Event]
