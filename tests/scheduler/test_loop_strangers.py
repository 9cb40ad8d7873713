"""Nobody but the job's own tasks can disturb the scheduler, and of those nobody can stop it by
what it sends: a bad message is reported and the job goes on.
"""

import os
import socket

import pytest
import zmq

from baryon.ps import KeyPair, new_key_pair
from baryon.scheduler.control import messages

from .test_loop import LIMIT_MS, play  # noqa: F401  (play is a fixture)

LIE = messages.Exited("worker-0", 3, 1.0, "")
REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_DISCONNECTED
)


def keys_of(agent):
    return KeyPair(agent.config.public_key, agent.config.secret_key)


def wait_until_refused(stranger):
    stranger.send(LIE)
    stranger.wait_for_event(REFUSED)


def stranger_without_keys(agent):
    wait_until_refused(agent.peer(name="agent-0"))


def stranger_with_keys_of_its_own(agent):
    wait_until_refused(agent.peer(new_key_pair()))


def stranger_with_half_a_key(agent):
    """It knows the public key of a task, which is no secret."""
    keys = KeyPair(agent.config.public_key, new_key_pair().secret)
    wait_until_refused(agent.peer(keys))


def noise(agent):
    """Bytes that are no ZeroMQ at all, and some that begin as if they were."""
    host, port = agent.config.endpoint[len("tcp://") :].split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    for data in (b"", b"GET / HTTP/1.0\r\n\r\n", os.urandom(5000), greeting, greeting[:12]):
        with socket.create_connection((host, int(port)), LIMIT_MS / 1000) as connection:
            connection.sendall(data)


@pytest.mark.parametrize(
    "stranger",
    [stranger_without_keys, stranger_with_keys_of_its_own, stranger_with_half_a_key, noise],
)
def test_strangers_are_not_heard(play, stranger):  # noqa: F811
    def script(agent):
        agent.works()
        stranger(agent)
        agent.writes("worker-0", b"still here\n")
        agent.ends("worker-0")

    assert play(script) == (0, "worker 0 | still here\n", "")


def test_nobody_can_speak_for_another(play):  # noqa: F811
    """Who sends is known by its key, whatever name it gives itself."""

    def script(agent):
        liar = agent.peer(keys_of(agent), name="worker-0")
        liar.send(messages.Failed("a lie"))
        liar.receive(messages.Alive)  # to the scheduler it is the agent, whose keys it has
        agent.ends("worker-0")

    code, _, err = play(script, silence_s=5.0)
    assert code == 0
    assert "a lie" not in err


def test_nobody_can_shut_another_out_by_taking_its_name(play):  # noqa: F811
    def script(agent):
        liar = agent.peer(keys_of(agent), name="worker-0")
        liar.send(messages.Alive())
        liar.wait_for_event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        agent.works()
        agent.ends("worker-0")

    assert play(script)[0] == 0


def test_an_unreadable_message_is_reported_and_no_more(play):  # noqa: F811
    def script(agent):
        worker = agent.task("worker-0")
        worker.send_bytes(b"\x92\xa4Left\xa1x")
        worker.socket.send(b"")
        agent.works()
        agent.send_bytes(b"nonsense")
        agent.writes("worker-0", b"still here\n")
        agent.ends("worker-0")

    code, out, err = play(script)
    assert (code, out) == (0, "worker 0 | still here\n")
    assert err.count("worker-0 has sent a message that cannot be read: ") == 2
    assert err.count("agent-0 has sent a message that cannot be read: ") == 1


@pytest.mark.parametrize(
    "message",
    [
        messages.Roster(()),
        messages.StartTasks(()),
        messages.Left(0),
        messages.Join(1, ""),
        messages.Gather("x", "barrier", b""),
        messages.Output("worker-7", False, False, b"who?\n"),
        messages.Exited("worker-7", 0, 1.0, ""),
    ],
    ids=repr,
)
def test_a_message_that_makes_no_sense_does_not_stop_the_scheduler(play, message):  # noqa: F811
    def script(agent):
        agent.send(message)
        agent.ends("worker-0")

    assert play(script)[0] == 0


@pytest.mark.parametrize("frames", [[b"", b""], [b"a", b"b", b"c"]])
def test_a_message_of_too_many_frames_does_not_stop_it(play, frames):  # noqa: F811
    def script(agent):
        agent.socket.send_multipart(frames)
        agent.ends("worker-0")

    assert play(script)[0] == 0


def test_a_message_too_big_to_be_one_does_not_stop_it(play):  # noqa: F811
    """Its sender is cut off, and can come back."""

    def script(agent):
        worker = agent.task("worker-0")
        worker.socket.send(bytes(17 << 20))
        worker.wait_for_event(zmq.EVENT_DISCONNECTED)
        worker = agent.task("worker-0")
        worker.send(messages.Join(1, ""))
        worker.receive(messages.Roster)
        agent.ends("worker-0")

    assert play(script)[0] == 0
