"""Who reports to whom."""

from hypothesis import given
from hypothesis import strategies as st

from baryon.scheduler import Host, Task, place
from baryon.scheduler.tree import Tree


def hosts(*slots):
    return tuple(Host(f"h{number}", count) for number, count in enumerate(slots))


def test_workers_of_one_host_report_to_the_owners():
    tasks = place(hosts(4), 4, 2)
    tree = Tree(tasks)
    assert [task.slug for task in tree.owners] == ["server-0", "server-1"]
    assert all(tree.parents(task) == tree.owners for task in tasks if task.role == "worker")


def test_a_host_with_several_workers_of_several_hosts_has_a_level_1_server():
    tasks = place(hosts(2, 1, 2), 5, None)
    tree = Tree(tasks)
    by_slug = {task.slug: task for task in tasks}
    assert [task.slug for task in tree.owners] == ["server-0", "server-1", "server-2"]
    assert (by_slug["server-3"].host, by_slug["server-4"].host) == (0, 2)
    assert [t.slug for t in tree.parents(by_slug["worker-0"])] == ["server-3"]
    assert [t.slug for t in tree.parents(by_slug["worker-2"])] == [
        "server-0",
        "server-1",
        "server-2",
    ]
    for owner in tree.owners:
        assert [t.slug for t in tree.children(owner)] == ["server-3", "worker-2", "server-4"]
    assert tree.workers_below(by_slug["server-4"]) == (3, 4)


def test_without_shared_memory_there_is_none():
    tasks = place(hosts(2, 2), 4, None, shares_memory=False)
    assert [task.slug for task in tasks if task.role == "server"] == ["server-0", "server-1"]


def test_a_third_level_is_a_matter_of_placement():
    """Two racks of two hosts with two workers each, a server in front of each rack."""
    owner, racks = Task("server", 0, 0, 0), [Task("server", 1 + r, 2 * r, 1, (0,)) for r in (0, 1)]
    level1 = [Task("server", 3 + h, h, 2, (1 + h // 2,)) for h in range(4)]
    workers = [Task("worker", w, w // 2, w % 2, (3 + w // 2,)) for w in range(8)]
    tree = Tree([owner, *racks, *level1, *workers])
    assert tree.children(owner) == racks
    assert tree.children(racks[1]) == level1[2:]
    assert tree.workers_below(racks[1]) == (4, 5, 6, 7)
    assert tree.workers_below(owner) == tuple(range(8))


@given(slots=st.lists(st.integers(1, 4), min_size=1, max_size=5), servers=st.integers(1, 6))
def test_every_owner_hears_of_every_worker_once(slots, servers):
    tasks = place(hosts(*slots), sum(slots), servers)
    tree = Tree(tasks)
    for owner in tree.owners:
        below = [rank for child in tree.children(owner) for rank in tree.workers_below(child)]
        assert sorted(below) == list(range(sum(slots)))
        assert below == sorted(below)  # so sums are added in the order of ranks
