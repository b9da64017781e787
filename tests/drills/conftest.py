"""Drills: real faults on the machines of the lab, judged by writers outside the database. Only the lab is ever touched.

Each drill begins with a whole cluster and must leave one: one leader, the standby synchronous, every etcd healthy. Those marked `long`
are left out of `make test`; `make drills` runs all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploys.lib.settings import ROOT, Platform, load
from tests.drills.cluster import Cluster, Ways
from tests.drills.faults import mend_everything


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes longer than make test waits; run by make drills")


@pytest.fixture(scope="session")
def platform() -> Platform:
    return load(Path(os.environ.get("PHOENIX_INVENTORY", ROOT / "inventory" / "lab.py")).resolve())


@pytest.fixture(scope="session")
def cluster(platform: Platform) -> Cluster:
    return Cluster.of(platform)


@pytest.fixture(scope="session")
def ways(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return Ways(cluster, tmp_path_factory.mktemp("ways"))


@pytest.fixture(autouse=True)
def whole(cluster: Cluster) -> Iterator[None]:
    """What is broken when a drill begins is not the drill's; what is broken when it ends is."""
    if cluster.problems():
        mend_everything(cluster)
        cluster.wait_whole()
    yield
    mend_everything(cluster)
    cluster.wait_whole()
