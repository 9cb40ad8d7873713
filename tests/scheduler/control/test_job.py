"""Which task runs where, and that a job survives its way through JSON."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.ps import UsageError
from baryon.scheduler.control import Host, Job, Task, place


def hosts(*slots):
    return tuple(Host(f"h{index}", count) for index, count in enumerate(slots))


def where(tasks, role):
    return [(task.rank, task.host, task.local_rank) for task in tasks if task.role == role]


def test_workers_fill_the_slots_in_the_order_of_hosts():
    tasks = place(hosts(2, 1, 3), num_workers=5, num_servers=1)
    assert where(tasks, "worker") == [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 2, 0), (4, 2, 1)]


def test_servers_are_spread_over_the_hosts():
    tasks = place(hosts(1, 1, 1), num_workers=3, num_servers=5)
    assert where(tasks, "server") == [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 0, 1), (4, 1, 1)]


def test_servers_stay_on_hosts_that_have_a_worker():
    tasks = place(hosts(2, 2, 2, 2), num_workers=3, num_servers=4)
    assert {task.host for task in tasks} == {0, 1}


def test_unless_told_otherwise_there_is_one_server_on_each_host_with_a_worker():
    tasks = place(hosts(2, 2, 2, 2), num_workers=5, num_servers=None, shares_memory=False)
    assert where(tasks, "server") == [(0, 0, 0), (1, 1, 0), (2, 2, 0)]


def test_too_few_slots_are_an_error_with_the_numbers():
    with pytest.raises(UsageError, match=r"5 workers do not fit into the 4 slots of 2 hosts"):
        place(hosts(3, 1), num_workers=5, num_servers=1)


@given(
    slots=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    num_servers=st.integers(1, 9),
    data=st.data(),
)
def test_every_task_has_a_place_of_its_own(slots, num_servers, data):
    num_workers = data.draw(st.integers(1, sum(slots)))
    tasks = place(hosts(*slots), num_workers, num_servers, shares_memory=False)
    for role, count in (("worker", num_workers), ("server", num_servers)):
        placed = where(tasks, role)
        assert [rank for rank, _, _ in placed] == list(range(count))
        assert len({(host, local) for _, host, local in placed}) == count
    on = [task.host for task in tasks if task.role == "worker"]
    assert on == sorted(on)
    assert all(on.count(host) <= slots[host] for host in on)
    used = set(on)
    servers = [task.host for task in tasks if task.role == "server"]
    shares = [servers.count(host) for host in used]
    assert sum(shares) == num_servers
    assert max(shares) - min(shares) <= 1


def test_a_task_has_a_name_for_people_and_one_for_files():
    task = Task("worker", 12, 3, 1)
    assert (task.name, task.slug) == ("worker 12", "worker-12")


def test_a_job_counts_its_tasks(make_job):
    job = make_job(num_workers=3, num_servers=2)
    assert job.num_workers == 3
    assert [task.slug for task in job.of_role("server")] == ["server-0", "server-1"]


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(words=st.lists(TEXT), env=st.dictionaries(TEXT, TEXT), kvstore=st.none() | TEXT)
def test_a_job_survives_json(make_job, words, env, kvstore):
    job = make_job(
        3, 2, 2, command=tuple(words), env=env, env_worker=env, kvstore=kvstore, timeout_s=1.5
    )
    assert msgspec.json.decode(msgspec.json.encode(job), type=Job) == job


def test_a_job_does_not_change(make_job):
    with pytest.raises(AttributeError):
        make_job().port = 1
