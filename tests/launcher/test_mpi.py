"""MPI: the command that launch.py makes of flags, host files and allocations, and what it reads."""

import shlex

import pytest

from baryon.launcher.clusters import mpi, preview
from baryon.launcher.clusters.watch import OVER, Status
from baryon.launcher.options import parse
from baryon.ps import UsageError

OPEN_MPI = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
MPICH = "HYDRA build details:\n    Version:                                 4.0.2\n"
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.9 Build 20230307 (id: d82b3071db)\n"


@pytest.fixture
def plan(folder, monkeypatch):
    """The words of the command for a command line, with an mpirun of a certain ``--version``."""
    for name in ("SLURM_JOB_ID", "PBS_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE"):
        monkeypatch.delenv(name, raising=False)
    (folder / "mpirun").write_text('#!/bin/sh\nprintf %s "$VERSION"\n')
    (folder / "mpirun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def plan(version, *argv):
        monkeypatch.setenv("VERSION", version)
        job, options = parse(["--launcher", "mpi", *argv, "train.py"])
        return [word.replace(job.id, "JOB") for word in shlex.split(preview(job, options))]

    return plan


AGENT = ["/bin/sh", "-c", 'exec "$0" "$@" 2>&1', "/the/python", "-c", "CODE", "/dir/.agents-JOB"]


@pytest.mark.parametrize(
    ("version", "beginning", "rank"),
    [
        (
            OPEN_MPI,
            "mpirun --host b,a --map-by seq --bind-to none",
            "OMPI_COMM_WORLD_RANK",
        ),
        (MPICH, "mpirun -hosts b,a -ppn 1", "PMI_RANK"),
        (
            INTEL,
            "env I_MPI_JOB_RESPECT_PROCESS_PLACEMENT=0 I_MPI_PIN=0 mpirun -hosts b,a -ppn 1",
            "PMI_RANK",
        ),
    ],
)
def test_the_command_is_exactly_this(plan, folder, version, beginning, rank):
    (folder / "hosts").write_text("b slots=2\na\nc\n")
    words = plan(
        *(version, "-n", "3", "-H", "hosts", "--python", "/the/python"),
        *("--job-dir", "/dir", "--extra", "-x 'A=two words'"),
    )
    code = next(word for word in words if word.startswith("import sys"))
    words[words.index(code)] = "CODE"
    assert words == [*beginning.split(), "-x", "A=two words", "-n", "2", *AGENT, rank]


def test_a_directory_may_be_called_anything(plan):
    words = plan(OPEN_MPI, "-n", "1", "-H", "a,", "--job-dir", "/a 'b'\n\"c\" %j $HOME")
    assert words[-2] == "/a 'b'\n\"c\" %j $HOME/.agents-JOB"


@pytest.mark.parametrize("name", ["PBS_NODEFILE", "PE_HOSTFILE", "LSB_DJOB_HOSTFILE"])
def test_in_an_allocation_workers_are_shared_out_over_its_hosts(plan, folder, monkeypatch, name):
    (folder / "hosts").write_text("a 2 main.q@a UNDEFINED\nb 1 main.q@b UNDEFINED\na 1 x\n")
    monkeypatch.setenv(name, str(folder / "hosts"))
    job, _ = parse(["--launcher", "mpi", "-n", "5", "train.py"])
    assert [host.slots for host in job.hosts] == [3, 3]
    words = plan(OPEN_MPI, "-n", "5")
    assert words[:7] == ["mpirun", "--map-by", "ppr:1:node", "--bind-to", "none", "-n", "2"]
    assert plan(MPICH, "-n", "5")[:5] == ["mpirun", "-ppn", "1", "-n", "2"]
    assert plan(OPEN_MPI, "-n", "1", "-H", "c,")[1:3] == ["--host", "c"], "if asked for"
    monkeypatch.setenv(name, str(folder / "gone"))
    with pytest.raises(UsageError, match=r"this allocation's hosts: .*/gone: No such file"):
        plan(OPEN_MPI, "-n", "5")


def test_an_allocation_of_slurm(plan, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    assert mpi.allocated_hosts({"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3"}) == 3
    assert plan(OPEN_MPI, "-n", "6")[5:7] == ["-n", "3"]


def test_what_is_wrong_is_named_with_its_remedy(plan, faults, monkeypatch):
    with pytest.raises(UsageError, match="mpirun takes no user and no port for a; put"):
        plan(OPEN_MPI, "-n", "1", "-H", "me@a,")
    with pytest.raises(UsageError, match="is not from Open MPI, MPICH or Intel MPI; --ver"):
        plan("mpirun of yore", "-n", "1", "-H", "a,")
    assert faults("--launcher", "mpi", "-n", "2", "train.py") == [
        "--launcher mpi needs hosts: -H FILE, or an allocation of Slurm, PBS, Grid Engine or LSF "
        "to run in"
    ]
    monkeypatch.setenv("PATH", "/nowhere")
    job, options = parse(["--launcher", "mpi", "-n", "1", "-H", "a,", "train.py"])
    with pytest.raises(UsageError, match="neither mpirun nor mpiexec is on PATH here"):
        preview(job, options)


def test_how_it_ended():
    outside = Status(OVER, "was ended from outside, as by kill", exit_code=143)
    for code in (0, 1):
        assert mpi.parse_end(code, "", True) == outside
    assert mpi.parse_end(0, "", False) == Status(OVER, "is over: all its agents have ended")
    assert mpi.parse_end(127, "", False) == Status(OVER, "exited with code 127")
    assert mpi.parse_end(255, "no route", True) == Status(OVER, "exited with code 255: no route")
    assert mpi.parse_end(-9, "", False) == Status(OVER, "was killed by signal 9", exit_code=137)


def test_what_it_says_is_one_line_without_lists():
    text = (
        "ssh: Could not resolve hostname b\n" + "-" * 74 + "\nORTE was unable to start\n"
        "daemons.\n\n* not finding\n  the libraries\n\n* lack of authority\n" + "-" * 74 + "\n"
    )
    words = "ssh: Could not resolve hostname b ORTE was unable to start daemons."
    assert mpi.one_line(text) == words
    assert len(mpi.one_line("word " * 1000)) == 804
