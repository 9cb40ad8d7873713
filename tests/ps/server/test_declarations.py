"""What children declare, and worker 0's settings, as a store counts them. Pure."""

import pytest

from baryon.ps import ProtocolError, UsageError
from baryon.ps.plan import Plan
from baryon.ps.server.declarations import Declarations
from baryon.ps.server.settings import Settings
from baryon.ps.wire import KeySpec

A, B, C = (KeySpec(name, (2, 3), "float32") for name in "abc")


@pytest.fixture
def plan():
    return Plan(1)


@pytest.fixture
def declarations(plan):
    return Declarations(plan, (0, 1), ["worker 0", "worker 1", "worker 2"])


def test_only_the_first_to_declare_a_key_makes_it_new(declarations, plan):
    assert [key.name for key in declarations.declare(1, 0, (A, B))] == ["a", "b"]
    assert declarations.declare(0, 0, (A,)) == []
    assert [key.name for key in declarations.declare(0, 1, (B, C))] == ["c"]
    assert declarations.declare(1, 0, (A, B, C)) == []  # it repeats two, and adds one
    assert [key.name for key in plan.keys] == ["a", "b", "c"]


def test_a_key_is_used_by_those_who_have_declared_it(declarations, plan):
    (key,) = declarations.declare(1, 0, (A,))
    declarations.check_key(1, key)
    for child in (0, 2):
        with pytest.raises(ProtocolError, match=f"worker {child} has not declared Key"):
            declarations.check_key(child, key)
    with pytest.raises(ProtocolError, match="worker 2 has no part"):
        declarations.check_child(2)
    with pytest.raises(ProtocolError, match="worker 2 declared its key number 0 after number None"):
        declarations.declare(2, 0, (A,))


@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        ((B,), UsageError, "key number 0 is 'a' .* on worker 0 and 'b' .* on worker 1"),
        ((KeySpec("a", (3, 2), "float32"),), UsageError, "key 'a' is .* all workers must build"),
        ((A, KeySpec("b", (1,), "object")), ProtocolError, "an impossible key: .*dtype object"),
        ((A, B, B), ProtocolError, "worker 1 declared a key twice"),
    ],
)
def test_what_is_refused_changes_nothing(declarations, plan, keys, error, says):
    declarations.declare(0, 0, (A,))
    with pytest.raises(error, match=says):
        declarations.declare(1, 0, keys)
    assert [key.name for key in plan.keys] == ["a"]
    with pytest.raises(ProtocolError, match="has not declared"):
        declarations.check_key(1, plan.keys[0])


def test_keys_leave_no_gap_and_are_repeated_alike(declarations):
    declarations.declare(0, 0, (A, B))
    with pytest.raises(ProtocolError, match="worker 0 declared its key number 3 after number 2"):
        declarations.declare(0, 3, (C,))
    with pytest.raises(ProtocolError, match="number 0 after number 2, and not as it had before"):
        declarations.declare(0, 0, (C,))


def test_settings_are_counted_and_repeats_known():
    settings = Settings()
    assert settings.is_new(1) and not settings.is_new(1) and settings.is_new(2)
    assert not settings.is_new(1) and settings.last == 2
    for serial in (0, -1, 4):
        with pytest.raises(ProtocolError, match=f"setting number {serial} came after number 2"):
            settings.is_new(serial)
    assert settings.last == 2


def test_versions_come_one_by_one_and_only_worker_0_names_them():
    settings = Settings()
    settings.next_version(1, 0)
    for version, oldest in ((1, 0), (3, 0), (2, 3), (2, -1)):
        with pytest.raises(ProtocolError, match=f"version {version} of the hyper-parameters"):
            settings.next_version(version, oldest)
    settings.check_version("worker 1", False, None)
    settings.check_version("worker 0", True, 1)
    for name, is_first, version in (("worker 1", False, 1), ("worker 0", True, 2)):
        with pytest.raises(ProtocolError, match=f"{name} named version {version} .* last one is 1"):
            settings.check_version(name, is_first, version)
