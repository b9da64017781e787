"""What deploys/drill.py writes to /etc/phoenix-drill/config.json, typed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

from drill_errors import DrillRefused


@dataclass(frozen=True)
class Config:
    """Settings of the drill. Times are seconds, sizes MB (1,048,576 bytes); paths are absolute."""

    host: str
    """Name of the host that drills, for the receipt."""
    stanza: str
    """Name of the cluster in the repository; also the cluster's own."""
    hosts: list[str]
    """Addresses of the cluster's members; whoever takes writes is the witness."""
    port: int
    database: str
    schema: str
    """The tables of this schema are counted and hashed."""
    user: str
    ca: str
    """Authority that a member's certificate has to be of."""
    bin_dir: str
    """PostgreSQL's programs, of the cluster's major version."""
    pgbackrest: str
    directory: str
    """Where the scratch cluster, the receipts and the metrics are."""
    jobs: int
    """Processes for restore and checks; 0 takes the host's cores."""
    memory_mb: int
    """Memory that the unit may take; the scratch cluster is sized by it."""
    heapallindexed: bool
    """Whether amcheck also looks for every row in every index."""
    archive_timeout_s: int
    """How long the marker may take to reach the repository."""
    recovery_timeout_s: int
    """How long the scratch cluster may take to reach the marker."""
    witness_timeout_s: int
    """How long the leader may take to give the witness."""
    min_free_mb: int
    """What has to stay free on the disk while the drill runs."""
    keep_receipts: int

    @property
    def processes(self) -> int:
        """Processes for restore and checks."""
        return self.jobs or os.cpu_count() or 1


def load(path: Path) -> Config:
    """Read the settings. Raises DrillRefused when the file cannot be read or is not what this version expects."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DrillRefused(f"{path} cannot be read ({error}): './phoenix deploy' writes it anew.") from None
    names = {field.name for field in fields(Config)}
    if not isinstance(values, dict) or values.keys() != names:
        raise DrillRefused(f"{path} does not fit this version of the drill: './phoenix deploy' writes it anew.")
    return Config(**values)


def credential(name: str) -> Path:
    """The file of a secret: systemd gives it to the unit; root may read `password` where it lies, for a check."""
    return Path(os.environ.get("CREDENTIALS_DIRECTORY") or "/etc/phoenix-drill") / name
