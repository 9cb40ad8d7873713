"""How workers end that fail while operations of the store are under way, many times over.

``python -m tests.jobs.ends --runs 100`` runs jobs until so many workers have ended, prints how
they did, and ends with 0 if each had its script's own exit code, within ``--limit`` seconds of
its end's beginning. The mix of what is under way, of who ends and how, is drawn from ``--seed``;
other flags are launch.py's.
"""

import argparse
import itertools
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional

from tests.cluster import SCRIPTS, Cluster

JOB_LIMIT_S = 100.0
WHAT = ("dense", "rows", "push", "module", "operator")
HOW = ("raise", "exit", "system_exit", "text", "interrupt", "record")
WORKERS = 4


class End(NamedTuple):
    """How one worker ended; without a code, it had to be killed."""

    what: str
    how: str
    rank: int
    expected: int
    code: Optional[int]
    seconds: float  # without those in which it waited for a processor

    def is_right(self, limit_s: float = JOB_LIMIT_S) -> bool:
        return self.code == self.expected and self.seconds <= limit_s


def run_job(cluster: Cluster, what: str, how: List[str], *flags: str) -> List[End]:
    """Run one job, of whose workers those that do not "stay" end by themselves."""
    with tempfile.TemporaryDirectory(dir=cluster.cwd) as folder:
        env = {"ENDS_FOLDER": folder, "ENDS_WHAT": what, "ENDS_HOW": ",".join(how)}
        command = (sys.executable, SCRIPTS / "witness.py", SCRIPTS / "ending.py")
        run = cluster.start("-n", len(how), *flags, *command, env=env)
        try:
            code = run.end(JOB_LIMIT_S)
        except subprocess.TimeoutExpired:
            run.kill()
            code = run.end()
        ends = []
        for rank, one in enumerate(how):
            result = Path(folder, f"result-{rank}")
            end = json.loads(result.read_text()) if result.exists() else (1, None, 0.0)
            ends.append(End(what, one, rank, *end))
    if not all(end.is_right() for end in ends):
        print(run.out, run.err, file=sys.stderr)  # noqa: T201
    elif code not in [end.code for end in ends]:
        raise AssertionError(f"the job ended with {code}:\n{run.out}\n{run.err}")
    return ends


def draw(choice: random.Random) -> List[str]:
    """How each worker of a job ends: all of them, or one while the others stay."""
    how = [choice.choice(HOW) for _ in range(WORKERS)]
    if choice.random() < 0.5:
        how = ["stay"] * WORKERS
        how[choice.randrange(WORKERS)] = choice.choice(HOW)
    return how


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="of workers that end")
    parser.add_argument("--limit", type=float, default=2.0, metavar="S", help="of an end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", choices=WHAT, action="append")
    options, flags = parser.parse_known_args()
    choice = random.Random(options.seed)
    kinds = itertools.cycle(options.what or WHAT)
    ends: List[End] = []
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        while len(ends) < options.runs:
            new = run_job(cluster, next(kinds), draw(choice), *flags)
            ends += new
            right = sum(end.is_right(options.limit) for end in ends)
            print(f"{right} of {len(ends)}:", *new, sep="\n  ", flush=True)  # noqa: T201
        cluster.close()
    slowest = max(end.seconds for end in ends)
    print(f"{right} of {len(ends)} ended with their own code; the slowest took {slowest:.2f} s")  # noqa: T201
    return 0 if right == len(ends) else 1


if __name__ == "__main__":
    sys.exit(main())
