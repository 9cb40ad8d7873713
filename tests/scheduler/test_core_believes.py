"""Which values of control messages are believed: each of them changed, and what the core that got
it does then. It ends the job with a word about it, or goes on as if nothing had been; never does it
break, or take a failure for a good end.
"""

import math
import random

import pytest

from baryon import __version__
from baryon.ps import ProtocolError
from baryon.scheduler import state
from baryon.scheduler.control import messages
from baryon.scheduler.control.messages import CONTROL

TRIES = 6000
HELLO = messages.AgentHello(__version__, "h", 1, "10.0.0.1", "tcp://10.0.0.9:1", ("0", "1"))
POSITION = messages.Position(0, 1, "initialised 'w'", (0, 0), (0, 1))
FROM_AGENT = [
    HELLO,
    messages.Output("worker-0", False, False, b"hello\n"),
    messages.Output("worker-1", False, True, b"10%"),
    messages.Exited("worker-0", 3, 1.5, "", 0, True),
    messages.Exited("worker-1", 127, 0.0, "no such file"),
    messages.Exited("worker-1", 0, 1.5, ""),
    messages.Alive(("worker-0", "server-0")),
    messages.Suspended(),
]
FROM_WORKER = [
    messages.Join(7, ""),
    messages.Gather("x", "barrier", b"value"),
    messages.Gone(0),
    messages.Gone(3),
    messages.Failed("why"),
    messages.Alive((), (POSITION,)),
]
NASTY = {
    int: (-1, 0, 1, 255, 256, -128, 1 << 31, -(1 << 63), (1 << 64) - 1),
    float: (-1.0, 0.0, math.nan, math.inf, -math.inf, 1e308),
    str: ("", "worker-1", "server-0", "agent-0", "\x1b[2J", "a,b", "tcp://", "x" * 5000, "\0"),
    bytes: (b"", b"\n", b"\xff" * 5000, b"a\nb"),
    bool: (True, False),
}


def changed(chance, value):
    """The same with one value in it replaced by one of its type."""
    kind = type(value)
    if kind in NASTY:
        return chance.choice(NASTY[kind])
    if kind is tuple:
        if not value or chance.random() < 0.2:
            return value * chance.choice((0, 2, 3000))
        index = chance.randrange(len(value))
        return (*value[:index], changed(chance, value[index]), *value[index + 1 :])
    fields = kind.__struct_fields__
    if not fields:
        return value
    parts = {name: getattr(value, name) for name in fields}
    name = chance.choice(fields)
    return kind(**{**parts, name: changed(chance, parts[name])})


def received(chance, message):
    """It as it arrives with a field changed, or a byte; None if that is no message."""
    if chance.random() < 0.7:
        data = CONTROL.encode(changed(chance, message))
    else:
        data = bytearray(CONTROL.encode(message))
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        return CONTROL.decode(bytes(data))
    except ProtocolError:
        return None


def play_on(scene):
    """What is left of a job that goes on well, if it does: a meeting, good ends, the agents'."""
    for slug in scene.slugs:
        if scene.core.state.tasks[slug].joined is None:
            scene.join(slug)
    for slug in ("worker-0", "worker-1"):
        if not scene.core.state.tasks[slug].ended:
            scene.gather(slug, "y")
    for slug in ("worker-0", "worker-1"):
        if not scene.core.state.tasks[slug].ended:
            scene.message(slug, messages.Gone())
            scene.exits(slug)
    scene.tick(1.0)
    scene.exits("server-0", -15)
    scene.finish_agents()


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize("messages_of", ["agent", "worker"])
def test_a_changed_message_is_refused_in_words_or_harmless(
    make_scene, said, finished, sent, has_begun, messages_of
):
    chance = random.Random(messages_of + str(has_begun))
    originals = FROM_AGENT if messages_of == "agent" else FROM_WORKER
    peer = "agent-0" if messages_of == "agent" else "worker-0"
    num_refused = num_harmless = 0
    for number in range(TRIES // 4):
        original = originals[number % len(originals)]
        message = received(chance, original)
        if message is None:
            continue
        scene = make_scene(num_workers=2, num_servers=1)
        scene.begin() if has_begun else scene.hello(0)
        scene.message(peer, message)
        scene.tick(1.0)
        has_failed = scene.core.phase == state.STOPPING
        if has_failed:
            assert said(scene.history), message
        play_on(scene)
        (code,) = finished(scene.history)
        assert 0 <= code <= 255, message
        assert (code == 0) <= (not has_failed), message
        assert "impossible" not in said(scene.history) or code == 1, message
        if isinstance(message, messages.Exited) and message.task in ("worker-0", "worker-1"):
            assert message.code == 0 or code != 0, message
        if isinstance(message, messages.Gone) and message.code and peer == "worker-0":
            assert not has_begun or code != 0, message
        for _, roster in sent(scene.history, messages.Roster):
            assert all(one.endpoint.startswith("tcp://10.") for one in roster.servers), message
        if code == 0 and has_begun:
            num_harmless += 1
            met = sent(scene.history, messages.Gathered)
            assert [one.values for _, one in met if one.name == "y"], message
        num_refused += has_failed
    assert num_refused > 50
    assert num_harmless > 50 or not has_begun


@pytest.mark.parametrize(
    ("message", "what"),
    [
        (messages.Exited("worker-0", 256, 1.0, ""), "Exited with an impossible code 256"),
        (messages.Exited("worker-0", -128, 1.0, ""), "Exited with an impossible code -128"),
        (messages.Exited("worker-0", 0, 1.0, "no"), "Exited with an impossible error with code 0"),
        (messages.Exited("worker-0", 0, math.nan, ""), "Exited with an impossible seconds nan"),
        (messages.Exited("worker-0", 0, 1.0, "", -1), "Exited with an impossible oom_kills -1"),
        (messages.Output("worker-0", False, False, b"a"), "Output with an impossible end of data"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_agent_that_says_what_cannot_be(make_scene, said, message, what):
    """256 would be 0 to a shell."""
    scene = make_scene().begin()
    assert f"the agent on a has sent {what}" in said(scene.message("agent-0", message))
    assert scene.core.phase == state.STOPPING


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hostname", "\x1b[2J"),
        ("hostname", ""),
        ("pid", 0),
        ("address", "node1;reboot"),
        ("endpoint", "ipc:///tmp/x"),
        ("endpoint", "tcp://10.0.0.9"),
        ("endpoint", "tcp://somewhere:1"),
        ("gpus", ("0,1",)),
    ],
)
def test_a_hello_that_cannot_be(make_scene, said, field, value):
    scene = make_scene()
    parts = {name: getattr(HELLO, name) for name in HELLO.__struct_fields__}
    actions = scene.message("agent-0", messages.AgentHello(**{**parts, field: value}))
    assert "has sent AgentHello with an impossible " in said(actions)


def test_an_agent_of_another_version_is_told_of(make_scene, said):
    scene = make_scene()
    hello = messages.AgentHello("0.0.9", "h", 1, "10.0.0.1", "tcp://10.0.0.9:1")
    words = (
        f"the agent on a runs Baryon 0.0.9, and launch.py {__version__}; install the same version"
    )
    assert words in said(scene.message("agent-0", hello))


def test_an_agent_that_is_started_again_ends_the_job(make_scene, said):
    scene = make_scene(num_hosts=2, num_workers=2)
    scene.hello(0)
    assert "the agent on a was started again" in said(scene.hello(0))
    scene = make_scene().begin()
    assert "the agent on a was started again" in said(scene.hello(0)), "also while it runs"


@pytest.mark.parametrize(
    ("slug", "endpoint"),
    [("server-0", ""), ("server-0", "tcp://10.0.0.1:0"), ("worker-0", "tcp://10.0.0.1:5")],
)
def test_a_task_that_joins_with_what_cannot_be(make_scene, said, slug, endpoint):
    scene = make_scene()
    scene.hello(0)
    assert "Join with an impossible endpoint" in said(
        scene.message(slug, messages.Join(7, endpoint))
    )


def test_a_task_ends_once(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    scene.message("worker-0", messages.Gone())
    scene.exits("worker-0")
    assert scene.exits("worker-0", 3) == []
    assert scene.core.phase == state.RUNNING


def test_the_end_of_a_failure_is_told_in_lines_that_fit(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    scene.writes("worker-0", b"x" * 60_000 + b"\n")
    text = said(scene.exits("worker-0", 3))
    assert "x" * 200 in text and "x" * 201 not in text


def test_nobody_speaks_out_of_turn(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    for peer, who, kind in (
        ("agent-0", "the agent on a", "agent"),
        ("worker-0", "worker 0 (a)", "worker"),
        ("server-0", "server 0 (a)", "server"),
    ):
        assert said(scene.message(peer, messages.Left(0))) == (
            f"{who} has sent Left, which no {kind} may send while the job is running"
        )
    assert scene.core.phase == state.RUNNING
