"""From what runs report to the figures that are claimed."""

import pytest

from benchmarks.memory import Sweep, used
from benchmarks.report import Case, Figure, Stats, grid_of
from benchmarks.systems import Run, RunFailed
from benchmarks.train import images_per_s


def run_of(*reports):
    return Run(list(reports), 0.0, [0] * len(reports))


@pytest.mark.parametrize(
    ("figure", "ratios"),
    [
        (Figure(), {"native": [0.5, 0.25]}),  # ours / it
        (Figure(base="baryon"), {"native": [2.0, 4.0]}),  # it / base
        (Figure(base="alone"), {}),
    ],
)
def test_ratios_are_taken_round_by_round(figure, ratios) -> None:
    values = {"baryon": [1.0, 2.0], "native": [2.0, 8.0]}
    assert {name: stats.values for name, stats in figure.ratios(values).items()} == ratios


def test_a_table_is_markdown() -> None:
    values = {"baryon": Stats.of([1.0]), "native": Stats.of([2.0])}
    case = Case("-n 2", {}, values, {"native": Stats.of([0.5])})
    assert grid_of("Time", [case]).markdown().splitlines() == [
        "**Time**",
        "",
        "| case | system | median s | min s | max s | ours / it (min-max) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| -n 2 | baryon | 1 | 1 | 1 |  |",
        "| -n 2 | native | 2 | 2 | 2 | 0.50 (0.50-0.50) |",
    ]


def timed(began_at_s, ended_at_s):
    return {"images": 100, "began_at_s": began_at_s, "ended_at_s": ended_at_s}


def test_speed_is_the_mean_of_workers_that_trained_at_the_same_time() -> None:
    assert images_per_s("native", run_of(timed(0, 10), timed(0, 8))) == pytest.approx(11.25)
    with pytest.raises(RunFailed, match="overlap by 50% only"):
        images_per_s("native", run_of(timed(0, 10), timed(0, 5)))


def test_memory_is_counted_from_the_first_key_on_and_without_momentum() -> None:
    def sweep(at_s, server, *workers):
        pss = {1: server, **dict(enumerate(workers, 2))}
        return Sweep(at_s, {pid: {"Pss": value} for pid, value in pss.items()}, [1])

    sweeps = [
        sweep(0, 900, 0, 0),
        sweep(1, 50, 300, 300),
        sweep(3, 350, 300, 400),
        sweep(4, 250, 350, 300),
        sweep(9, 999, 999, 999),  # after the work
    ]
    reports = [{"pid": pid, "nbytes": 100, "first_key_at_s": 2, "ended_at_s": 5} for pid in (2, 3)]
    figures, processes = used(run_of(*reports), sweeps)
    assert figures == {"server": 2.0, "worker": 0.75, "job": 3.0}
    assert [process["role"] for process in processes] == ["server", "worker", "worker"]
