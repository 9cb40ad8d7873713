"""Endpoints over IPv4 and IPv6."""

import pytest
import zmq

from baryon.ps import bind_to, endpoint_of

from ..conftest import answered


@pytest.mark.parametrize(
    ("address", "port", "endpoint"),
    [
        ("10.0.0.2", 4711, "tcp://10.0.0.2:4711"),
        ("host-1", "*", "tcp://host-1:*"),
        ("fd77::11", 4711, "tcp://[fd77::11]:4711"),
        ("::1", "*", "tcp://[::1]:*"),
        ("fe80::1%eth0", 5, "tcp://[fe80::1%eth0]:5"),
    ],
)
def test_an_ipv6_address_is_put_in_brackets(address, port, endpoint):
    assert endpoint_of(address, port) == endpoint


def test_an_ipv4_endpoint_is_reported_as_one():
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        assert bind_to(socket, endpoint_of("127.0.0.1")).startswith("tcp://127.0.0.1:")


def test_a_round_over_ipv6(job):
    made = job(num_workers=2, address="::1")
    assert made.servers[0].endpoint.startswith("tcp://[::1]:")
    workers = [made.worker(0), made.worker(1)]
    for worker in workers:
        worker.key("weight", (3,))
    answered(*(worker.begin("push", "weight", 2.0, want_value=True) for worker in workers))
    assert all(worker.places["weight"].tolist() == [4.0] * 3 for worker in workers)
