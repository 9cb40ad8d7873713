"""Host files: what a line may say, and that every fault is found with its place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.launcher.hostfile import HostLine, parse_hosts
from baryon.ps import UsageError


def faults(text):
    with pytest.raises(UsageError) as caught:
        parse_hosts(text, "hosts")
    return str(caught.value).splitlines()


def test_one_host_a_line_in_their_order():
    assert parse_hosts("c\na\nb\n", "hosts") == (
        HostLine("c", None),
        HostLine("a", None),
        HostLine("b", None),
    )


def test_slots_may_follow_a_name():
    assert parse_hosts("a slots=4\nb\tslots=12\n", "hosts") == (
        HostLine("a", 4),
        HostLine("b", 12),
    )


def test_blank_lines_and_comments_are_ignored():
    text = "\n  # all\n\na  # the first\n#b\n   \nc slots=2#two\r\n"
    assert parse_hosts(text, "hosts") == (HostLine("a", None), HostLine("c", 2))


@pytest.mark.parametrize("name", ["node-1.example.org", "10.0.0.1", "user@node", "::1", "knoten-ä"])
def test_names_are_kept_as_they_are(name):
    assert parse_hosts(f"{name} slots=2", "hosts") == (HostLine(name, 2),)


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n"])
def test_a_file_without_a_host_is_a_fault(text):
    assert faults(text) == ["hosts: no host is listed; write one name a line"]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "", "+1", "²", "1_0"])
def test_slots_must_be_a_number_from_1_on(value):
    assert faults(f"a\nb slots={value}\n") == [
        f"hosts:2:3: slots must be a number from 1 on, not {value!r}"
    ]


@pytest.mark.parametrize("word", ["4", "slots", "cpu=4", "Slots=4", "node2"])
def test_nothing_else_may_follow_a_name(word):
    assert faults(f"a {word}") == [
        f"hosts:1:3: {word!r} is not understood; only slots=N may follow a host"
    ]


def test_a_host_must_not_be_listed_twice():
    assert faults("a\nb\na slots=2") == ["hosts:3:1: host 'a' is listed twice; use slots=N"]


def test_all_faults_are_told_each_with_its_place():
    assert [fault.partition(": ")[0] for fault in faults("a x=1\nb\n# c\nb slots=0 y\n")] == [
        "hosts:1:3",
        "hosts:4:3",
        "hosts:4:11",
        "hosts:4:1",
    ]


def test_the_column_is_that_of_the_wrong_word_and_not_of_one_like_it():
    (fault,) = faults("node10 node1")
    assert fault.startswith("hosts:1:8: ")


@given(text=st.text(alphabet=st.sampled_from("ab =\n#slots0123456789²٣\t\r\x0c"), max_size=60))
def test_no_text_does_worse_than_a_usage_error(text):
    try:
        hosts = parse_hosts(text, "hosts")
    except UsageError:
        return
    assert hosts
    assert len({host.name for host in hosts}) == len(hosts)
    assert all(host.slots is None or host.slots >= 1 for host in hosts)
