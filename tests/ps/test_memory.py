"""Memory laid out by a plan: a process's own, and that of a host, opened by several."""

import os
import weakref

import numpy as np
import pytest

from baryon.ps.errors import UsageError
from baryon.ps.memory import VALUES, HostMemory, Memory, staging
from baryon.ps.plan import Plan


@pytest.fixture
def path():
    descriptor = os.memfd_create("memory")
    yield f"/proc/{os.getpid()}/fd/{descriptor}"
    os.close(descriptor)


@pytest.fixture
def open_memory(path):
    opened = []

    def make(member):
        opened.append(HostMemory(path, member))
        return opened[-1]

    yield make
    for memory in opened:
        memory.close()


def plan_of(*shapes):
    plan = Plan(2, bucket_nbytes=256)
    for number, shape in enumerate(shapes):
        plan.add(number, shape, "float32")
    return plan


def test_a_key_that_spans_buckets_is_one_piece_of_memory():
    plan, memory = plan_of((3,), (100, 3), (5,)), Memory()
    whole = memory.key(plan.keys[1])
    assert whole.shape == (100, 3) and whole.flags["C_CONTIGUOUS"]
    for number, slice_ in enumerate(plan.keys[1].slices):
        memory.run((slice_,)).view("float32")[:] = number
    assert sorted(set(whole.reshape(-1).tolist())) == [0, 1, 2, 3, 4]
    memory.key(plan.keys[0])[:] = 7
    assert (memory.run(plan.buckets[0].slices)[:12].view("float32") == 7).all()


def test_two_tasks_of_a_host_see_the_same_bytes(open_memory):
    plan = plan_of((3,), (100, 3))
    sender, server = open_memory(1), open_memory(2)
    sent = Memory(sender.area(5, 1)).key(plan.keys[1])
    sent[:] = np.arange(300).reshape(100, 3)
    seen = Memory(server.area(5, 1))
    assert (seen.key(plan.keys[1]) == sent).all()
    assert not Memory(server.area(5, 2)).key(plan.keys[1]).any()  # another member
    assert not Memory(server.area(6, 1)).key(plan.keys[1]).any()  # another store
    assert not Memory(server.area(5, VALUES)).key(plan.keys[1]).any()


def test_where_nothing_is_shared_the_two_ends_are_apart():
    plan = plan_of((3,))
    outgoing, incoming = staging(None, 0)
    outgoing.key(plan.keys[0])[:] = 1
    assert not incoming.key(plan.keys[0]).any()


def test_a_key_without_elements_has_a_place(open_memory):
    plan = plan_of((0,), (2, 0))
    memory = Memory(open_memory(1).area(0, 1))
    assert [memory.key(key).shape for key in plan.keys] == [(0,), (2, 0)]


def test_what_is_discarded_is_given_back_when_nothing_refers_to_it(open_memory, path):
    plan = plan_of((3,), (500_000,), (400_000,))
    host = open_memory(1)
    memory = Memory(host.area(5, 1))
    first, *big = [memory.key(key) for key in plan.keys]
    before = os.stat(path).st_blocks
    memory.discard(keep={plan.keys[2].slices[0].bucket.region.start})
    del memory, big[1]
    assert os.stat(path).st_blocks == before
    first[:] = 7
    del first
    view = big.pop()[5:]
    assert os.stat(path).st_blocks >= before - 128  # the page of the first bucket
    del view
    assert 3_000 < os.stat(path).st_blocks < before - 3_900


def test_an_area_lives_as_long_as_anything_of_it_is_mapped(open_memory):
    plan, memory = plan_of((3,), (1000,)), Memory(open_memory(1).area(5, 1))
    ends = []
    weakref.finalize(memory.area, ends.append, "end")
    view = memory.key(plan.keys[1])[7:]
    del memory
    assert not ends
    del view
    assert ends


def test_memory_that_cannot_be_had_is_an_error_with_a_remedy(open_memory, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match="fewer workers"):
        Memory(open_memory(1).area(0, 1)).key(plan_of((3,)).keys[0])


def test_it_has_no_name_in_dev_shm(open_memory):
    memory = Memory(open_memory(1).area(0, 1))
    memory.key(plan_of((1000, 1000)).keys[0])[:] = 1
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if "memfd:" in line or "/dev/shm" in line]
    assert mapped and not any("/dev/shm" in line for line in mapped)


def test_more_than_a_host_has_left_is_not_taken(open_memory, path, tmp_path, monkeypatch):
    """Whatever a task declares, or the kernel would look for something to kill."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable: 1024 kB\nSwapFree: 1024 kB\n")
    monkeypatch.setattr("baryon.ps.memory._MEMINFO", str(meminfo))
    area = open_memory(1).area(0, 1)
    with pytest.raises(UsageError, match="this host has no 262144 MiB of memory left"):
        area.map(0, 1 << 38)
    assert os.stat(path).st_blocks == 0
    assert area.map(0, 1 << 20).nbytes == 1 << 20
