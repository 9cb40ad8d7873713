"""Runs on a host before a job does: says what is there, and tries to reach the other hosts.

Standard library only, Python 3.6 and on, since its text is run where nothing of ours may be yet;
ZeroMQ is used if it is there. `source` gives that text. Messages are JSON, a line each, on standard
input and output; its own begin with MARK, as something else there may print, too:

0. asked anything, it answers ``{"time"}``, seconds of its clock;
1. asked ``{"program", "is_script", "cwd", "env", "toward", "interfaces", "homes", "fingerprint",
   "import_mxnet"}``, it answers with what `report` returns;
2. asked ``{"server_secret", "server_public", "client_secret", "client_public"}``, it listens for
   hellos at its address and answers ``{"endpoint"}``; to be reached, one must know the public key,
   which only the probes of this job do;
3. asked ``{"targets": [[number, endpoint], ...], "limit_s"}``, it says hello to all of them and
   answers ``{"unreachable": [numbers]}``, while it goes on to answer the others' hellos. It gives
   up when ``limit_s`` have passed without any hello: many at once take their time.

It ends when its standard input does.
"""

import hashlib
import importlib.util
import json
import os
import platform
import resource
import shutil
import socket
import stat
import subprocess
import sys
import time

if "own_address" not in globals():  # on a host, their text stands before ours
    from baryon.scheduler.control import own_address

    from .greeter import Greeter

__all__ = ["MARK", "fingerprint_of", "interpreter_of", "main", "report", "source"]

MARK = b"BARYON-PROBE "
_PACKAGES = ("scheduler", "ps", "worker")  # of baryon: what agents and tasks need
_OTHER_LIMIT_S = 20.0
_MODULES = ("zmq", "msgspec", "psutil", "cloudpickle")


def fingerprint_of(home):
    """16 hex digits that tell one version of the package baryon in folder ``home`` from another;
    empty if it is not there."""
    root = os.path.join(home, "baryon")
    paths = [os.path.join(root, "__init__.py")]
    for package in _PACKAGES:
        for folder, _, names in os.walk(os.path.join(root, package), followlinks=True):
            paths += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    digest = hashlib.sha256()
    try:
        for path in sorted(paths):
            with open(path, "rb") as file:
                data = file.read()
            head = f"{os.path.relpath(path, root)} {len(data)}\n"
            digest.update(head.encode("utf-8", "surrogateescape") + data)
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def report(ask):
    """What this host has, as a dictionary."""
    cwd = os.path.join(os.path.expanduser("~"), os.path.expanduser(ask["cwd"]))
    found = {
        "hostname": socket.gethostname(),
        "python": sys.executable,
        "python_version": ".".join(map(str, sys.version_info[:2])),
        "platform": [sys.implementation.cache_tag, platform.machine(), *platform.libc_ver()],
        "home": _home_of_baryon(ask),
        "cache": _cache_directory(),
        "modules": {name: _version(name) for name in _MODULES},
        "numpy": _version("numpy"),
        "cwd": _state_of_directory(cwd),
        "program": _state_of_program(ask, cwd),
        "other_python": _other_python(ask, cwd),
        "cores": len(os.sched_getaffinity(0)),
        "memory_free": _memory_free(),
        "gpus": _count_gpus(),
        "shm": _free("/dev/shm"),
        "tmp": _free("/tmp"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "memory_error": _memory_error(),
    }
    found["mxnet"] = _import_mxnet(found["home"]) if ask["import_mxnet"] else _version("mxnet")
    # The launching machine may know no way here but through others; then, who has let us in?
    toward = ask["toward"] or os.environ.get("SSH_CONNECTION", "127.0.0.1").split()[0]
    try:
        found["address"], found["address_error"] = own_address(toward, ask["interfaces"]), ""
    except (OSError, ValueError) as error:
        found["address"], found["address_error"] = "", str(error)
    return found


def _home_of_baryon(ask):
    """The first folder that holds the very version of baryon that is wanted; empty if none does."""
    homes = list(ask["homes"])
    origin = _origin("baryon")
    if origin:
        homes.append(os.path.dirname(os.path.dirname(origin)))
    for home in homes:
        if _is_safe(home) and fingerprint_of(home) == ask["fingerprint"]:
            return home
    return ""


def _is_safe(home):
    """Whether nobody but us and root can put code into a folder, or into one above it.

    It is going to be the first that Python imports from.
    """
    folder = os.path.realpath(home)
    paths = [top for top, _, _ in os.walk(os.path.join(folder, "baryon"), followlinks=True)]
    while folder != os.path.dirname(folder):
        paths.append(folder)
        folder = os.path.dirname(folder)
    try:
        states = [(path, os.stat(path)) for path in paths]
    except OSError:
        return False
    for path, state in states:
        # In a sticky folder above it, such as /tmp, others cannot rename what is not theirs.
        is_sticky = state.st_mode & stat.S_ISVTX and home.startswith(path + os.sep)
        if state.st_uid not in (0, os.getuid()) or (state.st_mode & 0o022 and not is_sticky):
            return False
    return True


def _cache_directory():
    """Where baryon can be put and kept; only we may write there. Empty if nowhere."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for folder in (os.path.join(cache, "baryon"), f"/tmp/baryon-{os.getuid()}"):
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            state = os.lstat(folder)
        except OSError:
            continue
        ours = state.st_uid == os.getuid() and not state.st_mode & 0o022
        if ours and not os.path.islink(folder) and os.access(folder, os.W_OK):
            return folder
    return ""


def _origin(module):
    """The file of a package's __init__; empty if there is none: an empty folder is no package."""
    spec = importlib.util.find_spec(module)
    return (spec.origin or "") if spec is not None else ""


def _import_mxnet(home):
    """MXNet's version; empty if it is not there, "error: ..." if it cannot be imported."""
    if not _version("mxnet"):
        return ""
    code = "import mxnet; print(mxnet.__version__)"
    if home:  # with what it needs beside a newer NumPy
        code = "import baryon.worker.mxnet; " + code
    code = f"import sys; sys.path.insert(0, {home!r}); {code}"
    ended = subprocess.run(  # noqa: UP022 (Python 3.6 has no capture_output)
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    text = (ended.stderr if ended.returncode else ended.stdout).decode(errors="replace")
    last = ([line for line in text.splitlines() if line.strip()] or ["it ended silently"])[-1]
    return "error: " + last if ended.returncode else last


def _version(module):
    """A module's version, without importing it; empty if it is not there."""
    origin = _origin(module)
    if not origin:
        return ""
    # Its distribution may have another name (mxnet-cu112, pyzmq); its folder lies beside it.
    folder = os.path.dirname(os.path.dirname(origin))
    for name in sorted(os.listdir(folder)):
        project, _, rest = name.partition("-")
        known = project.split("_")[0].lower()
        if known in (module, "py" + module) and name.endswith((".dist-info", ".egg-info")):
            return rest.rsplit(".", 1)[0].split("-")[0]
    return "unknown"


def _state_of_directory(path):
    if not os.path.isdir(path):
        return "missing"
    return "writable" if os.access(path, os.W_OK | os.X_OK) else "read-only"


def _state_of_program(ask, cwd):
    """A word on it, or ``no INTERPRETER``: its first line names one that is not here."""
    program = ask["program"]
    if not program:
        return "found"
    if ask["is_script"]:
        return "found" if os.path.isfile(os.path.join(cwd, program)) else "missing"
    path = _path_of(ask, cwd)
    if not path or not os.path.isfile(path):
        return "missing"
    if not os.access(path, os.X_OK):
        return "not executable"
    words = interpreter_of(path)
    lacking = [word for word in words if not shutil.which(word, path=_search_path(ask))]
    return "no " + lacking[0] if lacking else "found"


def _path_of(ask, cwd):
    """The file that a program is; empty if it is not on PATH."""
    program = ask["program"]
    if os.sep in program:
        return os.path.join(cwd, program)
    return shutil.which(program, path=_search_path(ask)) or ""


def _search_path(ask):
    return ask["env"].get("PATH", os.environ.get("PATH", os.defpath))


def interpreter_of(path):
    """What the first line of a file has run it: its interpreter, and what ``env`` is to find."""
    with open(path, "rb") as file:
        line = file.readline(256)
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    is_env = len(words) > 1 and os.path.basename(words[0]) == "env" and words[1][0] != "-"
    return words[: 1 + is_env]


def _other_python(ask, cwd):
    """The path of another Python that is to run the job and has no MXNet; empty if all is well."""
    name = os.path.basename(ask["program"])
    path = "" if ask["is_script"] or not name.startswith("python") else _path_of(ask, cwd)
    if not path or name.strip("python.0123456789") or not os.access(path, os.X_OK):
        return ""
    code = "import importlib.util as u; print('mxnet', u.find_spec('mxnet') is not None)"
    env = {**os.environ, **ask["env"]}
    try:
        ended = subprocess.run(
            [path, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=env, timeout=_OTHER_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""  # whatever it is
    return path if b"mxnet False" in ended.stdout else ""


def _memory_error():
    """Why the tasks of a host cannot share memory; empty if they can."""
    try:
        descriptor = os.memfd_create("probe")
        try:
            with open(f"/proc/{os.getpid()}/fd/{descriptor}", "r+b"):
                return ""
        finally:
            os.close(descriptor)
    except (OSError, AttributeError) as error:  # Python 3.6 has no such call, and is too old
        return str(error)


def _memory_free():
    """Bytes that can be had without swapping."""
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["MemAvailable"].split()[0]) * 1024


def _count_gpus():
    try:
        return len(os.listdir("/proc/driver/nvidia/gpus"))
    except OSError:
        return 0


def _free(path):
    """Bytes free; -1 if it is not there."""
    try:
        state = os.statvfs(path)
    except OSError:
        return -1
    return state.f_bavail * state.f_frsize


def _read_line():
    """One line of JSON; None at the end. Reads no further: what follows is for later."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    return json.loads(line.decode())


def _answer(message):
    data = MARK + json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main():
    if _read_line() is None:
        return
    _answer({"time": time.time()})
    ask = _read_line()
    if ask is None:
        return
    found = report(ask)
    _answer(found)
    keys = _read_line()
    if keys is None:
        return
    greeter = Greeter(keys, found["address"])
    _answer({"endpoint": greeter.endpoint})
    while True:
        greeter.answer_until_input()
        ask = _read_line()
        if ask is None:
            return
        _answer({"unreachable": greeter.try_to_reach(ask["targets"], ask["limit_s"])})


def source():
    """The whole program as text: own_address's file, greeter.py, this file, then a call."""
    import inspect

    names = (own_address.__module__, Greeter.__module__, __name__)
    modules = [sys.modules[name] for name in names]
    texts = [inspect.getsource(module) for module in modules]
    return "\n".join([*texts, "main()\n"])
