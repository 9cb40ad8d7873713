"""What the scheduler's core asks its loop to do."""

from typing import FrozenSet, NamedTuple, Union

from baryon.ps import Message

from .control.messages import Output

__all__ = ["Action", "Finish", "Kill", "Pause", "ReleaseAgent", "Say", "Send", "Show"]


class Send(NamedTuple):
    """Send ``message`` to ``peer``: a task's slug or ``agent-N``."""

    peer: str
    message: Message


class Say(NamedTuple):
    """Tell the user."""

    text: str


class Show(NamedTuple):
    """Show what a task has written."""

    output: Output


class ReleaseAgent(NamedTuple):
    """Let the cluster end the agent of a host, which has nothing left to do."""

    host: int


class Kill(NamedTuple):
    """End all agents, and thereby all tasks, at once; do not wait for those of hosts ``lost``."""

    lost: FrozenSet[int] = frozenset()


class Pause(NamedTuple):
    """Stop this process, as its shell wants; then, when it goes on, tell the core."""


class Finish(NamedTuple):
    """The job is over with this exit code."""

    exit_code: int


Action = Union[Send, Say, Show, ReleaseAgent, Kill, Pause, Finish]
