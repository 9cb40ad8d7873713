"""How children agree on compression, and what they push then."""

import numpy as np
import pytest

from baryon.ps.compression import compression_of
from baryon.ps.errors import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.server.contributions import Contributions

NAMES = ["worker 0", "worker 1"]


def setting(**options):
    return compression_of({"type": "fp16", "min_size": 8, **options})


@pytest.fixture
def slices():
    plan = Plan(1)
    return [plan.add(name, (size,), "float32").slices[0] for name, size in [("w", 8), ("b", 7)]]


def test_what_is_pushed_is_decoded(slices):
    contributions = Contributions(NAMES)
    assert contributions.agree(0, setting())
    contributions.check(0)
    payload = np.arange(8, dtype="float16").view(np.uint8)
    decoded = contributions.decoded(0, slices[0], payload)
    assert decoded.view("float32").tolist() == list(range(8))
    assert decoded.flags.writeable  # it is the store's


def test_what_must_not_be_compressed_is_refused(slices):
    contributions = Contributions(NAMES)
    payload = np.zeros(16, np.uint8)
    with pytest.raises(ProtocolError, match="worker 0 compressed"):
        contributions.decoded(0, slices[0], payload)
    contributions.agree(0, setting())
    with pytest.raises(ProtocolError, match="worker 0 compressed"):
        contributions.decoded(0, slices[1], payload[:14])
    with pytest.raises(ProtocolError, match="15 bytes of fp16"):
        contributions.decoded(0, slices[0], payload[:15])


def test_the_same_in_other_words_is_no_difference():
    contributions = Contributions(NAMES)
    assert contributions.agree(0, compression_of({"type": "2bit"}))
    assert not contributions.agree(1, compression_of({"type": "2bit", "threshold": "0.5"}))
    assert not contributions.agree(0, compression_of({"type": "2bit", "answers": "no"}))


@pytest.mark.parametrize("other", [{"type": "bf16"}, {"min_size": 9}, {"answers": False}])
def test_a_difference_names_both_workers(other):
    contributions = Contributions(NAMES)
    contributions.agree(0, setting())
    with pytest.raises(UsageError, match=r"type=fp16, .* on worker 0 and .* on worker 1"):
        contributions.agree(1, setting(**other))


def test_who_has_not_said_so_may_not_push():
    contributions = Contributions(NAMES)
    contributions.agree(1, setting())
    with pytest.raises(UsageError, match="worker 1 compresses gradients and worker 0 does not"):
        contributions.check(0)


def test_it_is_too_late_after_a_push():
    contributions = Contributions(NAMES)
    contributions.pushed(0)
    with pytest.raises(UsageError, match=r"worker 1 set .* after worker 0 had pushed without"):
        contributions.agree(1, setting())
