"""YARN: the request that launch.py makes, and what it reads out of answers and configurations."""

import json
import os
import shlex
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from baryon.launcher.clusters import preview
from baryon.launcher.clusters.watch import OVER, QUEUED, RUNNING, Status
from baryon.launcher.clusters.yarn import Yarn, parse_status
from baryon.launcher.clusters.yarn.distributed_shell import java_utf, make_start
from baryon.launcher.clusters.yarn.resource_manager import (
    Hadoop,
    Refusal,
    ResourceManager,
    read_hadoop,
)
from baryon.launcher.options import parse
from baryon.ps import PeerError, UsageError
from tests.clusters.yarn_bed import SUBMISSION, java_utf_of, problems

SCRIPT = """\
#!/bin/bash
# Baryon's job JOB: each of its 2 containers runs this, and in it an agent, which
# launch.py then tells what to run. A template of your own (--template FILE) can do more before the
# agent: load modules, copy data.
exec >>/shared/yarn-JOB.out 2>&1
export BARYON_AGENT=$((YARN_SHELL_ID - 1))
/the/python -c CODE /shared/.agents-JOB BARYON_AGENT &
# YARN sends SIGTERM to the agent as well, and SIGKILL soon: say it at once, then wait.
trap 'echo "baryon: agent $BARYON_AGENT ended: stopped by YARN"' TERM
wait $!
code=$?
wait
[ $code = 0 ] || [ $code = 143 ] || echo "baryon: agent $BARYON_AGENT ended: exited with code $code"
exit $code
# is run in each container by /shared/yarn-JOB.command
/bin/bash /shared/yarn-JOB.sh
"""
REQUEST = {
    "application-id": "APPLICATION",
    "application-name": "train.py",
    "application-type": "BARYON",
    "am-container-spec": {
        "local-resources": {
            "entry": [
                {
                    "key": "shellCommands",
                    "value": {
                        "resource": "file:///shared/yarn-JOB.command",
                        "type": "FILE",
                        "visibility": "APPLICATION",
                        "size": 1,
                        "timestamp": 1000,
                    },
                }
            ]
        },
        "commands": {
            "command": "{{JAVA_HOME}}/bin/java -Xmx512m "
            "org.apache.hadoop.yarn.applications.distributedshell.ApplicationMaster "
            "--num_containers 2 --container_memory 8192 --container_vcores 2 --priority 0 "
            "1><LOG_DIR>/AppMaster.stdout 2><LOG_DIR>/AppMaster.stderr"
        },
        "environment": {
            "entry": [
                {
                    "key": "CLASSPATH",
                    "value": "{{CLASSPATH}}<CPS>./*<CPS>{{HADOOP_CONF_DIR}}"
                    "<CPS>{{HADOOP_COMMON_HOME}}/share/hadoop/common/*"
                    "<CPS>{{HADOOP_COMMON_HOME}}/share/hadoop/common/lib/*"
                    "<CPS>{{HADOOP_HDFS_HOME}}/share/hadoop/hdfs/*"
                    "<CPS>{{HADOOP_HDFS_HOME}}/share/hadoop/hdfs/lib/*"
                    "<CPS>{{HADOOP_YARN_HOME}}/share/hadoop/yarn/*"
                    "<CPS>{{HADOOP_YARN_HOME}}/share/hadoop/yarn/lib/*",
                }
            ]
        },
    },
    "unmanaged-AM": False,
    "max-app-attempts": 1,
    "keep-containers-across-application-attempts": False,
    "resource": {"memory": 1024, "vCores": 1},
}


def write_site(folder, **properties):
    """A yarn-site.xml with what is given, dots written as double underscores."""
    items = "".join(
        f"<property><name>yarn.{name.replace('__', '.')}</name><value>{value}</value></property>"
        for name, value in properties.items()
    )
    (folder / "yarn-site.xml").write_text(f"<configuration>{items}</configuration>")
    return {"HADOOP_CONF_DIR": os.fspath(folder)}


@pytest.fixture
def plan(folder, monkeypatch):
    """The Start of a command line."""

    def plan(*argv):
        return make_start(*parse(["--launcher", "yarn", *argv]), Hadoop(("http://rm:8088",)))

    return plan


# -- the request ------------------------------------------------------------------------------


def test_the_dry_run_prints_exactly_this(folder, monkeypatch):
    (name, value), *_ = write_site(folder, resourcemanager__hostname="rm").items()
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("HADOOP_USER_NAME", "ada")
    argv = ["-n", "4", "--workers-per-host", "2", "--python", "/the/python", "--job-dir", "/shared"]
    job, options = parse(["--launcher", "yarn", *argv, "train.py"])
    script, _, rest = preview(job, options).partition("# POST ")
    posts, _, request = rest.partition("\n{")
    assert posts.splitlines() == [
        "http://rm:8088/ws/v1/cluster/apps/new-application?user.name=ada",
        "# names the APPLICATION",
        "# POST http://rm:8088/ws/v1/cluster/apps?user.name=ada",
    ]
    path, _, script = script.partition("\n")
    code = shlex.split(next(line for line in script.splitlines() if "-c" in line))[2]
    assert path == f"# /shared/yarn-{job.id}.sh"
    assert script.replace(job.id, "JOB").replace(shlex.quote(code), "CODE") == SCRIPT
    request = json.loads("{" + request.replace(job.id, "JOB"))
    resource = request["am-container-spec"]["local-resources"]["entry"][0]["value"]
    assert resource["timestamp"] % 1000 == 0
    assert resource["size"] == 2 + len(f"/bin/bash /shared/yarn-{job.id}.sh")
    resource.update(timestamp=1000, size=1)
    assert request == REQUEST


def test_the_stand_in_refuses_what_is_not_documented():
    assert problems(REQUEST, SUBMISSION) == []
    assert problems({**REQUEST, "max-attempts": 1, "resource": {"memory": "1"}}, SUBMISSION) == [
        "request: unknown field max-attempts",
        "request.resource: no vCores",
        "request.resource.memory is '1'",
    ]


def test_each_flag_has_its_place(plan):
    start = plan(
        *("-n", "4", "--workers-per-host", "2", "--queue", "a.b", "--constraint", "x&&y"),
        *("--job-name", "a\n'b\"", "--mem", "64G", "--cpus-per-worker", "3", "--time", "1:00:00"),
        *("--gpus-per-worker", "2", "--extra", "--shell_env A=$x", "--extra=--priority 5"),
        "train.py",
    )
    request = start.request("application_1_1", 7)
    assert request["application-id"] == "application_1_1"
    assert request["queue"] == "a.b"
    assert request["app-node-label-expression"] == "x&&y"
    assert request["application-name"] == "a\n'b\""
    assert request["am-container-spec"]["commands"]["command"].split(" ", 3)[3] == (
        "--num_containers 2 --container_memory 65536 --container_vcores 6 --priority 0 "
        "--container_resources yarn.io/gpu=4 --shell_env 'A=\\$x' --priority 5 "
        "1><LOG_DIR>/AppMaster.stdout 2><LOG_DIR>/AppMaster.stderr"
    )
    assert 'export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0,1,2,3}"\n' in start.script
    assert start.time_s == 3600.0


def test_the_clusters_own_class_path_wins(plan, folder):
    job, options = parse(["--launcher", "yarn", "-n", "1", "train.py"])
    start = make_start(job, options, Hadoop(("http://rm",), ("$HADOOP_CONF_DIR", "/opt/*")))
    environment = start.request("a", 0)["am-container-spec"]["environment"]["entry"]
    assert environment[0]["value"] == "{{CLASSPATH}}<CPS>./*<CPS>$HADOOP_CONF_DIR<CPS>/opt/*"


def test_the_command_survives_the_quotes_that_nodes_put_round_it(plan, tmp_path):
    directory = tmp_path / "a \"b\" 'c' $HOME `id` \\\n\U0001f34e"
    directory.mkdir()
    start = plan("-n", "1", "--job-dir", str(directory), "train.py")
    Path(start.script_path).write_text("echo this one\n")
    line = f'exec /bin/bash -c "{start.command}"'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("this one\n", "")
    assert java_utf_of(java_utf(start.command)) == start.command


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["--mem", "64X"], "--mem 64X: write it as 64G, or as megabytes"),
        (["--mem", "0"], "--mem 0: write it as 64G, or as megabytes"),
        (["--time", "soon"], "--time 'soon': write it as 4:00:00, 90m, 4h or seconds"),
        (["--extra", "'"], '--extra "\'": No closing quotation'),
        (["--job-dir", "/a{{b}}"], "/a{{b}}: YARN replaces {{, }} and names in <> in commands"),
        (["--job-dir", "/" + "a" * 70000], "the path of the job directory has 700"),
        (["--template", "none.j2"], "--template none.j2: "),
    ],
)
def test_wrong_options_are_named(plan, argv, fault):
    with pytest.raises(UsageError) as caught:
        plan("-n", "1", *argv, "train.py")
    assert str(caught.value).startswith(fault)


# -- where the ResourceManager is -------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "managers"),
    [
        ({"resourcemanager__hostname": "rm"}, ["http://rm:8088"]),
        (
            {
                "resourcemanager__hostname": "rm",
                "resourcemanager__webapp__address": "${yarn.resourcemanager.hostname}:80",
            },
            ["http://rm:80"],
        ),
        (
            {"http__policy": "HTTPS_ONLY", "resourcemanager__hostname": "rm"},
            ["https://rm:8090"],
        ),
        (
            {
                "resourcemanager__ha__enabled": "true",
                "resourcemanager__ha__rm-ids": "rm1, rm2",
                "resourcemanager__hostname__rm1": "a",
                "resourcemanager__webapp__address__rm2": "b:1",
            },
            ["http://a:8088", "http://b:1"],
        ),
    ],
)
def test_the_configuration_says_where(tmp_path, properties, managers):
    hadoop = read_hadoop(write_site(tmp_path, **properties))
    assert list(hadoop.managers) == managers


def test_a_configuration_that_does_not_say(tmp_path):
    with pytest.raises(UsageError, match="does not say where the ResourceManager is; set HADOOP_"):
        read_hadoop(write_site(tmp_path, application__classpath="/a"))
    with pytest.raises(UsageError, match=r"yarn-site\.xml: Port could not be cast"):
        read_hadoop(write_site(tmp_path, resourcemanager__webapp__address="rm:http"))
    (tmp_path / "yarn-site.xml").write_text("<configuration>")
    with pytest.raises(UsageError, match=r"yarn-site\.xml: no element found"):
        read_hadoop({"HADOOP_CONF_DIR": str(tmp_path)})
    (tmp_path / "yarn-site.xml").unlink()
    with pytest.raises(UsageError, match=r"there is no .*/yarn-site\.xml or .*; set HADOOP_CONF"):
        read_hadoop({"HADOOP_CONF_DIR": str(tmp_path)})


# -- what it answers --------------------------------------------------------------------------


@contextmanager
def answering(*answers):
    """The address of a server that gives one (status, headers, body) after the other."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = left.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "words"),
    [
        (
            400,
            {},
            b'{"RemoteException": {"message": "java.lang.Exception: No such state"}}',
            "No such state",
        ),
        (403, {}, b"The default static user cannot carry out this operation.", "The default stat"),
        (500, {}, b"<html>Error 500</html>", "HTTP 500 Internal Server Error"),
    ],
)
def test_a_refusal_is_in_its_own_words(status, headers, body, words):
    with answering((status, headers, body)) as address, pytest.raises(Refusal) as caught:
        ResourceManager((address,)).ask("GET", "apps/a")
    assert caught.value.status == status
    assert str(caught.value).startswith(words)


def test_kerberos_needs_its_library(monkeypatch):
    """With it: tests/clusters/test_yarn_kerberos.py."""
    monkeypatch.setitem(sys.modules, "requests_gssapi", None)
    wanted = (401, {"WWW-Authenticate": "Negotiate"}, b"")
    with answering(wanted) as address, pytest.raises(Refusal) as caught:
        ResourceManager((address,)).ask("GET", "apps/a")
    words = "it wants Kerberos; pip install 'baryon[kerberos]' on this machine"
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "standby",
    [
        (307, {"Location": "http://127.0.0.1:1/"}, b"This is standby RM."),
        (200, {}, b"This is standby RM. Redirecting to the current active RM: http://b/"),
        (503, {}, b""),
    ],
)
def test_the_active_one_is_asked_and_remembered(standby):
    good = (200, {}, b'{"app": 1}')
    with answering(standby) as first, answering(good, good) as second:
        manager = ResourceManager((first, second))
        assert [manager.ask("GET", "x") for _ in range(2)] == [{"app": 1}, {"app": 1}]


def test_nobody_answers():
    with answering((503, {}, b"starting")) as address, pytest.raises(PeerError) as caught:
        ResourceManager(("http://127.0.0.1:1", address)).ask("GET", "x")
    assert str(caught.value) == (
        "no ResourceManager answers: http://127.0.0.1:1: [Errno 111] Connection refused; "
        f"{address}: starting"
    )


def app(state, diagnostics="", **more):
    return {"id": "application_1_1", "state": state, "diagnostics": diagnostics, **more}


LIFETIME = {"timeout": [{"type": "LIFETIME", "remainingTimeInSeconds": 90, "expiryTime": "x"}]}
UNLIMITED = {"timeout": [{"type": "LIFETIME", "remainingTimeInSeconds": -1, "expiryTime": "x"}]}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (app("SUBMITTED"), Status(QUEUED, "SUBMITTED")),
        (
            app("ACCEPTED", "[Tue Jan 02 03:04:05 +0000 2024] It is not activated. Details : 7"),
            Status(QUEUED, "ACCEPTED: It is not activated."),
        ),
        (
            app("RUNNING", runningContainers=2, progress=0.0),
            Status(QUEUED, "RUNNING, with 1 of 4 containers"),
        ),
        (app("RUNNING", runningContainers=5, progress=0.0), Status(RUNNING, "4 containers")),
        (app("RUNNING", runningContainers=4, progress=25.0), Status(RUNNING, "4 containers")),
        (app("RUNNING", runningContainers=-1), Status(RUNNING, "4 containers")),
        (
            app("RUNNING", runningContainers=5, timeouts=LIFETIME),
            Status(RUNNING, "4 containers", 90.0),
        ),
        (
            app("RUNNING", runningContainers=5, timeouts=UNLIMITED),
            Status(RUNNING, "4 containers", None),
        ),
        (
            app("FINISHED", finalStatus="SUCCEEDED"),
            Status(OVER, "is over: all its containers have ended"),
        ),
        (
            app("FINISHED", "Diagnostics., total=4, completed=4", finalStatus="FAILED"),
            Status(
                OVER,
                "has failed: Diagnostics., total=4, completed=4; "
                "yarn logs -applicationId application_1_1",
            ),
        ),
        (
            app("FAILED", "Error: Could not find or load main class x"),
            Status(
                OVER,
                "has failed: Error: Could not find or load main class x; the nodes' class path "
                "lacks Hadoop's distributed shell: see yarn.application.classpath in yarn-site.xml",
            ),
        ),
        (
            app("KILLED", "Application killed by user."),
            Status(OVER, "was killed from outside: Application killed by user.", None, 143),
        ),
        (
            app("KILLED", "exceeded the lifetime"),
            Status(OVER, "has reached its time limit: exceeded the lifetime", exit_code=124),
        ),
    ],
)  # fmt: skip
def test_what_an_application_says(answer, status):
    assert parse_status(answer, 4) == status


def test_long_diagnostics_keep_their_beginning_and_their_end():
    words = parse_status(app("KILLED", "a" * 5000 + "\n\n" + "b" * 5000), 1).words
    assert words.startswith("was killed from outside: aaa")
    assert words.endswith("bbb")
    assert len(words) < 1000


class FakeManager:
    """Gives one answer after the other; an exception is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def ask(self, method, path, body=None):
        self.asked.append(f"{method} {path}")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_the_time_begins_when_all_containers_are_there(plan):
    """Even if YARN is too old to keep the limit, and if a container is gone again."""
    now = [100.0]
    rm = FakeManager(
        {"app": app("RUNNING", runningContainers=1)},
        {"app": app("RUNNING", runningContainers=2)},
        Refusal("Not Found", 404),
        {"app": app("RUNNING", runningContainers=1, timeouts=LIFETIME)},
    )
    yarn = Yarn(plan("-n", "1", "--time", "60", "train.py"), rm, lambda: now[0])
    assert yarn.status() == Status(QUEUED, "RUNNING, with 0 of 1 containers")
    assert yarn.status() == Status(RUNNING, "1 container", 60.0)
    assert rm.asked[-1] == "PUT /timeout"
    now[0] = 120.0
    assert yarn.status() == Status(RUNNING, "1 container", 40.0)


def test_to_cancel_what_is_over_is_no_failure(plan):
    start = plan("-n", "1", "train.py")
    rm = FakeManager(Refusal("it is over", 400), {"app": app("FINISHED")})
    Yarn(start, rm, lambda: 0.0).cancel()
    rm = FakeManager(Refusal("you may not", 403), {"app": app("RUNNING", runningContainers=2)})
    with pytest.raises(Refusal, match="you may not"):
        Yarn(start, rm, lambda: 0.0).cancel()


def test_an_application_that_is_not_known_and_an_answer_of_something_else(plan):
    start = plan("-n", "1", "train.py")
    status = Yarn(start, FakeManager(Refusal("no such app", 404)), lambda: 0.0).status()
    assert status == Status(OVER, "is not known to YARN any more")
    for answer in (None, {"application": {}}, {"app": {"state": "LOST"}}):
        with pytest.raises(PeerError, match="its answer is not a ResourceManager's: "):
            Yarn(start, FakeManager(answer), lambda: 0.0).status()


def test_what_the_output_says_of_agents_that_ended(plan):
    yarn = Yarn(plan("-n", "1", "train.py"), FakeManager(), lambda: 0.0)
    line = "baryon: agent 3 ended: exited with code 137"
    assert yarn.ended_agents(line) == [(3, "ended: exited with code 137")]
    assert yarn.ended_agents("baryon: agent on node2: SIGTERM received; killing worker-0") == []
