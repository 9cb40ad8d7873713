"""Flags that the launcher in use does not heed: never in silence."""

import pytest

from baryon.launcher import main
from baryon.launcher.options import parse
from baryon.launcher.parsers import flag_parser


@pytest.fixture
def notes(folder):
    return lambda *argv: list(parse([str(word) for word in argv])[1].notes)


@pytest.mark.parametrize("launcher", ["local", "ssh", "mpi"])
def test_a_managers_flags_are_noted(notes, launcher):
    flags = ["-H", "a,", "--time", "1:00", "--mem", "4G", "--queue", "q", "--gpus-per-worker", 2]
    assert notes("-n", 1, "--launcher", launcher, *flags, "train.py") == [
        f"--queue, --time, --mem have no effect with --launcher {launcher}",
        f"--gpus-per-worker only sets --devices with --launcher {launcher}",
    ]


def test_without_a_launcher_one_was_forgotten(faults):
    flags = ["--time", "1:00", "--mem", "4G", "--queue", "q", "--gpus-per-worker", 2]
    assert faults("-n", 1, *flags, "train.py") == [
        "--queue, --time, --mem, --gpus-per-worker: of no use with local; name the cluster "
        "manager: --launcher slurm or sge or kubernetes or yarn"
    ]
    assert faults("-n", 1, "-H", "a,", "--pe", "smp", "train.py") == [
        "--pe: of no use with ssh; name the cluster manager: --launcher sge"
    ]


@pytest.mark.parametrize(
    ("argv", "note"),
    [
        (
            ["--sync-dst-dir", "x", "--setup", "y", "--accept-new-host-keys"],
            "--sync-dst-dir, --setup, --accept-new-host-keys have no effect with --launcher local: "
            "tasks run here; did you mean -H HOSTS?",
        ),
        (
            ["--launcher", "local", "--interface", "ib0"],
            "--interface has no effect with --launcher local",
        ),
        (
            ["--launcher", "yarn", "--pe", "x", "--workdir", "/x", "--tunnel"],
            "--tunnel, --pe, --workdir have no effect with --launcher yarn",
        ),
        (["--p3"], "--p3 changes nothing: arrays are always sliced and sent by priority"),
        (
            ["--staleness", 5, "--kvstore", "dist_sync"],
            "--staleness has no effect with --kvstore dist_sync",
        ),
    ],
)
def test_each_of_them(notes, argv, note):
    assert notes("-n", 1, *argv, "train.py") == [note]


def test_an_allocation_has_got_what_a_submission_would_ask_for(notes, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    flags = ["--time", "1:00", "--extra=-x", "--gpus-per-worker", 1, "--python", "/p"]
    assert notes("-n", 2, "--launcher", "slurm", *flags, "train.py") == [
        "--time, --extra have no effect in an allocation",
        "--gpus-per-worker only sets --devices in an allocation",
    ]


def test_they_are_said_before_anything_runs(folder, capsys):
    assert main(["-n", "1", "--dry-run", "--launcher", "local", "--mem", "4G", "train.py"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "launch.py: note: --mem has no effect with --launcher local"


EVERYWHERE = {
    *("help", "version", "num_workers", "num_servers", "module", "devices", "kvstore", "staleness"),
    *("p3", "hostfile", "launcher", "workers_per_host", "topology", "env", "env_server"),
    *(
        "env_worker",
        "dry_run",
        "json",
        "detach",
        "quiet",
        "log_dir",
        "timeout",
        "heartbeat_timeout",
    ),
    *("start_timeout", "port", "no_shared_memory", "no_encryption", "resubmit", "command"),
}


def test_every_flag_is_known_to_be_heeded_somewhere():
    """Whoever adds a flag must say which launchers heed it."""
    from baryon.launcher.heeded import _HEEDED

    flags = {action.dest for action in flag_parser(is_doctor=False)._actions}
    assert flags == EVERYWHERE | set(_HEEDED)
