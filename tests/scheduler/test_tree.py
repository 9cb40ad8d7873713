"""Who reports to whom."""

from hypothesis import given
from hypothesis import strategies as st

from baryon.scheduler.control import Group, Host, Task, place
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
    assert [tree.height(task) for task in (workers[0], level1[0], racks[0], owner)] == [0, 1, 2, 3]


def test_each_group_has_a_server_to_which_its_hosts_and_groups_report():
    """A site of two racks, and a host outside of it."""
    groups = (Group("site", ()), Group("rack1", (0, 1), 0), Group("rack2", (2,), 0))
    tasks = place(hosts(2, 1, 2, 1), 6, 1, groups=groups)
    tree = Tree(tasks)
    by_slug = {task.slug: task for task in tasks}
    parents = {slug: [p.slug for p in tree.parents(task)] for slug, task in by_slug.items()}
    site, rack1, rack2, level1 = "server-1", "server-2", "server-3", ["server-4", "server-5"]
    assert parents["worker-0"] == parents["worker-1"] == [level1[0]]
    assert parents["worker-2"] == parents[level1[0]] == [rack1]
    assert parents["worker-3"] == parents["worker-4"] == [level1[1]]
    assert parents[level1[1]] == [rack2]
    assert parents[rack1] == parents[rack2] == [site]
    assert parents[site] == parents["worker-5"] == ["server-0"]
    assert [by_slug[slug].host for slug in (site, rack1, rack2)] == [0, 0, 2]
    assert len({(task.host, task.local_rank) for task in tasks if task.role == "server"}) == 6


def test_groups_without_a_worker_have_no_server():
    tasks = place(hosts(1, 1, 1), 1, None, groups=(Group("a", (0,)), Group("b", (1, 2))))
    assert [task.slug for task in tasks] == ["server-0", "server-1", "worker-0"]


@given(slots=st.lists(st.integers(1, 4), min_size=1, max_size=5), servers=st.integers(1, 6))
def test_every_owner_hears_of_every_worker_once(slots, servers):
    tasks = place(hosts(*slots), sum(slots), servers)
    tree = Tree(tasks)
    for owner in tree.owners:
        below = [rank for child in tree.children(owner) for rank in tree.workers_below(child)]
        assert sorted(below) == list(range(sum(slots)))
        assert below == sorted(below)  # so sums are added in the order of ranks
