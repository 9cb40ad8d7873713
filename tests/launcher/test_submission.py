"""What the modules of cluster managers share."""

import pytest

from baryon.launcher.clusters import submission
from baryon.launcher.flags import Options
from baryon.ps import PeerError, UsageError


@pytest.fixture
def routes(monkeypatch):
    """Which of this machine's addresses leads to a host: as its name says."""

    def own_address(toward, interfaces=()):
        if interfaces:
            raise OSError(f"no interface {interfaces[0]} with an address; there are lo (127.0.0.1)")
        if toward == "nowhere":
            raise OSError(-2, "Name or service not known")
        return {"here": "127.0.1.1", "there": "10.0.0.1"}[toward]

    monkeypatch.setattr(submission, "own_address", own_address)


def test_the_address_is_one_that_others_can_use(routes):
    assert submission.launch_address([], ["here", "nowhere", "there"]) == "10.0.0.1"
    assert submission.launch_address([], ["nowhere", "here"]) == "127.0.1.1", "nobody else is there"


@pytest.mark.parametrize(
    ("interfaces", "hosts", "why"),
    [
        ([], [], "no host is known"),
        ([], ["nowhere"], "nowhere: Name or service not known"),
        (["ib0"], ["there"], "no interface ib0 with an address"),
    ],
)
def test_no_address(routes, interfaces, hosts, why):
    with pytest.raises(
        PeerError, match=f"not reach this machine: {why}.*; name the network by --interface"
    ):
        submission.launch_address(interfaces, hosts)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("4:00:00", 14400),
        ("1-00:00:01", 86401),
        ("1h30m", 5400),
        ("2d", 172800),
        ("90", 90),
    ],
)
def test_time_limits(text, seconds):
    assert submission.time_limit(Options(time=text)) == seconds


@pytest.mark.parametrize("text", ["4:00", "", "1h30", "0", "soon"])
def test_times_that_are_none(text):
    with pytest.raises(UsageError, match="write it as 4:00:00, 90m, 4h or seconds"):
        submission.time_limit(Options(time=text))
