"""Observers of a job: they show it, or keep a record of it, from one stream of events."""

from .complaint import complain
from .console import Console, terminal_sizes
from .events import Event, JobPaused, Notice, TaskOutput
from .log_files import LogFiles
from .stream import EventStream, Observer

__all__ = [
    "Console",
    "Event",
    "EventStream",
    "JobPaused",
    "LogFiles",
    "Notice",
    "Observer",
    "TaskOutput",
    "complain",
    "terminal_sizes",
]
