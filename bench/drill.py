"""How long a restore drill takes, step by step: `.venv/bin/python bench/drill.py`, the lab by default.

    bench/drill.py -n 3            three drills of what there is
    bench/drill.py --seed 60000    first replaces all data by that many personas (60,000 with all that belongs to them are about 1 GB) and
                                   takes a full backup

Before each drill the same backup is restored by `pgbackrest restore` alone, on the same host and into the same file system, so that the
two times can be compared. Prints minimum, median and maximum of each step in seconds.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from deploys.lib.settings import DrillSettings, Platform, PlatformHost, PostgresqlSettings, load  # noqa: E402 - the project comes first
from ops import inventory  # noqa: E402

PROGRAM = "/usr/local/lib/phoenix/drill.py"
WAITS = "wait for the archive"


def on(host: PlatformHost, script: str) -> str:
    """Output of a shell script run as root. Ends the program when it fails."""
    done = subprocess.run(
        [*inventory.ssh(host), inventory.as_root(host, ["sh", "-c", script])], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{host.name}: {script.splitlines()[0][:80]}: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done.stdout


def leader(platform: Platform, cluster: str) -> PlatformHost:
    """The member of a cluster that takes writes."""
    asked = "cd / && runuser -u postgres -- psql -XAtqc 'SELECT pg_is_in_recovery()'"
    for host in platform.group("postgresql"):
        if host[PostgresqlSettings].cluster_name == cluster and on(host, asked).strip() == "f":
            return host
    sys.exit(f"Nobody leads {cluster}: see './phoenix status'.")


def prepare(platform: Platform, personas: int, source: PlatformHost) -> None:
    """Replace the data, and take a full backup of it."""
    command = ["./phoenix", "seed", "-i", str(platform.inventory), "--replace", "--yes", "--personas", str(personas)]
    subprocess.run(command, cwd=ROOT, check=True)
    on(source, "python3 -I /usr/local/lib/phoenix/backup.py full --here")


def alone(host: PlatformHost, settings: DrillSettings) -> float:
    """Seconds that `pgbackrest restore` takes by itself."""
    directory = f"{settings.directory}/bench"
    own = "--log-level-console=off --log-level-file=off --type=none --process-max=$(nproc)"
    own += f" --stanza={settings.cluster_name} --lock-path=/tmp/phoenix-bench-drill --pg1-path={directory}"
    on(host, f"rm -rf {directory} && install -d -o postgres -m 700 {directory}")
    started = time.monotonic()
    on(host, f"cd / && runuser -u postgres -- pgbackrest {own} restore")
    took = time.monotonic() - started
    on(host, f"rm -rf {directory} /tmp/phoenix-bench-drill")
    return took


def spread(values: list[float]) -> str:
    """Minimum, median, maximum."""
    return f"{min(values):8.1f} {statistics.median(values):8.1f} {max(values):8.1f}"


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventory" / "lab.py")
    parser.add_argument("-n", "--count", type=int, default=3, help="drills")
    parser.add_argument("--seed", type=int, metavar="PERSONAS", help="replace all data first")
    given = parser.parse_args()
    platform = load(given.inventory.resolve())
    (host, *_) = platform.group("drill")
    settings = host[DrillSettings]
    if given.seed:
        prepare(platform, given.seed, leader(platform, settings.cluster_name))

    steps: dict[str, list[float]] = {}
    totals, working, rpos, rtos, bare, ratios = [], [], [], [], [], []
    for _ in range(given.count):
        bare.append(alone(host, settings))
        receipt = json.loads(on(host, f"{shlex.quote(PROGRAM)} --json 2>/dev/null || true"))
        if not receipt["ok"]:
            sys.exit(f"The drill failed: {receipt['error']}")
        seconds = {step["name"]: step["seconds"] for step in receipt["steps"]}
        for name, value in seconds.items():
            steps.setdefault(name, []).append(value)
        totals.append(receipt["seconds"])
        working.append(receipt["seconds"] - seconds[WAITS])
        rpos.append(receipt["rpo_seconds"])
        rtos.append(receipt["rto_seconds"])
        ratios.append(seconds["restore"] / bare[-1])
        size, rows = receipt["backup"]["bytes"], receipt["rows"]
    print(f"{given.count} drills of {size / 1e9:.2f} GB, {rows} rows; seconds: minimum, median, maximum")
    for name, values in [*steps.items(), ("all", totals), (f"all but '{WAITS}'", working), ("RPO", rpos), ("RTO", rtos)]:
        print(f"{name:32}{spread(values)}")
    print(f"{'pgbackrest restore alone':32}{spread(bare)}")
    print(f"{'restore of the drill / alone':32}{min(ratios):8.2f} {statistics.median(ratios):8.2f} {max(ratios):8.2f}")


if __name__ == "__main__":
    main()
