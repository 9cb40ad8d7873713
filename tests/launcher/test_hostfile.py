"""Host files: what a line may say, and that every fault is found with its place."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baryon.launcher.hostfile import HostLine, parse_host_list, parse_hosts
from baryon.ps import UsageError


def faults(text, parse=lambda text: parse_hosts(text, "hosts")):
    with pytest.raises(UsageError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def names(text):
    return [host.name for host in parse_hosts(text, "hosts")]


def test_one_host_a_line_in_their_order():
    assert parse_hosts("c\na\nb\n", "hosts") == (HostLine("c"), HostLine("a"), HostLine("b"))


def test_blank_lines_and_comments_are_ignored():
    text = "\n  # all\n\na  # the first\n#b\n   \nc slots=2#two\r\n"
    assert parse_hosts(text, "hosts") == (HostLine("a"), HostLine("c", 2))


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("a slots=4", HostLine("a", 4)),
        ("a\tslots=012\r", HostLine("a", 12)),
        ("ada@a", HostLine("a", user="ada")),
        ("ada@corp@a", HostLine("a", user="ada@corp")),
        ("CORP\\ada@a", HostLine("a", user="CORP\\ada")),
        ("a:2222", HostLine("a", port=2222)),
        ("a:2", HostLine("a", port=2)),
        ("ada@10.0.0.1:22 slots=2", HostLine("10.0.0.1", 2, "ada", 22)),
        ("fd77::11", HostLine("fd77::11")),
        ("fd77::11:22", HostLine("fd77::11:22")),
        ("ada@[fd77::11]", HostLine("fd77::11", user="ada")),
        ("[fd77::11]:22", HostLine("fd77::11", port=22)),
        ("fe80::1%eth0", HostLine("fe80::1%eth0")),
        ("::1", HostLine("::1")),
        ("node-1.example_x.org.", HostLine("node-1.example_x.org.")),
        ("xn--knoten-5wa", HostLine("xn--knoten-5wa")),
        ("1e100", HostLine("1e100")),
        ("a gpus=0,01 slots=3", HostLine("a", 3, gpus=("0", "1"))),
        ("a gpus=GPU-8f4a-11,MIG-2b", HostLine("a", gpus=("GPU-8f4a-11", "MIG-2b"))),
    ],
)
def test_what_a_line_may_say(line, host):
    assert parse_hosts(line, "hosts") == (host,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n[1-3]", "n1 n2 n3"),
        ("n[1-3,7]", "n1 n2 n3 n7"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[98-101]", "n98 n99 n100 n101"),
        ("n[098-101]x", "n098x n099x n100x n101x"),
        ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
        ("[1-2].lan", "1.lan 2.lan"),
        ("10.0.0.[9-10]", "10.0.0.9 10.0.0.10"),
        ("n[0]", "n0"),
    ],
)
def test_ranges(text, expected):
    assert names(text) == expected.split()


def test_what_follows_a_range_holds_for_each_of_its_hosts():
    assert parse_hosts("ada@n[1-2]:2222 slots=2 gpus=0,1", "hosts") == (
        HostLine("n1", 2, "ada", 2222, ("0", "1")),
        HostLine("n2", 2, "ada", 2222, ("0", "1")),
    )


def test_a_host_twice_is_one_host():
    text = "a\nb slots=2\na\nb slots=3\nc gpus=0,1\nc gpus=4\nd\nd gpus=0,1,2\n"
    assert parse_hosts(text, "hosts") == (
        HostLine("a", 2),
        HostLine("b", 5),
        HostLine("c", 3, gpus=("0", "1", "4")),
        HostLine("d", 4, gpus=("0", "1", "2")),
    )


def test_another_user_or_port_is_another_host():
    assert len(parse_hosts("a\nada@a\na:22\nada@a:22\n", "hosts")) == 4


def test_at_most_ten_thousand_hosts():
    assert len(parse_hosts("n[0-9][0-9][0-9][0-9]", "hosts")) == 10_000
    (fault,) = faults("n[0-9][0-9][0-9][0-9]\none")
    assert fault == "hosts:2:1: with 'one' there are more than 10000 hosts; name fewer"
    (fault,) = faults("n" + "[000000000-999999999]" * 50)
    assert "more than 10000 hosts" in fault


@pytest.mark.parametrize("text", ["", "\n\n", "# nobody\n", "\r\n"])
def test_a_file_without_a_host_is_a_fault(text):
    assert faults(text) == ["hosts: no host is listed; write one name a line"]


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("n[5-3]", "the range 5-3 in [5-3] runs backwards; write 3-5"),
        ("n[a-b]", "is no range of numbers"),
        ("n[]", "is no range of numbers"),
        ("n[1,]", "is no range of numbers"),
        ("n[1-2-3]", "is no range of numbers"),
        ("n[1-9999999999]", "is no range of numbers"),
        ("n[²-³]", "is no range of numbers"),
        ("n[1-3", "has no partner"),
        ("n1-3]", "has no partner"),
        ("n[[1-3]]", "has no partner"),
        ("n:", "port of 'n:' must be"),
        ("n:0", "must be a number from 1 to 65535"),
        ("n:65536", "must be a number from 1 to 65535"),
        ("n:ssh", "must be a number from 1 to 65535"),
        ("n:٣", "must be a number from 1 to 65535"),
        ("[fd77::1]:x", "[address]:port"),
        ("@n", "the user before the @ of '@n' is missing"),
        ("ada:secret@n", "cannot be a user name"),
        ("-oProxyCommand=x@n", "cannot be a user name"),
        ("ada@", "the host's name is missing"),
        (":22", "the host's name is missing"),
        ("-oProxyCommand=x", "must not begin with a -"),
        ("ada@-x", "must not begin with a -"),
        ("knoten-ä", "is not ASCII; write its xn-- form"),
        ("10.0.0.256", "is no IPv4 address"),
        ("10.0.0.01", "is no IPv4 address"),
        ("4", "is no IPv4 address"),
        ("fd::77::1", "is no IPv6 address"),
        ("a:b:c", "is no IPv6 address"),
        ("[fd77::1", "is no IPv6 address"),
        ("fd77::1%", "names no network interface"),
        ("a,b", "one host a line"),
        ("a..b", "cannot be a host name"),
        ("a-", "cannot be a host name"),
        ("a;b", "cannot be a host name"),
        ("a" * 64, "at most 63"),
        (".".join(["a" * 60] * 5), "cannot be a host name"),
    ],
)
def test_what_is_no_host(word, part):
    (fault,) = faults(f"fine\n  {word} slots=1\n")
    assert fault.startswith("hosts:2:3: ")
    assert part in fault


@pytest.mark.parametrize(
    "value", ["0", "-1", "two", "1.5", "", "+1", "²", "1_0", "99999", "9" * 999]
)
def test_slots_must_be_a_number_from_1_on(value):
    (fault,) = faults(f"a\nb slots={value}\n")
    assert fault.startswith("hosts:2:3: slots must be a number from 1 on")


@pytest.mark.parametrize("word", ["4", "slots", "cpu=4", "Slots=4", "node2", "=", "max_slots=2"])
def test_nothing_else_may_follow_a_name(word):
    (fault,) = faults(f"a {word}")
    assert fault.startswith(f"hosts:1:3: {word!r} is not understood; only slots=N and gpus=0,1")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a gpus=", "hosts:1:3: '' is no GPU"),
        ("a gpus=0,", "hosts:1:3: '' is no GPU"),
        ("a gpus=all", "hosts:1:3: 'all' is no GPU"),
        ("a gpus=0,00", "hosts:1:3: GPU 0 is there twice"),
        ("a gpus=0 gpus=1", "hosts:1:10: gpus= is there twice"),
        ("a slots=1 slots=1", "hosts:1:11: slots= is there twice"),
        ("a gpus=0\na slots=2 gpus=1,0", "hosts:2:11: a has GPU 0 already"),
    ],
)
def test_gpus_and_settings_are_named_once(text, fault):
    (found,) = faults(text)
    assert found.startswith(fault)


def test_all_faults_are_told_each_with_its_place():
    text = "a x=1\nb\n# c\n@-b:0 slots=0 y\n"
    assert [fault.partition(": ")[0] for fault in faults(text)] == [
        "hosts:1:3",
        "hosts:4:1",
        "hosts:4:1",
        "hosts:4:1",
        "hosts:4:7",
        "hosts:4:15",
    ]


def test_the_column_is_that_of_the_wrong_word_and_not_of_one_like_it():
    (fault,) = faults("node10 node1")
    assert fault.startswith("hosts:1:8: ")


# -- a comma list ------------------------------------------------------------------------------


def test_a_list_names_hosts_between_commas():
    assert parse_host_list("a, ada@b:2222,n[1-2,4],[fd77::1]:22,a") == (
        HostLine("a", 2),
        HostLine("b", None, "ada", 2222),
        HostLine("n1"),
        HostLine("n2"),
        HostLine("n4"),
        HostLine("fd77::1", None, None, 22),
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "-H, column 1: a name is missing beside a comma"),
        ("a,,b", "-H, column 3: a name is missing beside a comma"),
        ("a,", "-H, column 3: a name is missing beside a comma"),
        ("a,b slots=2", "-H, column 5: 'slots=2' is not understood; put a comma"),
        ("a,n[1-3,b", "-H, column 3: a bracket of 'n[1-3' has no partner"),
    ],
)
def test_what_is_no_list(text, fault):
    assert faults(text, parse_host_list)[0].startswith(fault)


# -- any text ----------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [*"ab-.:,@[]%#=019²٣ä \t\r\n\x0c\x00", " slots=", " gpus=", "::", "[1-", "n[08-10]", "GPU-"]
)


@given(text=st.lists(PIECES, max_size=30).map("".join))
def test_no_text_does_worse_than_a_usage_error(text):
    for parse in (lambda text: parse_hosts(text, "hosts"), parse_host_list):
        try:
            hosts = parse(text)
        except UsageError as error:
            assert str(error)
            continue
        assert 0 < len(hosts) == len({(host.user, host.name, host.port) for host in hosts})
        for host in hosts:
            assert host.slots is None or host.slots >= 1
            assert host.port is None or 0 < host.port < 65536
            assert len(set(host.gpus)) == len(host.gpus)
            if ":" in host.name:
                assert ipaddress.IPv6Address(host.name.partition("%")[0])
            else:
                assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", host.name)


@given(
    first=st.integers(0, 2000),
    count=st.integers(1, 200),
    width=st.integers(0, 6),
    tail=st.sampled_from(["", "-x", ".lan"]),
)
def test_a_range_is_its_numbers_in_order(first, count, width, tail):
    low = str(first).zfill(width)
    high = str(first + count - 1)
    found = names(f"n[{low}-{high}]{tail}")
    assert [int(re.sub(r"\D", "", name)) for name in found] == list(range(first, first + count))
    assert found[0] == f"n{low}{tail}"
    assert found[-1] == f"n{high.zfill(len(low) if low[0] == '0' else 0)}{tail}"


@given(
    good=st.lists(st.sampled_from(["a", "n[1-2]", "slots", "# x", ""]), max_size=4),
    indent=st.integers(0, 5),
    gap=st.integers(1, 5),
)
def test_places_point_at_the_word(good, indent, gap):
    line = " " * indent + "good" + " " * gap + "slots=x"
    (fault,) = faults("\n".join([*good, line]))
    assert fault.startswith(f"hosts:{len(good) + 1}:{indent + 4 + gap + 1}: ")
