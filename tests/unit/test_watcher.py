"""The watcher: silence is told from every kind of answer, and what is ended takes its children along."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services import watcher


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "SILENCE_S", 0.2)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_a_server_that_accepts_and_says_nothing_does_not_answer(listener: socket.socket) -> None:
    assert not watcher.postgresql_answers(port(listener))


def test_one_byte_is_an_answer(listener: socket.socket) -> None:
    def serve() -> None:
        client, _ = listener.accept()
        assert client.recv(8) == watcher.GSS_ENCRYPTION_REQUEST
        client.sendall(b"N")
        client.close()

    thread = threading.Thread(target=serve)
    thread.start()
    assert watcher.postgresql_answers(port(listener))
    thread.join()


def test_a_closed_door_is_an_answer(listener: socket.socket) -> None:
    closed = port(listener)
    listener.close()
    assert watcher.postgresql_answers(closed)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process called postgres with a child, both of them asleep."""
    program = tmp_path / "postgres"
    shutil.copy(shutil.which("bash") or "/bin/bash", program)
    with subprocess.Popen([program, "-c", "sleep 60 & wait"]) as process:
        until = time.monotonic() + 5
        while not children(process.pid) and time.monotonic() < until:
            time.sleep(0.01)
        yield process
        process.kill()


def children(pid: int) -> list[int]:
    return [one for one in watcher.processes() if watcher.parent(one) == pid]


def test_what_is_ended_takes_its_frozen_children_along(server: subprocess.Popen[bytes]) -> None:
    (child,) = children(server.pid)
    for one in (child, server.pid):
        os.kill(one, signal.SIGSTOP)
    watcher.end(server.pid)
    assert server.wait(timeout=5) == -signal.SIGKILL
    until = time.monotonic() + 5
    while watcher.state(child) not in ("", "Z") and time.monotonic() < until:
        time.sleep(0.01)
    assert watcher.state(child) in ("", "Z")


def test_it_is_ended_after_the_last_try_and_then_left_alone(server: subprocess.Popen[bytes]) -> None:
    asked: list[bool] = []

    def silent() -> bool:
        asked.append(True)
        return False

    watched = watcher.Watched("PostgreSQL", lambda: server.pid, silent, tries=3)
    for count in (1, 2):
        watched.look(time.monotonic() + watcher.ASK_S)
        assert (len(asked), server.poll()) == (count, None)
    watched.look(time.monotonic())
    assert server.wait(timeout=5) == -signal.SIGKILL
    watched.look(time.monotonic())
    assert len(asked) == 3


def test_an_answer_in_between_begins_anew() -> None:
    answers = iter([False, False, True, False, False])
    watched = watcher.Watched("PostgreSQL", os.getpid, lambda: next(answers), tries=3)
    now = 0.0
    for _ in range(5):
        now += watcher.ASK_S
        watched.look(now)  # would end this very process on a third silence in a row


def test_a_stopped_server_is_asked_at_once_and_a_running_one_in_its_turn(server: subprocess.Popen[bytes]) -> None:
    asked: list[bool] = []

    def answers() -> bool:
        asked.append(True)
        return True

    watched = watcher.Watched("PostgreSQL", lambda: server.pid, answers, tries=3)
    watched.look(watcher.ASK_S)
    watched.look(watcher.ASK_S + 1)
    assert len(asked) == 1
    os.kill(server.pid, signal.SIGSTOP)
    until = time.monotonic() + 5
    while watcher.state(server.pid) != "T" and time.monotonic() < until:
        time.sleep(0.01)
    watched.look(watcher.ASK_S + 2)
    assert len(asked) == 2


def test_a_process_number_in_the_pid_file_that_is_somebody_else_s_is_not_the_server(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
    assert watcher.postmaster(tmp_path) is None
    assert watcher.postmaster(tmp_path / "nothing") is None


class Leads(watcher.Apart):
    """Asks nobody: a member `a` of etcd is here, `b` and `c` are elsewhere, and `off` does not answer."""

    def __init__(self, *, etcd: str, database: str, members: int = 2, off: tuple[str, ...] = (), learners: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 2379), ("192.0.2.1", 8008), ssl.create_default_context())
        self._etcd_leader, self._off, self.moved = etcd, off, list[str]()
        self._cluster = [{"name": "other", "host": "192.0.2.9", "role": "replica"}] * (members - 1)
        self._cluster.append({"name": "one", "host": database, "role": "leader"})
        self._members: list[dict[str, Any]] = [
            {"ID": name, "name": name, "clientURLs": [f"https://{name}:2379"], "isLearner": name in learners} for name in "abc"
        ]

    def _ask(self, peer: watcher.Peer, path: str, body: dict[str, str] | None = None) -> Any:
        if peer[0] in self._off:
            raise TimeoutError
        if path == "/v3/maintenance/transfer-leadership":
            self.moved.append((body or {})["targetID"])
        return {
            "/v3/maintenance/status": {"header": {"member_id": "a"}, "leader": self._etcd_leader},
            "/v3/cluster/member/list": {"members": self._members},
            "/cluster": {"members": self._cluster},
        }.get(path)


@pytest.mark.parametrize(
    ("leads", "moved"),
    [
        (Leads(etcd="a", database="192.0.2.1"), ["b"]),
        (Leads(etcd="b", database="192.0.2.1"), []),
        (Leads(etcd="a", database="192.0.2.9"), []),
        (Leads(etcd="a", database="192.0.2.1", members=1), []),
        (Leads(etcd="a", database="192.0.2.1", off=("b",)), ["c"]),
        (Leads(etcd="a", database="192.0.2.1", learners=("b",)), ["c"]),
        (Leads(etcd="a", database="192.0.2.1", off=("b", "c")), []),
        (Leads(etcd="a", database="192.0.2.1", off=("192.0.2.1",)), []),
    ],
)
def test_one_host_does_not_keep_both_leads(leads: Leads, moved: list[str]) -> None:
    leads.look(watcher.ASK_S)
    leads.look(watcher.ASK_S + 1)  # not asked again so soon
    assert leads.moved == moved
