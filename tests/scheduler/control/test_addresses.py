"""The address by which others reach this machine."""

import json
import os
import subprocess
import sys

import pytest

from baryon.scheduler.control import own_address


def test_the_route_tells():
    assert own_address("127.0.0.5") == "127.0.0.1"
    assert own_address("localhost") in ("127.0.0.1", "::1")


def test_an_interface_that_is_named():
    assert own_address("nowhere.invalid", ["none0", "lo"]) == "127.0.0.1"


def test_interfaces_that_are_not_there_are_told_with_those_that_are():
    with pytest.raises(OSError, match=r"no interface none0, none1 with an address; there are .*lo"):
        own_address("127.0.0.1", ["none0", "none1"])


@pytest.mark.hosts
def test_networks_of_its_own():
    """Made for the test: two interfaces, IPv6 only on one of them, and no route elsewhere."""
    script = (
        "ip link set lo up; ip link add one type veth peer name two\n"
        "ip addr add 10.1.0.1/24 dev one; ip addr add fd01::1/64 dev two nodad\n"
        'ip link set one up; ip link set two up; exec "$0" -c "$1"'
    )
    code = (
        "import json; from baryon.scheduler.control import own_address as own\n"
        "def no_route():\n"
        "    try: own('10.9.0.1')\n"
        "    except OSError as error: return str(error)\n"
        "print(json.dumps([own('10.1.0.7'), own('fd01::7'), own('x', ['two']), no_route()]))"
    )
    out = subprocess.run(
        ["unshare", "-n", "sh", "-ec", script, sys.executable, code],
        stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONPATH": os.getcwd()},
    ).stdout  # fmt: skip
    no_route = "[Errno 101] Network is unreachable"
    assert json.loads(out) == ["10.1.0.1", "fd01::1", "fd01::1", no_route]
