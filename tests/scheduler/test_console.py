"""What the user sees of a job, and what is kept of it."""

import io
import os
import types

import pytest

from baryon.ps import UsageError
from baryon.scheduler import Host, Task
from baryon.scheduler.console import Console
from baryon.scheduler.messages import Output


class Stream(io.BytesIO):
    """A standard stream; ``is_terminal`` as it is told to be."""

    is_terminal = False

    def isatty(self):
        return self.is_terminal

    def take(self):
        """What has been written since the last call."""
        data = self.getvalue()
        self.seek(0)
        self.truncate()
        return data


class Broken(Stream):
    """Whoever read this has gone."""

    def write(self, data):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def fake_sys(out, err):
    """A module sys of the console's own: pytest changes the real one's streams as it likes."""
    stdout, stderr = (types.SimpleNamespace(buffer=stream) for stream in (out, err))
    return types.SimpleNamespace(stdout=stdout, stderr=stderr)


@pytest.fixture
def streams(monkeypatch):
    """Standard output and error, neither of them a terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, err = Stream(), Stream()
    monkeypatch.setattr("baryon.scheduler.console.sys", fake_sys(out, err))
    return types.SimpleNamespace(out=out, err=err)


@pytest.fixture
def terminal(streams):
    streams.out.is_terminal = streams.err.is_terminal = True
    return streams


@pytest.fixture
def console(streams, make_job, tmp_path):
    tasks = (Task("server", 0, 0, 0), Task("worker", 0, 0, 0), Task("worker", 10, 0, 1))
    job = make_job(hosts=(Host("a", 2),), tasks=tasks, log_dir=str(tmp_path / "new" / "logs"))
    console = Console(job)
    yield console
    console.close()


def out(data, task="worker-0"):
    return Output(task, False, False, data)


def err(data, task="worker-0"):
    return Output(task, True, False, data)


def passing(data, task="worker-0", is_error=False):
    return Output(task, is_error, True, data)


# -- lines ------------------------------------------------------------------------------------


def test_every_line_says_who_wrote_it_and_they_are_aligned(console, streams):
    console.show(out(b"a\n", "worker-10"))
    console.show(out(b"b\n\nc\n", "worker-0"))
    assert streams.out.take() == b"worker 10 | a\n worker 0 | b\n worker 0 | \n worker 0 | c\n"
    assert streams.err.take() == b""


def test_errors_go_to_standard_error(console, streams):
    console.show(err(b"careful\n", "server-0"))
    assert (streams.out.take(), streams.err.take()) == (b"", b" server 0 | careful\n")


def test_bytes_that_are_no_text_pass_through(console, streams, tmp_path):
    console.show(out(b"caf\xe9 \x00\r \xf0\n"))
    assert streams.out.take() == b" worker 0 | caf\xe9 \x00\r \xf0\n"
    assert (tmp_path / "new" / "logs" / "worker-0.log").read_bytes() == b"caf\xe9 \x00\r \xf0\n"


def test_what_the_scheduler_says_goes_to_standard_error(console, streams):
    console.say("worker 0 failed; its last lines were\n    caf\udce9")
    assert streams.err.take() == b"baryon: worker 0 failed; its last lines were\n    caf?\n"
    assert streams.out.take() == b""


# -- logs -------------------------------------------------------------------------------------


def test_each_task_has_a_log_without_prefixes(console, streams, tmp_path):
    console.show(out(b"one\n"))
    console.show(err(b"two\n"))
    console.show(passing(b"10%"))
    console.show(out(b"other\n", "worker-10"))
    logs = tmp_path / "new" / "logs"
    assert sorted(os.listdir(logs)) == ["worker-0.log", "worker-10.log"]
    assert (logs / "worker-0.log").read_bytes() == b"one\ntwo\n", "and not only once it is closed"
    assert (logs / "worker-10.log").read_bytes() == b"other\n"


def test_logs_that_cannot_be_written_are_mentioned_once(console, streams, tmp_path):
    logs = tmp_path / "new" / "logs"
    (logs / "worker-0.log").mkdir()
    console.show(out(b"one\n"))
    said = streams.err.take().decode()
    assert said.startswith(f"baryon: cannot write the logs in {logs}: ")
    assert said.count("\n") == 1
    console.show(out(b"two\n"))
    console.show(out(b"three\n", "worker-10"))
    assert streams.err.take() == b""
    assert streams.out.take().count(b"\n") == 3, "the output is shown all the same"
    assert (logs / "worker-10.log").read_bytes() == b"three\n"


def test_a_log_folder_that_cannot_be_made_is_a_usage_error(streams, make_job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/logs cannot be made.*--log-dir"):
        Console(make_job(log_dir=str(tmp_path / "file" / "logs")))


def test_a_log_folder_may_exist(streams, make_job, tmp_path):
    Console(make_job(log_dir=str(tmp_path))).close()


# -- terminals --------------------------------------------------------------------------------


def test_on_a_terminal_tasks_have_colours_of_their_own(console, terminal):
    console.show(out(b"a\n", "worker-0"))
    console.show(out(b"a\n", "worker-10"))
    first, second = terminal.out.take().splitlines()
    assert first.startswith(b"\x1b[")
    assert first.endswith(b" worker 0 | \x1b[0ma")
    assert first[:5] != second[:5]
    console.say("oh")
    assert terminal.err.take() == b"\x1b[31mbaryon:\x1b[0m oh\n"


def test_no_task_is_red(make_job, terminal, tmp_path):
    console = Console(make_job(num_workers=20, log_dir=str(tmp_path)))
    for rank in range(20):
        console.show(out(b"a\n", f"worker-{rank}"))
    console.close()
    assert b"\x1b[31m" not in terminal.out.take()


def test_no_color_is_heeded(console, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console.show(out(b"a\n"))
    console.say("oh")
    assert terminal.out.take() == b" worker 0 | a\n"
    assert terminal.err.take() == b"baryon: oh\n"


def test_each_stream_is_coloured_by_what_it_is_itself(console, streams):
    streams.err.is_terminal = True
    console.show(out(b"a\n"))
    console.show(err(b"a\n"))
    assert b"\x1b" not in streams.out.take()
    assert b"\x1b" in streams.err.take()


def test_progress_is_shown_on_a_terminal_and_gives_way_to_lines(console, terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console.show(passing(b"10%"))
    console.show(passing(b"20%"))
    assert terminal.out.take() == b"\r\x1b[K worker 0 | 10%\r\x1b[K worker 0 | 20%"
    console.show(out(b"a\n", "worker-10"))
    assert terminal.out.take() == b"\r\x1b[Kworker 10 | a\n"
    console.show(out(b"b\n", "worker-10"))
    assert terminal.out.take() == b"worker 10 | b\n", "wiped away once"


@pytest.mark.parametrize("interrupt", ["say", "show"])
def test_progress_on_one_stream_gives_way_to_lines_on_the_other(
    console, terminal, monkeypatch, interrupt
):
    monkeypatch.setenv("NO_COLOR", "1")
    console.show(passing(b"10%"))
    terminal.out.take()
    if interrupt == "say":
        console.say("oh")
    else:
        console.show(err(b"oh\n"))
    assert terminal.out.take() == b"\r\x1b[K"
    assert terminal.err.take().endswith(b"oh\n")


def test_progress_is_not_shown_elsewhere(console, streams):
    console.show(passing(b"10%"))
    console.show(passing(b"10%", is_error=True))
    assert (streams.out.take(), streams.err.take()) == (b"", b"")


# -- readers that have gone -------------------------------------------------------------------


def test_a_reader_that_has_gone_is_the_callers_to_deal_with(console, monkeypatch, tmp_path):
    monkeypatch.setattr("baryon.scheduler.console.sys", fake_sys(Broken(), Broken()))
    with pytest.raises(BrokenPipeError):
        console.show(out(b"a\n"))
    assert (tmp_path / "new" / "logs" / "worker-0.log").read_bytes() == b"a\n", "kept nevertheless"
