"""Where MXNet is not installed, all but worker/mxnet works, a server that sums included."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import queue, sys, threading

import baryon.launcher, baryon.launcher.command, baryon.ps, baryon.scheduler, baryon.worker
import baryon.scheduler.agent, baryon.scheduler.server_task, baryon.worker.session
import numpy as np, zmq
from baryon.ps import Child, Client, Operation, Reactor, Server, ServerAddress, new_key_pair
from baryon.ps import Open, UsageError
from baryon.ps.updater import load_updater

LIMIT_S = 30


class Asked(Operation):
    def done(self, error):
        self.ends.put(error)


def ask(store, kind, key):
    asked = Asked(kind, key, want_value=True)
    asked.ends = queue.Queue()
    store.announce(asked)
    store.ready(asked)
    return asked


def wait(asked):
    error = asked.ends.get(timeout=LIMIT_S)
    assert error is None, error


try:
    import mxnet
except ImportError:
    pass
else:
    sys.exit("there is an mxnet")

reactor, context = Reactor(), zmq.Context()
server_keys, keys = new_key_pair(), [new_key_pair(), new_key_pair()]
server = Server(
    reactor, context, index=0, num_owners=1, keys=server_keys, address="127.0.0.1",
    children=[Child(pair.public, f"worker {n}", (n,)) for n, pair in enumerate(keys)],
    timeout_s=LIMIT_S, on_fault=print,
)
server.serve()
address = ServerAddress(server.endpoint, server_keys.public)
clients = [
    Client(reactor, context, name=f"worker {n}", keys=pair, servers=[address], num_owners=1,
           timeout_s=LIMIT_S, silence_s=LIMIT_S, on_fault=print)
    for n, pair in enumerate(keys)
]
loop = threading.Thread(target=reactor.run)
loop.start()
stores = [client.open(Open(0, "sync")) for client in clients]
for dtype in ("float32", "bfloat16"):
    declared = [store.declare(dtype, (3, 2), dtype) for store in stores]
    places = [store.outgoing(key) for store, key in zip(stores, declared)]
    one = 0x3F80 if dtype == "bfloat16" else 1
    places[0][:] = 0
    wait(ask(stores[0], "init", declared[0]))
    for place in places:
        place[:] = one
    for asked in [ask(store, "push", key) for store, key in zip(stores, declared)]:
        wait(asked)
    for place, store, key in zip(places, stores, declared):
        wait(ask(store, "pull", key))
        print(dtype, store.outgoing(key).ravel().tolist())
try:
    load_updater("mxnet", b"", False)
except UsageError as error:
    print(error)
reactor.stop()
loop.join(LIMIT_S)
for closed in (*clients, server):
    closed.close()
context.destroy(linger=0)
reactor.close()
print([name for name in sys.modules if name.startswith("baryon.worker.mxnet")])
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that has every library of this one but MXNet."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    (there,) = tmp_path.glob("venv/lib/python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(("mxnet", "baryon", "__")):
            (there / entry.name).symlink_to(entry)
    (there / "baryon").symlink_to(ROOT / "baryon")
    return tmp_path / "venv" / "bin" / "python"


def test_servers_sum_where_there_is_no_mxnet(python: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [python, "-I", "-W", "error", "-c", SCRIPT],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    out = ended.stdout.decode()
    assert ended.returncode == 0, out
    lines = out.splitlines()
    assert lines[:2] == ["float32 [2.0, 2.0, 2.0, 2.0, 2.0, 2.0]"] * 2
    assert lines[2:4] == [f"bfloat16 {[0x4000] * 6}"] * 2
    assert "needs mxnet on the servers" in lines[4] and "No module named 'mxnet'" in lines[4]
    assert sys.prefix not in lines[4]  # it names the interpreter where it is to be installed
