"""What a worker is told about its own call, before anything of it is sent."""

import numpy as np
import pytest

from baryon.ps import UsageError
from baryon.worker.collectives import Collectives
from baryon.worker.values import encode


class Nobody:
    """A control plane over which nothing may go."""

    def gather(self, name, call, value):
        raise AssertionError(f"{call} was sent")


@pytest.fixture
def calls():
    return lambda num_workers: Collectives(Nobody(), 0, num_workers, 0, lambda: None)


@pytest.mark.parametrize(("num_workers", "limit"), [(1, 16), (4, 16), (8, 8), (256, 0.25)])
def test_what_is_too_large_is_refused_with_the_way_to_go(calls, num_workers, limit):
    value = bytes(int(limit * 2**20))  # and a few more for its type
    words = f"each may give {limit:g} MiB; larger arrays .* kv.init a key and kv.pushpull"
    with pytest.raises(UsageError, match=words):
        calls(num_workers).allgather(value)
    with pytest.raises(AssertionError, match="was sent"):
        calls(num_workers).allgather(value[:-100])


def test_as_only_one_gives_something_a_broadcast_may_be_larger(calls):
    with pytest.raises(AssertionError, match="was sent"):
        calls(256).broadcast(np.zeros(2**20), 0)
    with pytest.raises(UsageError, match=r"broadcast_object\(root=0\) with 16.0 MiB"):
        calls(256).broadcast(np.zeros(2**21), 0)


def test_what_there_is_not_is_named(calls):
    with pytest.raises(UsageError, match="no worker 4; root is from 0 to 3"):
        calls(4).broadcast(None, 4)
    with pytest.raises(UsageError, match="one of sum, mean, max, min, not 'prod'"):
        calls(4).allreduce(1, "prod")
    with pytest.raises(UsageError, match="object"):
        calls(4).allgather(object())


class Meeting:
    """In each call, the workers that have not ended give what ``others`` say."""

    def __init__(self, others):
        self.others, self.sent = others, []

    def gather(self, name, call, value):
        self.sent.append(value)
        return (*self.others[len(self.sent) - 1].items(), (2, value))


def test_one_worker_gives_its_digests_for_all_and_another_when_that_has_ended():
    rounds = [{0: encode("a"), 1: b""}, {1: b""}, {1: encode("b")}, {}, {}]
    meeting = Meeting(rounds)
    calls = Collectives(meeting, 2, 1000, 0, lambda: None)
    assert list(calls.digests("own").items()) == [(0, "a"), (2, "own")]
    assert list(calls.digests("own").items()) == [(1, "b"), (2, "own")]
    assert list(calls.digests("own").items()) == [(2, "own")]
    assert meeting.sent == [b"", b"", b"", b"", encode("own")]
