"""A job whose control connections break again and again: everyone meets, and it ends well."""

import random
import threading

import msgspec
import pytest
import zmq

from baryon.ps import Reactor
from baryon.scheduler.control import ControlClient
from baryon.scheduler.control.credentials import Credentials
from tests.waiting import LIMIT_S

from ..proxy import Proxy
from .test_loop import play  # noqa: F401  (play is a fixture)

NUM_MEETINGS = 30


def meet(credentials, cuts, faults):
    """A worker, behind a proxy that cuts its connection."""
    proxy = Proxy(credentials.endpoint, cuts)
    credentials = msgspec.structs.replace(credentials, endpoint=proxy.endpoint)
    context, reactor = zmq.Context(), Reactor()
    thread = threading.Thread(target=reactor.run)
    control = ControlClient(reactor, context, credentials)
    thread.start()
    try:
        control.join()
        control.wait_for_roster()
        for number in range(NUM_MEETINGS):
            values = control.gather(f"call {number}", "barrier", b"%d" % number)
            assert values == tuple((rank, b"%d" % number) for rank in range(2))
        control.gone(0)
        assert control.settle(LIMIT_S)
        assert proxy.num_cuts
    except BaseException as error:
        faults.append(error)
    reactor.post(control.close)
    reactor.post(reactor.stop)
    thread.join()
    context.destroy(linger=0)
    proxy.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_job_goes_on_whatever_is_cut(play, seed, monkeypatch):  # noqa: F811
    monkeypatch.setattr("baryon.ps.transport.dialer._RETRY_S", 0.01)
    chance = random.Random(seed)
    faults = []

    def script(agent):
        workers = []
        for spec in agent.specs.values():
            credentials = msgspec.json.decode(spec.credentials, type=Credentials)
            cuts = [chance.randint(1, 3000) for _ in range(10)]
            workers.append(threading.Thread(target=meet, args=(credentials, cuts, faults)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for slug in agent.specs:
            agent.ends(slug, 1 if faults else 0)

    assert play(script, num_workers=2, timeout_s=LIMIT_S)[::2] == (0, "")
    assert faults == []
