"""Where workers meet: everyone gets what everyone has given, and nobody meets the wrong ones."""

from hypothesis import given
from hypothesis import strategies as st

from baryon.scheduler import meetings, state
from baryon.scheduler.control import messages
from baryon.scheduler.meetings import Meetings


def got(sent, actions):
    """{slug: (name, values)} of those who are told; each is told once."""
    told = sent(actions, messages.Gathered)
    assert len(told) == len({(slug, message.name) for slug, message in told})
    return {slug: (message.name, message.values) for slug, message in told}


def test_when_all_are_there_everyone_gets_all_values_by_rank(make_scene, sent):
    scene = make_scene(num_workers=3).begin()
    assert scene.gather("worker-2", "x", b"c") == []
    assert scene.gather("worker-0", "x", b"a") == []
    values = ((0, b"a"), (1, b"b"), (2, b"c"))
    assert got(sent, scene.gather("worker-1", "x", b"b")) == {
        f"worker-{rank}": ("x", values) for rank in range(3)
    }


def test_they_get_one_message_which_need_be_encoded_only_once(make_scene, sent):
    scene = make_scene(num_workers=2).begin()
    scene.gather("worker-0", "x")
    (_, first), (_, second) = sent(scene.gather("worker-1", "x"), messages.Gathered)
    assert first is second


def test_the_same_name_can_be_used_again(make_scene, sent):
    scene = make_scene(num_workers=2).begin()
    for value in (b"1", b"2", b"3"):
        assert scene.gather("worker-0", "x", value) == []
        values = got(sent, scene.gather("worker-1", "x", b"b"))["worker-0"][1]
        assert values == ((0, value), (1, b"b"))


def test_two_names_do_not_mix(make_scene, sent):
    scene = make_scene(num_workers=2).begin()
    assert scene.gather("worker-0", "x", b"0x") == []
    assert scene.gather("worker-1", "y", b"1y") == []
    x = got(sent, scene.gather("worker-1", "x", b"1x"))
    y = got(sent, scene.gather("worker-0", "y", b"0y"))
    assert x["worker-1"] == ("x", ((0, b"0x"), (1, b"1x")))
    assert y["worker-1"] == ("y", ((0, b"0y"), (1, b"1y")))


def test_a_worker_that_has_ended_well_is_not_waited_for(make_scene, sent):
    scene = make_scene(num_workers=3).begin()
    scene.exits("worker-1")
    scene.gather("worker-0", "x", b"a")
    values = ((0, b"a"), (2, b"c"))
    assert got(sent, scene.gather("worker-2", "x", b"c")) == {
        "worker-0": ("x", values),
        "worker-2": ("x", values),
    }


def test_ending_well_ends_every_meeting_that_waited_for_it(make_scene, sent):
    scene = make_scene(num_workers=3).begin()
    for name in ("x", "y"):
        scene.gather("worker-0", name)
        scene.gather("worker-2", name)
    told = sent(scene.exits("worker-1"), messages.Gathered)
    assert sorted((slug, message.name) for slug, message in told) == [
        (slug, name) for slug in ("worker-0", "worker-2") for name in ("x", "y")
    ]


def test_what_a_worker_has_given_counts_although_it_has_ended_since(make_scene, sent):
    scene = make_scene(num_workers=2).begin()
    scene.gather("worker-1", "x", b"b")
    scene.exits("worker-1")
    assert got(sent, scene.gather("worker-0", "x", b"a")) == {
        "worker-0": ("x", ((0, b"a"), (1, b"b")))
    }


def test_nobody_meets_without_a_worker_that_has_failed(make_scene, sent):
    """The others hear first that nothing more will come."""
    scene = make_scene(num_workers=3).begin()
    scene.gather("worker-0", "x")
    actions = scene.exits("worker-1", 3) + scene.gather("worker-2", "x")
    told = [(peer, type(m)) for peer, m in sent(actions, messages.Message) if peer == "worker-0"]
    assert told[0] == ("worker-0", messages.Abort)


def test_only_workers_meet(make_scene, sent, said):
    """A server is not one of those that are waited for, whatever it sends."""
    scene = make_scene(num_workers=2).begin()
    scene.gather("worker-1", "x")
    assert (
        said(scene.gather("server-0", "x"))
        == "server 0 (a) has sent Gather, which no server may send while the job is running"
    )


def test_another_call_at_the_same_place_ends_the_job(make_scene, said):
    scene = make_scene(num_workers=3, num_hosts=3).begin()
    scene.gather("worker-2", "call 4 of store 0", call="allgather")
    text = said(scene.gather("worker-1", "call 4 of store 0", call="barrier"))
    assert text.startswith(
        "worker 1 (b) calls barrier where worker 2 calls allgather (call 4 of store 0); "
        "all workers must make the same calls in the same order\n"
    )
    assert scene.core.phase == state.STOPPING


def test_a_second_value_of_a_worker_ends_the_job_rather_than_replace_the_first(make_scene, said):
    scene = make_scene(num_workers=2).begin()
    scene.gather("worker-0", "x", b"a")
    assert "worker 0 (a) calls barrier (x) from two threads at once" in said(
        scene.gather("worker-0", "x", b"b")
    )


@given(st.data())
def test_in_whatever_order_workers_come_each_meeting_gets_what_was_given_for_it(data):
    """Workers make the same calls, but are not equally fast, and some end before others."""
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    meetings = Meetings()
    done = [0] * len(lengths)  # calls that each has made
    heard = [0] * len(lengths)  # and of which it has the answer
    while True:
        active = {rank for rank, length in enumerate(lengths) if done[rank] < length}
        ready = [rank for rank in sorted(active) if heard[rank] == done[rank]]
        if not active:
            break
        rank = data.draw(st.sampled_from(ready))
        value = b"%d by %d" % (done[rank], rank)
        message = messages.Gather(f"call {done[rank]}", "allgather", value)
        assert meetings.arrive(rank, message, 0.0) == ""
        done[rank] += 1
        # A worker ends when it has the answer to its last call.
        active = {r for r, length in enumerate(lengths) if heard[r] < length}
        for gathered in meetings.end(active):
            number = int(gathered.name.split()[1])
            assert gathered.values == tuple(
                (r, b"%d by %d" % (number, r)) for r, n in enumerate(lengths) if n > number
            )
            for r in active:
                heard[r] += 1
    assert meetings.waits() == []


def test_meetings_without_end_are_refused(make_scene, said, monkeypatch):
    monkeypatch.setattr(meetings, "MAX_OPEN", 3)
    scene = make_scene(num_workers=2).begin()
    for name in "abc":
        assert scene.gather("worker-0", name) == []
    assert "worker 0 (a) calls barrier while 3 other meetings are open" in said(
        scene.gather("worker-0", "d")
    )
