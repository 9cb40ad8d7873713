"""One stream of events to a list of observers.

An observer can neither slow nor stop a job. Every method here runs in the scheduler's thread, so an
observer only notes what it gets. Its slow work, such as a write, waits in a `Backlog` (backlog.py),
whose thread does it. An observer that raises, in either thread, is a bug of ours: its traceback is
written once to standard error, the observer gets no more events, and the job goes on. It is closed
with the others, so what it has taken is not lost.
"""

import abc
import traceback
from typing import Any, Callable, List, Sequence

from .complaint import complain
from .events import Event, Notice

__all__ = ["EventStream", "Observer"]


class Observer(abc.ABC):
    """One that looks on at a job. No method may block, except `close` for a limited time."""

    @abc.abstractmethod
    def take(self, event: Event) -> None:
        """The next event of the stream."""

    def look(self) -> List[str]:
        """What the user should know about this observer now, such as a full disk.

        The scheduler calls this a few times per second and makes a `Notice` of each text.
        """
        return []

    def close(self) -> List[str]:
        """Finish, within a limited time; returns what the user should know, as `look` does."""
        return []


class EventStream:
    """Gives each event to every observer, in the order of ``observers``.

    They are closed in the opposite order, so the first one hears what the others say at their end.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = list(observers)
        self._dropped: List[Observer] = []

    def send(self, event: Event) -> None:
        for observer in list(self._observers):
            self._call(observer, observer.take, event)

    def look(self, now: float) -> None:
        """Pass on what observers have to say. Call now and then."""
        for observer in list(self._observers):
            self._tell(now, self._call(observer, observer.look))

    def close(self, now: float) -> None:
        for observer in self._dropped:
            try:
                texts = observer.close()
            except Exception:
                continue  # its fault has been reported
            self._tell(now, texts)
        for observer in reversed(list(self._observers)):
            texts = self._call(observer, observer.close)
            if observer in self._observers:
                self._observers.remove(observer)
            self._tell(now, texts)

    def _tell(self, now: float, texts: List[str]) -> None:
        for text in texts:
            self.send(Notice(now, text))

    def _call(self, observer: Observer, method: Callable[..., Any], *args: Any) -> List[str]:
        """Call a method of an observer, and drop the observer if that raises."""
        try:
            return method(*args) or []
        except Exception:
            if observer in self._observers:
                self._observers.remove(observer)
                if method != observer.close:
                    self._dropped.append(observer)
            complain(
                f"the observer {type(observer).__name__} failed, so it gets no more events; "
                f"the job goes on. Please report this bug:\n{traceback.format_exc().rstrip()}"
            )
            return []
