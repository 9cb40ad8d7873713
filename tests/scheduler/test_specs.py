"""What each task is started with: nothing more and nothing less."""

import os

import msgspec
import pytest

from baryon.ps import KeyPair, token_of
from baryon.scheduler.control import (
    TASK_VARIABLE,
    Credentials,
    Host,
    messages,
    place,
    read_credentials,
)
from baryon.scheduler.control.credentials import Parent
from baryon.scheduler.specs import start_tasks
from baryon.scheduler.tree import Tree

HOSTS = (Host("a", 2), Host("b", 2, gpus=("3", "5")))


@pytest.fixture
def start(make_job):
    """The specs of one host of a job with 3 workers and 2 servers on two hosts, by slug."""

    def start(host, **changes):
        job = make_job(
            **{"hosts": HOSTS, "tasks": place(HOSTS, 3, 2, shares_memory=False), **changes}
        )
        keys = {t.slug: KeyPair(f"public of {t.slug}", f"secret of {t.slug}") for t in job.tasks}
        address = ("10.0.0.1", "10.0.0.2")[host]
        hello = messages.AgentHello("1", "h", 1, address, "tcp://10.0.0.1:5000")
        message = start_tasks(job, Tree(job.tasks), host, hello, "scheduler's key", keys)
        return {spec.slug: spec for spec in message.tasks}

    return start


def credentials_of(spec):
    return msgspec.json.decode(spec.credentials, type=Credentials)


def test_a_host_gets_its_own_tasks_only(start):
    assert set(start(0)) == {"server-0", "worker-0", "worker-1"}
    assert set(start(1)) == {"server-1", "worker-2"}


def test_a_worker_runs_the_users_command_as_it_is(start):
    command = ("python", "my train.py", "", "--lr=0.1", "$HOME", "'", "\n", "日本")
    spec = start(0, command=command, cwd="/here it is")["worker-0"]
    assert (spec.runner, spec.argv) == ("program", command)
    assert spec.cwd == "/here it is"


def test_a_script_is_run_by_the_python_of_its_own_host(start):
    spec = start(0, command=("train.py", "--lr=0.1"), is_script=True)["worker-0"]
    assert (spec.runner, spec.argv) == ("python", ("train.py", "--lr=0.1"))


def test_a_server_is_ours(start):
    spec = start(0, command=("train.py",), is_script=True)["server-0"]
    assert (spec.runner, spec.argv) == ("server", ())


def test_the_gpus_named_for_a_host_are_handed_out_in_rank_order(start):
    hosts = (Host("a", 2, gpus=("0", "2", "4", "6")), Host("b", 2))
    specs = start(0, hosts=hosts, devices=2)
    assert specs["worker-0"].env["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert specs["worker-1"].env["CUDA_VISIBLE_DEVICES"] == "4,6"
    assert {specs[slug].env["BARYON_FIRST_GPU"] for slug in ("worker-0", "worker-1")} == {"0"}
    assert "CUDA_VISIBLE_DEVICES" not in specs["server-0"].env
    assert "CUDA_VISIBLE_DEVICES" not in start(1, hosts=hosts, devices=2)["worker-2"].env


def test_the_environment_of_a_worker_is_exactly_this(start):
    """Above all no DMLC_PS_ROOT_URI, with which MXNet would start its own store."""
    assert start(0, devices=4)["worker-1"].env == {
        "PYTHONUNBUFFERED": "1",
        "DMLC_ROLE": "worker",
        "DMLC_NUM_WORKER": "3",
        "DMLC_NUM_SERVER": "2",
        "DMLC_WORKER_ID": "1",
        "BARYON_LOCAL_RANK": "1",
        "BARYON_DEVICES": "4",
    }


def test_the_environment_of_a_server_is_the_users_alone(start):
    assert start(0)["server-0"].env == {}


def test_what_the_user_sets_beats_what_we_set(start):
    specs = start(
        0,
        env={"A": "all", "B": "all", "DMLC_ROLE": "mine", "PYTHONUNBUFFERED": "0"},
        env_worker={"A": "worker"},
        env_server={"A": "server"},
    )
    worker, server = specs["worker-1"].env, specs["server-0"].env
    assert (worker["A"], worker["B"]) == ("worker", "all")
    assert (worker["DMLC_ROLE"], worker["PYTHONUNBUFFERED"]) == ("mine", "0")
    assert worker["DMLC_WORKER_ID"] == "1"
    assert (server["A"], server["B"]) == ("server", "all")


def test_a_server_knows_every_workers_key_and_a_worker_none(start):
    everyone = {f"public of worker-{rank}": (rank,) for rank in range(3)}
    specs = {**start(0), **start(1)}
    for slug, spec in specs.items():
        expected = everyone if slug.startswith("server") else {}
        children = credentials_of(spec).children
        assert {child.public_key: child.ranks for child in children} == expected, slug


def test_an_owner_knows_the_workers_below_level_1_and_they_know_it(start):
    """For what is not added up on the way."""
    specs = {**start(0, tasks=place(HOSTS, 3, 2)), **start(1, tasks=place(HOSTS, 3, 2))}
    owner, level_1 = credentials_of(specs["server-0"]), credentials_of(specs["server-2"])
    assert [(c.name, c.is_worker) for c in owner.children] == [
        ("server 2", False),
        ("worker 2", True),
    ]
    assert [(c.name, c.ranks) for c in owner.guests] == [("worker 0", (0,)), ("worker 1", (1,))]
    assert level_1.guests == ()
    worker = credentials_of(specs["worker-0"])
    assert [parent.rank for parent in worker.parents] == [2]
    assert worker.owners == (Parent(0, True), Parent(1, False))


def test_a_word_that_proves_a_worker_is_the_same_on_both_sides(start):
    (child, *_) = credentials_of(start(1)["server-1"]).children
    assert child.token == token_of(credentials_of(start(0)["worker-0"]).secret_key)
    assert "secret" not in child.token


def test_memory_is_shared_on_a_host_and_only_there(start):
    worker = credentials_of(start(1)["worker-2"])
    assert worker.parents == (Parent(0, False), Parent(1, True))
    members = [credentials_of(spec).member for spec in start(0).values()]
    assert sorted(members) == [1, 2, 3]
    alone = credentials_of(start(1, shares_memory=False)["worker-2"])
    assert (alone.member, alone.parents) == (0, (Parent(0, False), Parent(1, False)))


def test_a_server_knows_which_children_share_its_memory_and_as_whom(start):
    near, far = start(0), start(1)
    member = {slug: credentials_of(spec).member for slug, spec in {**near, **far}.items()}
    children = credentials_of(near["server-0"]).children
    assert [child.member for child in children] == [member["worker-0"], member["worker-1"], 0]
    children = credentials_of(far["server-1"]).children
    assert [child.member for child in children] == [0, 0, member["worker-2"]]
    apart = credentials_of(start(0, shares_memory=False)["server-0"]).children
    assert [child.member for child in apart] == [0, 0, 0]


def test_a_task_gets_its_own_secret_and_nobody_elses(start):
    for slug, spec in {**start(0), **start(1)}.items():
        assert credentials_of(spec).secret_key == f"secret of {slug}"
        assert spec.credentials.count(b"secret of") == 1
        assert b"secret of" not in repr((spec.argv, spec.env)).encode()


def test_credentials_say_who_the_task_is_and_how_to_reach_the_scheduler(start):
    credentials = credentials_of(
        start(1, timeout_s=7.5, silence_s=2.5, kvstore="dist", staleness=2)["worker-2"]
    )
    assert credentials == Credentials(
        job="job-1",
        slug="worker-2",
        rank=2,
        local_rank=0,
        host_rank=1,
        num_local_workers=1,
        num_workers=3,
        num_owners=2,
        address="10.0.0.2",
        endpoint="tcp://10.0.0.1:5000",
        scheduler_key="scheduler's key",
        public_key="public of worker-2",
        secret_key="secret of worker-2",
        timeout_s=7.5,
        silence_s=2.5,
        kvstore="dist",
        member=2,
        parents=(Parent(0, False), Parent(1, True)),
        owners=(Parent(0, False), Parent(1, True)),
        staleness=2,
    )


def test_a_worker_knows_its_place_among_those_of_its_host(start):
    specs = {**start(0), **start(1)}
    places = {
        slug: (known.local_rank, known.num_local_workers, known.host_rank)
        for slug, known in ((slug, credentials_of(spec)) for slug, spec in specs.items())
        if slug.startswith("worker")
    }
    assert places == {"worker-0": (0, 2, 0), "worker-1": (1, 2, 0), "worker-2": (0, 1, 1)}


def test_a_server_waits_longer_than_those_below_it(start):
    """They can say more exactly for whom."""
    specs = start(0, timeout_s=7.5, tasks=place(HOSTS, 3, 2))
    limits = {slug: credentials_of(spec).timeout_s for slug, spec in specs.items()}
    assert limits["worker-0"] == limits["server-2"] == 7.5
    assert limits["server-0"] > 7.5


def test_a_task_reads_its_credentials_from_the_file_it_is_told(start, tmp_path, monkeypatch):
    spec = start(0)["server-0"]
    path = tmp_path / "credentials"
    path.write_bytes(spec.credentials)
    monkeypatch.setenv(TASK_VARIABLE, os.fspath(path))
    assert read_credentials() == credentials_of(spec)


def test_outside_a_job_there_are_no_credentials(monkeypatch):
    monkeypatch.delenv(TASK_VARIABLE, raising=False)
    assert read_credentials() is None


def test_credentials_that_are_named_but_not_there_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv(TASK_VARIABLE, os.fspath(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        read_credentials()


def test_workers_know_how_much_room_their_lines_have(start):
    env = start(0, columns=80, rows=24)["worker-0"].env
    assert (env["COLUMNS"], env["LINES"]) == ("69", "24"), "beside 'worker 0 | '"
    assert env["TQDM_NCOLS"] == "69"
    narrow = start(0, columns=5, rows=1, env={"COLUMNS": "33"})["worker-0"].env
    assert narrow["COLUMNS"] == "33", "the user's own"
    assert int(narrow["TQDM_NCOLS"]) > 0
