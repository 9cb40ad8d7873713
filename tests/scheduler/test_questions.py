"""Another shell asks a job how it is, and is answered by nobody else."""

import os
import socket
import threading

from baryon.scheduler import questions
from tests.waiting import LIMIT_S

JOB = f"job-{os.getpid()}"
LONG = "x" * 4_000_000


def answering(listener, count, text):
    """A thread that answers so many times, as the scheduler's loop does when it is woken."""

    def serve():
        listener.setblocking(True)
        for _ in range(count):
            questions.answer(listener, lambda: text)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_question_and_answer():
    with questions.listen(JOB) as listener:
        thread = answering(listener, 2, LONG)
        assert questions.ask(JOB) == questions.ask(JOB) == LONG
        thread.join(LIMIT_S)
    assert questions.ask(JOB) is None


def test_a_job_that_is_too_busy_to_answer(monkeypatch):
    monkeypatch.setattr(questions, "_LIMIT_S", 0.05)
    with questions.listen(JOB):
        assert questions.ask(JOB) is None


def test_a_name_that_somebody_else_has_taken(monkeypatch):
    with questions.listen(JOB) as listener:
        assert questions.listen(JOB) is None
        thread = answering(listener, 1, "a lie")
        user = questions._user
        monkeypatch.setattr(questions, "_user", lambda connection: user(connection) + 1)
        assert questions.ask(JOB) is None
        thread.join(LIMIT_S)


def test_whoever_asks_and_goes_away_at_once_does_no_harm():
    with questions.listen(JOB) as listener:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hasty:
            hasty.connect(questions._name(JOB, os.getuid()))
        thread = answering(listener, 2, LONG)
        assert questions.ask(JOB) == LONG
        thread.join(LIMIT_S)
