"""From what runs report to the figures that are claimed."""

from benchmarks.memory import Sweep, used
from benchmarks.systems import Run


def run_of(*reports):
    return Run(list(reports), 0.0, [0] * len(reports))


def test_memory_is_counted_from_the_first_key_on_and_without_momentum() -> None:
    def sweep(at_s, server, *workers):
        pss = {1: server, **dict(enumerate(workers, 2))}
        return Sweep(
            at_s,
            {pid: {"Pss_Anon": value - 20, "Pss_Shmem": 20} for pid, value in pss.items()},
            [1],
        )

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
