"""Whatever happens in whatever order, the core does not break and the job comes to one end."""

import signal

from hypothesis import given, settings
from hypothesis import strategies as st

from baryon.scheduler import state
from baryon.scheduler.control import messages

NUM_WORKERS, NUM_SERVERS, NUM_HOSTS = 3, 2, 2
HOSTS = st.integers(0, NUM_HOSTS - 1)
WORKERS = st.sampled_from([f"worker-{rank}" for rank in range(NUM_WORKERS)])
TASKS = st.one_of(WORKERS, st.sampled_from([f"server-{rank}" for rank in range(NUM_SERVERS)]))
CODES = st.sampled_from([0, 0, 0, 1, 3, 127, -signal.SIGTERM, -signal.SIGKILL])
SIGNALS = st.sampled_from(
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE]
)
EVENTS = st.one_of(
    st.tuples(st.just("hello"), HOSTS),
    st.tuples(st.just("join"), TASKS),
    st.tuples(st.just("join"), TASKS),
    st.tuples(st.just("exits"), TASKS, CODES),
    st.tuples(st.just("exits"), WORKERS, st.just(0)),
    st.tuples(st.just("vanishes"), WORKERS, CODES, st.just(""), st.booleans()),
    st.tuples(st.just("message"), WORKERS, st.sampled_from([messages.Gone(), messages.Gone(3)])),
    st.tuples(st.just("writes"), TASKS, st.binary(max_size=5)),
    st.tuples(st.just("gather"), WORKERS, st.sampled_from("xy"), st.binary(max_size=2)),
    st.tuples(st.just("gather"), WORKERS, st.just("x"), st.just(b""), st.just("allgather")),
    st.tuples(st.just("message"), TASKS, st.just(messages.Failed("no"))),
    st.tuples(st.just("message"), TASKS, st.just(messages.Alive())),
    st.tuples(st.just("agent_ends"), HOSTS),
    st.tuples(st.just("signal"), SIGNALS),
    st.tuples(st.just("tick"), st.sampled_from([0.2, 1.0, 30.0, 1000.0])),
)
# Half of the time from the very beginning, half of it once the job runs.
SEQUENCES = st.tuples(st.booleans(), st.lists(EVENTS, max_size=40))


def play(make_scene, sequence):
    begun, events = sequence
    scene = make_scene(NUM_WORKERS, NUM_SERVERS, NUM_HOSTS, timeout_s=100.0)
    if begun:
        scene.begin()
    ended_well = set()
    for name, *args in events:
        if name in ("exits", "vanishes") and args[1] in (0, -signal.SIGKILL):
            ended_well.add(args[0])  # or hung after it had said goodbye
        getattr(scene, name)(*args)
    return scene, ended_well


def check_the_end(scene, codes, ended_well):
    assert len(codes) == 1
    assert scene.core.phase == state.OVER
    if codes == [0]:
        assert {f"worker-{rank}" for rank in range(NUM_WORKERS)} <= ended_well
        workers = scene.core.state.of_role("worker")
        assert not any(state.own_code or state.owes_goodbye for state in workers)
    assert [scene.tick(1000.0) for _ in range(3)] == [[], [], []], "after the end"


@settings(deadline=None, max_examples=300)
@given(sequence=SEQUENCES)
def test_a_job_is_over_once_every_agent_has_ended(make_scene, finished, sequence):
    scene, ended_well = play(make_scene, sequence)
    scene.finish_agents()
    check_the_end(scene, finished(scene.history), ended_well)


@settings(deadline=None, max_examples=300)
@given(sequence=SEQUENCES)
def test_a_job_is_over_once_its_time_to_stop_has_passed(make_scene, finished, sequence):
    scene, ended_well = play(make_scene, sequence)
    scene.signal(signal.SIGTERM)
    for _ in range(2):  # at once it would have slept
        scene.tick(scene.job.grace_s + 2.5)
    check_the_end(scene, finished(scene.history), ended_well)


@settings(deadline=None, max_examples=300)
@given(sequence=SEQUENCES)
def test_a_failure_is_told_only_once(make_scene, said, sequence):
    scene, _ = play(make_scene, sequence)
    assert said(scene.history).count("logs are in") <= 1
