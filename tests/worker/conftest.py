"""For the tests of data: a server on loopback that speaks S3's protocol, and files of records."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest

from tests.waiting import wait_until


class S3Server(NamedTuple):
    """``endpoint`` is its URL; ``log`` has a line for each request."""

    endpoint: str
    log: Path

    def count(self, request: str) -> int:
        """How often it got ``request``, as ``GET /bucket/key``."""
        return self.log.read_text().count(f"{request} HTTP")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """moto's server, in a process of its own: data loaders fork this one."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        listening = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")
        wait_until(
            lambda: listening.search(log.read_text()) or server.poll() is not None, "moto's server"
        )
        found = listening.search(log.read_text())
        assert found, log.read_text()
        yield S3Server(found[1], log)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_options(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    """fsspec's options for it; nothing of this machine's own settings gets in."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return {"endpoint_url": s3_server.endpoint, "key": "none", "secret": "none"}


@pytest.fixture
def write_records(tmp_path: Path) -> Callable[[List[bytes]], Path]:
    """``write_records(records)`` has MXNet write data.rec and data.idx; the keys are 0, 10, ..."""
    import mxnet as mx

    def write(records: List[bytes]) -> Path:
        rec = tmp_path / "data.rec"
        writer = mx.recordio.MXIndexedRecordIO(str(rec.with_suffix(".idx")), str(rec), "w")
        for number, record in enumerate(records):
            writer.write_idx(10 * number, record)
        writer.close()
        return rec

    return write
