"""Topology files: what they say, and what is said of their faults."""

import pytest

from baryon.launcher.topology import parse_topology
from baryon.ps import UsageError
from baryon.scheduler.control import Group

HOSTS = ["n1", "n2", "n3", "n4"]


def test_groups_hold_hosts_and_groups_in_any_order():
    text = "site: rack1 rack2  # one building\n\nrack1: n1 n2\nrack2: n[3-4]\n"
    assert parse_topology(text, "t", HOSTS) == (
        Group("site", ()),
        Group("rack1", (0, 1), 0),
        Group("rack2", (2, 3), 0),
    )


def test_hosts_may_be_in_no_group():
    assert parse_topology("far: n3", "t", HOSTS) == (Group("far", (2,)),)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "t: no group is listed"),
        ("n1 n2", "t:1: write a group as NAME: MEMBER"),
        ("a b: n1", "t:1: write a group as NAME: MEMBER"),
        (": n1", "t:1: write a group as NAME: MEMBER"),
        ("rack:", "t:1: group rack has no members"),
        ("n1: n2", "t:1: n1 is a host already"),
        ("a: n1\na: n2", "t:2: a is a group already"),
        ("a: n9", "t:1: n9 is neither a host of this job nor a group"),
        ("a: n1 n1", "t:1: n1 is in group a already"),
        ("a: n1\nb: n1", "t:2: n1 is in group a already"),
        ("a: b\nb: a n1", "t:1: group a contains itself: a in b in a"),
        ("a: a n1", "t:1: group a contains itself: a in a"),
        ("a: n[2-1]", "t:1: the range 2-1 in .* runs backwards"),
    ],
)
def test_faults_name_their_place_and_remedy(text, fault):
    with pytest.raises(UsageError, match=fault):
        parse_topology(text, "t", HOSTS)


def test_all_faults_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        parse_topology("a n1\nb: n9\nc: n1 n8\nn2: n1", "t", HOSTS)
    assert len(str(caught.value).splitlines()) == 4


def test_two_hosts_of_one_name_cannot_be_told_apart():
    with pytest.raises(UsageError, match="several hosts are called n1"):
        parse_topology("a: n1", "t", ["n1", "n1"])
