"""What a deploy costs that has nothing to do: `.venv/bin/python bench/deploy.py`, the lab by default.

First a look that changes nothing (--dry) makes sure that there is nothing to do and counts operations and round trips; then the deploy
runs several times. Prints the distribution in seconds. `--dry` times the look itself instead. Ends with status 2 when something would
change: that would be another measurement.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deploys.lib.settings import GROUP_DATA, load  # noqa: E402 - the project has to be found first
from ops import pyinfra_run  # noqa: E402

_COMMAND = re.compile(r"Running command on (?P<host>[^:]+):")


def round_trips(inventory: Path) -> Counter[str]:
    """Commands that a run with nothing to do sends to each host, as pyinfra's SSH connector tells of them."""
    command = [sys.executable, "-m", "pyinfra", str(inventory), str(pyinfra_run.SITE), "--dry", "--json", "--debug"]
    done = subprocess.run([*command, "--group-data", str(GROUP_DATA)], cwd=ROOT, capture_output=True, text=True, check=False)
    return Counter(match["host"] for line in done.stderr.splitlines() if (match := _COMMAND.search(line)))


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "lab.py")
    parser.add_argument("-n", "--count", type=int, default=10, help="runs")
    parser.add_argument("--dry", action="store_true", help="only look; what differs is no obstacle")
    given = parser.parse_args()
    hosts = list(load(given.inventory).hosts)

    look = pyinfra_run.run(given.inventory, hosts, dry=True)
    differing = {finding.what for finding in look.findings} or {row["name"] for row in look.plan if row["hosts_with_change"]}
    if look.problems or (differing and not given.dry):
        print(*(look.problems or sorted(differing)), sep="\n", file=sys.stderr)
        print("This would not measure a deploy with nothing to do: run './phoenix deploy' first.", file=sys.stderr)
        sys.exit(2)
    trips = round_trips(given.inventory)
    print(f"{len(look.plan)} operations, {trips.total()} round trips ({', '.join(f'{host} {n}' for host, n in sorted(trips.items()))})")

    seconds = []
    for _ in range(given.count):
        run = pyinfra_run.run(given.inventory, hosts, dry=given.dry)
        if run.problems or run.changed:
            print(*run.problems, *(f"{one.host}: {one.what}" for one in run.findings), sep="\n", file=sys.stderr)
            sys.exit("A run changed something or failed: what it says is above.")
        seconds.append(run.seconds)
    what = "looks (--dry)" if given.dry else "deploys that changed nothing"
    spread = f"min {min(seconds):.2f}  median {statistics.median(seconds):.2f}  max {max(seconds):.2f}"
    print(f"{given.count} {what}, s: {spread}")


if __name__ == "__main__":
    main()
