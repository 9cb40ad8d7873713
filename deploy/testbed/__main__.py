"""``python -m deploy.testbed``: simulates the hosts of a cluster on this machine."""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

from . import requirements
from .bed import Testbed
from .processes import TestbedError

DEFAULT_DIRECTORY = Path("/var/lib/baryon-testbed")


def main(argv: Optional[List[str]] = None) -> int:
    """Returns the exit code: 1 after a failure, or if ``status`` finds no complete bed."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "status":
            return _status(options.dir)
        requirements.check()  # before an earlier bed is touched
        return _up(options) if options.command == "up" else _down(options.dir)
    except (TestbedError, OSError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"testbed: error: {line}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.required = True  # an argument of add_subparsers only from Python 3.7's fix on
    up = commands.add_parser("up", help="start hosts; they run until 'down'")
    up.add_argument("hosts", type=int, help="number of hosts")
    up.add_argument("--rate", help="limit of each link: 1gbit, 100mbit (default: none)")
    up.add_argument(
        "--share",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="directory below /tmp for hosts to see (each has its own /tmp)",
    )
    down = commands.add_parser("down", help="end the hosts and remove every trace")
    status = commands.add_parser("status", help="show the hosts; the exit code is 0 if all are up")
    for command in (up, down, status):
        command.add_argument(
            "--dir",
            type=Path,
            default=DEFAULT_DIRECTORY,
            help=f"directory for the test bed's files (default: {DEFAULT_DIRECTORY})",
        )
    return parser


def _up(options: argparse.Namespace) -> int:
    earlier = Testbed.attach(options.dir)
    if earlier is not None:
        if earlier.is_whole and (earlier.num_hosts, earlier.rate) == (options.hosts, options.rate):
            print(f"{options.hosts} hosts are up already")
            _explain(earlier)
            return 0
        earlier.close()
        print("replaced the earlier test bed")
    bed = Testbed(options.hosts, options.dir, options.rate, detached=True, shared=options.share)
    bed.start()
    print(f"{options.hosts} hosts are up: {bed.hosts[0].address} to {bed.hosts[-1].address}")
    _explain(bed)
    return 0


def _explain(bed: Testbed) -> None:
    print(
        f"  host file    {bed.hostfile}\n"
        f"  ssh config   {bed.ssh_config}\n"
        f"  this machine {bed.driver_address}\n"
        "try:\n"
        f"  ssh -F {bed.ssh_config} node1 hostname\n"
        f"  launch.py -n {bed.num_hosts} -H {bed.hostfile} --ssh-config {bed.ssh_config} train.py\n"
        "end:\n"
        f"  sudo {sys.executable} -m deploy.testbed down --dir {bed.directory}"
    )


def _down(directory: Path) -> int:
    bed = Testbed.attach(directory)
    if bed is None:
        print(f"no test bed in {directory}")
        return 0
    bed.close()
    print(f"ended {bed.num_hosts} hosts")
    return 0


def _status(directory: Path) -> int:
    bed = Testbed.attach(directory)
    if bed is None:
        print(f"no test bed in {directory}")
        return 1
    for host in bed.hosts:
        state = "up" if host.is_up else "down"
        if host.is_up and host.strange_home:
            state = f"up, but root's home is {host.strange_home}: its programs write outside the"
            state += " test bed; run 'up' again"
        print(f"{host.name:8} {host.address:15} {state}")
    return 0 if bed.is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
