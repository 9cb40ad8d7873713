"""What observers are told of a job: one stream of frozen events, each with its time. Pure.

``at`` is the scheduler's clock in seconds. A new kind of event needs a class here, and a place in
the scheduler that makes it; observers pass over the kinds that they do not know.
"""

import msgspec

__all__ = ["Event", "JobPaused", "Notice", "TaskOutput"]


class Event(msgspec.Struct, frozen=True):
    at: float


class Notice(Event, frozen=True):
    """Something that the scheduler tells the user."""

    text: str


class TaskOutput(Event, frozen=True):
    """Text from a task: ``task`` is its slug; the rest is as in `messages.Output`."""

    task: str
    is_error: bool
    is_transient: bool
    data: bytes


class JobPaused(Event, frozen=True):
    """All tasks are stopped, and launch.py is about to be stopped by its shell (Ctrl-Z)."""
