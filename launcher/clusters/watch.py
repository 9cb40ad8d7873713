"""Decides what a manager's answers mean for a job: what to tell the user, and when to give up.

Pure: the clock is a parameter."""

from typing import Callable, List, NamedTuple, Optional, Tuple

from baryon.scheduler import Trouble

__all__ = ["OVER", "QUEUED", "RUNNING", "TIME_LIMIT_CODE", "Status", "Watch"]

QUEUED, RUNNING, OVER = "queued", "running", "over"

TIME_LIMIT_CODE = 124
"""A job's exit code if it reached its time limit, as that of timeout(1)."""

_END_S = 20.0  # from the end of the workers to that of the last agent, at most
_LEAST_GRACE_S = 5.0


class Status(NamedTuple):
    """A job's state. ``words``, the manager's, say why it waits, where it runs, or how it ended.

    ``left_s`` are the seconds to the time limit of a job that runs and has one. ``exit_code`` is
    launch.py's if the job ended early. ``is_preempted``: it ended because other jobs needed its
    hosts, or because a host was lost.
    """

    phase: str
    words: str = ""
    left_s: Optional[float] = None
    exit_code: int = 1
    is_preempted: bool = False


class Watch:
    """Follows one job. ``clock`` returns seconds.

    ``queue_limit_s`` is the longest wait in the queue. The job is told to end ``margin_s`` before
    its time limit, or at half of its time if that is later.
    """

    def __init__(
        self, queue_limit_s: Optional[float], margin_s: float, clock: Callable[[], float]
    ) -> None:
        self.was_interrupted = False  # by the time limit, for other jobs, or by the loss of a host
        self._queue_limit_s = queue_limit_s
        self._margin_s = margin_s
        self._clock = clock
        self._start = clock()
        self._last = Status(QUEUED)
        self._was_silent = False
        self._has_failed = False

    def on_status(
        self, name: str, status: Status, silence: str = "", is_ending: bool = False
    ) -> Tuple[List[str], Optional[Trouble]]:
        """(messages for the user, what ends the job) after the last status of the job ``name``.

        ``silence`` says why there is no newer status. ``is_ending``: the scheduler has let go of
        all hosts. What ends the job is returned once.
        """
        says = self._news(name, status, silence, is_ending)
        if status.phase == RUNNING and self._last.phase == QUEUED and status.left_s is not None:
            self._margin_s = min(self._margin_s, status.left_s / 2)
        self._last = status
        self.was_interrupted |= status.is_preempted
        if is_ending or self._has_failed:
            return says, None
        trouble = self._judge(name, status)
        self.was_interrupted |= trouble is not None and trouble.exit_code == TIME_LIMIT_CODE
        self._has_failed = trouble is not None
        return says, trouble

    def _news(self, name: str, status: Status, silence: str, is_ending: bool) -> List[str]:
        says = []
        if silence and not self._was_silent:
            says.append(f"the manager of {name} does not answer: {silence}")
        self._was_silent = bool(silence)
        was = self._last
        if is_ending or (status.phase, status.words) == (was.phase, was.words):
            return says
        if status.phase == QUEUED:
            says.append(f"{name} waits: {status.words}")
        elif status.phase == RUNNING:
            says.append(f"{name} runs on {status.words}")
        return says

    def _judge(self, name: str, status: Status) -> Optional[Trouble]:
        if status.phase == OVER:
            return Trouble(f"{name} {status.words}", status.exit_code)
        waited_s = self._clock() - self._start
        limit_s = self._queue_limit_s
        if status.phase == QUEUED and limit_s is not None and waited_s > limit_s:
            why = status.words or "no reason is known"
            return Trouble(f"{name} waited {waited_s:.0f} s (--queue-timeout): {why}")
        if status.left_s is not None and status.left_s <= self._margin_s:
            text = f"{name} reaches its time limit in {status.left_s:.0f} s"
            grace_s = max(_LEAST_GRACE_S, status.left_s - _END_S)
            return Trouble(text, TIME_LIMIT_CODE, grace_s)
        return None
