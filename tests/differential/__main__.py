"""``python -m tests.differential [CASE...]``: prints the table of both stores as Markdown.

The exit code is 1 if what is known of a case (expectations.py) is not so. Do not run it beside
other heavy work: MXNet's own store gets some seconds for a case, and then counts as hanging.
"""

import argparse
import json
import sys
import time

from benchmarks.processes import exit_on_sigterm

from .case import CASES
from .expectations import problem
from .table import as_markdown, compare
from .themes import load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="all, if none is named")
    parser.add_argument("--list", action="store_true", help="list the cases instead")
    parser.add_argument("--output", metavar="FILE", help="write it there, not to standard output")
    parser.add_argument("--records", metavar="FILE", help="write all records there as JSON")
    options = parser.parse_args()

    exit_on_sigterm()
    load()
    if options.list:
        sys.stdout.write("".join(f"{case.name}: {case.what}\n" for case in CASES.values()))
        return 0
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list shows them")
    began = time.monotonic()
    rows = compare(CASES[name] for name in options.cases or CASES)
    sys.stderr.write(f"{len(rows)} cases in {time.monotonic() - began:.0f} s\n")
    if options.records:
        with open(options.records, "w", encoding="utf-8") as file:
            found = {name: [row.native, row.ours, row.verdict] for name, row in rows.items()}
            json.dump(found, file, indent=1)
    text = as_markdown(rows.values())
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    problems = {name: problem(name, row.verdict) for name, row in rows.items()}
    sys.stderr.write("".join(f"{name}: {what}\n" for name, what in problems.items() if what))
    return int(any(problems.values()))


if __name__ == "__main__":
    sys.exit(main())
