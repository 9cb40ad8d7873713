"""What tasks do while the job runs: write, meet, report where they are, and end. Pure.

A worker ends well if it sends Gone(0) and its command exits with 0. They come over different
connections, so either may be first. The scheduler then waits a limited time for the other.
"""

import math
import signal
from typing import List

from . import exits
from .actions import Action, Send
from .control import messages
from .meetings import Meetings
from .observers import Notice, TaskOutput
from .positions import Positions
from .starting import Starting, tell_left
from .state import RUNNING, JobState, TaskState
from .stopping import Stopping

__all__ = ["Running"]

GOODBYE_S = 5.0  # between a task's Gone and the news of its exit
TEARDOWN_S = 60.0  # for the atexit functions of a script that has ended well


class Running:
    def __init__(
        self, state: JobState, starting: Starting, stopping: Stopping, meetings: Meetings
    ) -> None:
        self._state = state
        self._starting = starting
        self._stopping = stopping
        self._meetings = meetings
        self._positions = Positions()

    # -- work ---------------------------------------------------------------------------------

    def on_output(self, task: TaskState, message: messages.Output, now: float) -> List[Action]:
        if not message.is_transient:
            task.last_line = exits.last_line(message.data) or task.last_line
        output = TaskOutput(now, message.task, message.is_error, message.is_transient, message.data)
        return [output]

    def on_gather(self, task: TaskState, message: messages.Gather, now: float) -> List[Action]:
        wrong = self._meetings.arrive(task.task.rank, message, now)
        if wrong:
            return self._stopping.fail(f"{task.where} {wrong}", 1, now)
        return self._end_meetings()

    def on_alive(self, task: TaskState, message: messages.Alive, now: float) -> List[Action]:
        wrong = self._positions.take(task.task.rank, message.positions)
        return self._stopping.fail(wrong, 1, now) if wrong else []

    def _end_meetings(self) -> List[Action]:
        """End the meetings to which all have come; a worker that has ended well is not awaited."""
        active = [task for task in self._state.of_role("worker") if not task.ended]
        return [
            Send(task.task.slug, gathered)
            for gathered in self._meetings.end({task.task.rank for task in active})
            for task in active
        ]

    # -- ends ---------------------------------------------------------------------------------

    def on_gone(self, task: TaskState, message: messages.Gone, now: float) -> List[Action]:
        if task.is_gone:
            return []
        task.is_gone = True
        task.own_code = message.code
        if task.exited is not None:
            return self._on_exited(task, task.exited, now)
        limit_s = self._goodbye_limit_s(message.code)
        task.due = now + limit_s
        end = messages.EndProcess(task.task.slug, task.pid, limit_s)
        return [Send(f"agent-{task.task.host}", end)]

    def on_exited(self, task: TaskState, message: messages.Exited, now: float) -> List[Action]:
        # It may have ended before, in the eyes of a scheduler that had lost its host.
        return [] if task.ended else self._on_exited(task, message, now)

    def _on_exited(self, task: TaskState, message: messages.Exited, now: float) -> List[Action]:
        is_active, name = self._state.is_active, task.task.name
        if is_active and message.code == 0 and task.owes_goodbye and task.exited is None:
            task.exited, task.due = message, now + GOODBYE_S
            return []
        task.ended = True
        if not is_active:
            return self._stopping.release_workers(name) + self._stopping.go_on(now)
        text, code = exits.describe_exit(task, message), exits.own_code_of(task, message)
        if code == 0 and task.task.role == "worker" and not task.owes_goodbye:
            told: List[Action] = [Notice(now, text)] if exits.has_hung(task, message) else []
            return told + self._on_worker_done(task, now)
        fail = self._stopping.fail(text, exits.exit_code_of(code), now)
        return fail + self._stopping.release_workers(name)

    def _on_worker_done(self, task: TaskState, now: float) -> List[Action]:
        state = self._state
        if all(worker.ended for worker in state.of_role("worker")):
            told: List[Action] = []
            if state.joining is None and state.of_role("server"):
                text = (
                    "no worker created a dist kvstore, so the workers trained independently; "
                    "a script that asks for a local store needs --kvstore dist_sync"
                )
                told = [Notice(now, text)]
            return told + self._stopping.stop(signal.SIGTERM, now)
        left = tell_left(state, task) if state.phase == RUNNING else []
        return left + self._end_meetings() + self._starting.begin_if_complete(now)

    def look_for_goodbyes(self, now: float) -> List[Action]:
        """Look for workers that exited without Gone, and for commands that run on after Gone."""
        actions: List[Action] = []
        for task in self._state.of_role("worker"):
            if task.ended or now <= task.due:
                continue
            if task.exited is not None:
                return actions + self._on_exited(task, task.exited, now)
            if now <= task.due + GOODBYE_S:  # its agent was told to end the process by now
                continue
            if task.own_code:
                text = f"{task.where} failed with code {task.own_code}; its command still runs"
                return actions + self._stopping.fail(text, task.own_code, now)
            seconds = now - task.due + self._goodbye_limit_s(0)
            task.due = math.inf  # the command may go on for as long as it likes
            text = (
                f"{task.where} left the job {seconds:.0f} s ago, but its command still runs "
                f"(process {task.pid} there); Ctrl-C ends the job"
            )
            actions.append(Notice(now, text))
        return actions

    def _goodbye_limit_s(self, code: int) -> float:
        """How long a process may run after its Gone."""
        job = self._state.job
        return job.grace_s if code else min(job.timeout_s, TEARDOWN_S)
