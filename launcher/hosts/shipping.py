"""Brings to the hosts what they lack: Baryon, libraries that it needs, the user's files."""

import os
import sys
import threading
from importlib import metadata
from typing import Callable, Dict, List, Sequence, Tuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from baryon.ps import PeerError

from ..flags import Options
from ..ssh import Interpreter, RemoteProcess
from . import delivery
from .delivery import Delivered, Progress, deliver
from .findings import some
from .found_host import FoundHost, each
from .manifest import Manifest, package_manifest, scan
from .preflight import DISTRIBUTIONS, missing
from .survey import Survey

__all__ = ["ship"]


def ship(survey: Survey, options: Options, log_dir: str, say: Callable[[str], None]) -> None:
    """Bring what is missing, and then the working directory if it is to be copied; the job's own
    ``log_dir`` is not part of that.

    Afterwards each host's report says where baryon is (``home``). Raises PeerError in a line for
    each host that could not be given something, UsageError if something here cannot be read.
    """
    _ship_baryon(survey, say)
    if options.sync_dst_dir is not None:
        logs = os.path.relpath(os.path.dirname(log_dir), os.getcwd())
        manifest = scan(os.getcwd(), [] if logs.startswith("..") else [f"/{logs}/"])
        for sentence in manifest.skipped:
            say(f"note: not copied: {sentence}")
        _copy(survey, manifest, options.sync_dst_dir, say)


def _ship_baryon(survey: Survey, say: Callable[[str], None]) -> None:
    wanting = [h for h in survey.hosts if not h.report.found["home"] or missing(h.report.found)]
    manifests = {lacking: package_manifest(lacking) for lacking in set(map(_lacking, wanting))}
    brought: List[str] = []

    def bring(host: FoundHost) -> None:
        found, lacking = host.report.found, _lacking(host)
        name = "-".join([survey.fingerprint, *(f"{d}-{metadata.version(d)}" for d in lacking)])
        where = os.path.join(found["cache"], name)
        done = _deliver(host, survey.interpreter, where, manifests[lacking])
        found["home"] = done.dst
        if done.num_sent:
            brought.append(host.report.name)

    _all_or_none(wanting, bring)
    if brought:
        cache = wanting[0].report.found["cache"]
        say(f"note: baryon has been put on {some(sorted(brought))}, into {cache}")


def _lacking(host: FoundHost) -> Tuple[str, ...]:
    """The distributions that a host lacks."""
    return tuple(DISTRIBUTIONS[module] for module in missing(host.report.found))


def _copy(survey: Survey, manifest: Manifest, dst: str, say: Callable[[str], None]) -> None:
    is_shown = sys.stderr.isatty()
    columns = TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    totals: Dict[int, Progress] = {}
    done: List[Delivered] = []
    lock = threading.Lock()
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not is_shown) as bar:
        task = bar.add_task("copying", total=None)

        def bring(host: FoundHost) -> None:
            def on_progress(progress: Progress) -> None:
                with lock:
                    totals[host.index] = progress
                    sent = sum(p.nbytes_sent for p in totals.values())
                    bar.update(task, completed=sent, total=sum(p.nbytes for p in totals.values()))

            delivered = _deliver(host, survey.interpreter, dst, manifest, on_progress)
            with lock:
                done.append(delivered)

        _all_or_none(survey.hosts, bring)
    sent, nbytes = sum(d.num_sent for d in done), sum(d.nbytes for d in done)
    size = f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"
    say(f"note: copied {sent} files and directories, {size}, to {dst} on {len(done)} hosts in all")


def _deliver(
    host: FoundHost,
    interpreter: Interpreter,
    dst: str,
    manifest: Manifest,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Delivered:
    assert host.connection is not None
    process = RemoteProcess.of_source(host.connection, interpreter, delivery.receiver_source())
    try:
        return deliver(process, host.report.name, dst, manifest, on_progress)
    finally:
        process.close()


def _all_or_none(hosts: Sequence[FoundHost], what: Callable[[FoundHost], None]) -> None:
    """Do it with all hosts at once; raises PeerError that names all that failed."""
    each(hosts, what)
    errors = [host.report.error for host in hosts if host.report.error]
    if errors:
        raise PeerError("\n".join(errors))
