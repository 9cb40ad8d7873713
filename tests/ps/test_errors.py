"""Errors of ours that are a framework's as well."""

import pickle

import pytest

from baryon.ps import BaryonError, PeerError, UsageError, errors, raise_also_as


class ForeignError(RuntimeError):
    pass


class OwnError(UsageError):
    def __init__(self, text: str, place: int) -> None:
        super().__init__(text)
        self.place = place


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_foreign", None)
    monkeypatch.setattr(errors, "_made", {})
    raise_also_as(ForeignError)


def test_an_error_is_only_ours_without_a_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_foreign", None)
    assert type(UsageError("why")) is UsageError


@pytest.mark.parametrize("kind", [BaryonError, UsageError, PeerError])
def test_a_script_catches_it_as_either(foreign: None, kind: type) -> None:
    for caught in (kind, BaryonError, ForeignError):
        with pytest.raises(caught, match=r"^why$"):
            raise kind("why")
    error = kind("why")
    assert type(error) is type(kind("again"))
    assert repr(error) == f"{kind.__name__}('why')"
    assert f"{type(error).__module__}.{type(error).__name__}" == f"baryon.ps.errors.{kind.__name__}"


def test_a_subclass_keeps_what_it_adds(foreign: None) -> None:
    error = OwnError("why", place=3)
    assert isinstance(error, ForeignError)
    assert (str(error), error.place) == ("why", 3)


def test_it_can_be_pickled(foreign: None) -> None:
    error = UsageError("why")
    error.rank = 1  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, UsageError) and isinstance(again, ForeignError)
    assert (again.args, again.rank) == (("why",), 1)
