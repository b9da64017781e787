"""What each service of a host really takes: the proportional set size (PSS) of its processes, beside what its unit may take.

python -m bench.memory [-i INVENTORY] [HOST]        a table, and the sum (docs/sizes.md)

PSS counts a page that n processes share as an n-th for each, so that the sum is memory that is really taken. Page cache is nobody's here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ops import inventory, remote
from ops.terminal import Terminal

# Run on the host, as root. The unit of a process is the last part of its control group that ends in .service or .scope.
PROGRAM = r"""
import collections, json, pathlib, subprocess
pss, count = collections.Counter(), collections.Counter()
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        group = (process / "cgroup").read_text().strip().rsplit(":", 1)[-1]
        unit = next((part for part in reversed(group.split("/")) if part.endswith((".service", ".scope"))), "other")
        rows = (process / "smaps_rollup").read_text().splitlines()
        size = sum(int(row.split()[1]) for row in rows if row.startswith(("Pss:", "SwapPss:")))
    except (OSError, IndexError, ValueError):
        continue
    pss[unit] += size
    count[unit] += 1
asked = subprocess.run(["systemctl", "show", "-p", "Id,MemoryMax", *pss], capture_output=True, text=True).stdout
limits = {}
for block in asked.split("\n\n"):
    has = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
    if has.get("MemoryMax", "infinity").isdecimal():
        limits[has["Id"]] = int(has["MemoryMax"]) // 1024
print(json.dumps([[unit, count[unit], size, limits.get(unit)] for unit, size in pss.most_common()]))
"""


def main() -> None:
    """Ask one host and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-i", "--inventory", type=Path, default=inventory.DEFAULT)
    parser.add_argument("host", nargs="?", default="vps1")
    given = parser.parse_args()
    target = inventory.host(inventory.made(given.inventory.absolute()), given.host)
    found = json.loads(remote.run(target, "python3 -", what="reading the sizes of processes", stdin=PROGRAM))
    rows = [[unit, str(count), f"{kb / 1024:.0f}", f"{limit / 1024:.0f}" if limit else ""] for unit, count, kb, limit in found]
    rows.append(["all", str(sum(one[1] for one in found)), f"{sum(one[2] for one in found) / 1024:.0f}", ""])
    Terminal().table(["unit", "processes", "PSS MB", "may take MB"], [[*row] for row in rows])


if __name__ == "__main__":
    main()
