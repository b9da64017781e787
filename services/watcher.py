"""Puts right what a failover would wait for: a PostgreSQL server, or a Patroni, that is there but does not answer, and etcd's leader on the
host that leads the database.

Patroni keeps the connection it has and never notices that no new one is served: a frozen postmaster leads on while every client hangs. So
this program asks as a client does, and when it hears nothing, three times in a row, it ends the server the hard way. Patroni sees a server
that died, and promotes the standby. An answer of any kind, a refusal too, counts as life: a server that starts, recovers or is full is left
alone. A Patroni that does not answer for longer than its lease is ended as well; systemd starts it again.

A new leader of etcd gives every lease its whole time anew. Where one machine has both leads and is lost, the standby would wait for etcd's
election and then for the whole lease; so the database's leader hands etcd's lead to another member (docs/decisions/0504-two-leaders.md).

It runs as PostgreSQL's own user, which may signal both. Standard library only. The numbers are of docs/decisions/0501-watcher.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOOK_S = 1.0
"""How often the processes' state is looked at; costs a file read."""
ASK_S = 15.0
"""How often a connection is opened in any case. PostgreSQL logs each."""
SILENCE_S = 5.0
"""How long one answer is waited for."""
TRIES = 3
REST_S = 60.0
"""How long after ending a process the same kind is left alone: what takes its place has to come up."""

# A client that asks for GSS encryption: any server answers one byte, before it knows who asks, and logs nothing when the client leaves.
GSS_ENCRYPTION_REQUEST = struct.pack("!ii", 8, 80877104)


def main(arguments: list[str] | None = None) -> int:
    """Watch until stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="PostgreSQL's data directory")
    parser.add_argument("--port", type=int, required=True, help="PostgreSQL's port on 127.0.0.1")
    parser.add_argument("--patroni", required=True, metavar="ADDRESS:PORT")
    parser.add_argument("--etcd", type=int, default=0, metavar="PORT", help="port of the member of etcd on 127.0.0.1; 0 for none")
    parser.add_argument("--lease", type=float, required=True, metavar="SECONDS", help="Patroni's ttl")
    parser.add_argument("--tls", type=Path, required=True, help="directory with ca.crt, host.crt, host.key")
    given = parser.parse_args(arguments)
    address, _, port = given.patroni.rpartition(":")
    context = ssl.create_default_context(cafile=given.tls / "ca.crt")
    context.load_cert_chain(given.tls / "host.crt", given.tls / "host.key")
    watched: list[Watched | Apart] = [
        Watched("PostgreSQL", lambda: postmaster(given.data), lambda: postgresql_answers(given.port), tries=TRIES),
        Watched("Patroni", patroni, lambda: patroni_answers(address, int(port), context), tries=int(given.lease / SILENCE_S) + 1),
    ]
    if given.etcd:
        watched.append(Apart(("127.0.0.1", given.etcd), (address, int(port)), context))
    notify("READY=1")
    while True:
        for one in watched:
            one.look(time.monotonic())
        notify("WATCHDOG=1")
        time.sleep(LOOK_S)


class Watched:
    """One process that has to answer."""

    def __init__(self, name: str, find: Callable[[], int | None], answers: Callable[[], bool], *, tries: int) -> None:
        self.name = name
        self._find, self._answers, self._tries = find, answers, tries
        self._silent = 0
        self._asked_at = 0.0
        self._rest_until = 0.0

    def look(self, now: float) -> None:
        """Ask when it is time to, when the process is stopped, or when it was silent before; end it after the last try."""
        pid = self._find()
        if pid is None or now < self._rest_until:
            self._silent = 0
            return
        if not self._silent and now - self._asked_at < ASK_S and state(pid) not in "Tt":
            return
        self._asked_at = now
        if self._answers():
            self._silent = 0
            return
        self._silent += 1
        log(f"{self.name} (process {pid}) did not answer within {SILENCE_S:.0f} s, {self._silent} of {self._tries}")
        if self._silent >= self._tries:
            self._silent, self._rest_until = 0, time.monotonic() + REST_S
            if self._find() == pid:
                log(f"{self.name} (process {pid}) is ended: it answers nobody")
                end(pid)


Peer = tuple[str, int]
"""Address and port of something that speaks HTTPS."""


class Apart:
    """The leads of etcd and of the database, which one machine must not have both."""

    def __init__(self, etcd: Peer, patroni: Peer, context: ssl.SSLContext) -> None:
        self._etcd, self._patroni, self._context = etcd, patroni, context
        self._asked_at = 0.0

    def look(self, now: float) -> None:
        """When it is time to, and this host has both: hand etcd's lead to a member that answers."""
        if now - self._asked_at < ASK_S:
            return
        self._asked_at = now
        try:
            status = self._ask(self._etcd, "/v3/maintenance/status", {})
            own = status["header"]["member_id"]
            if status.get("leader") != own or not self._leads_others():
                return
            for member in self._ask(self._etcd, "/v3/cluster/member/list", {})["members"]:
                if member["ID"] != own and not member.get("isLearner") and self._answers(member):
                    self._ask(self._etcd, "/v3/maintenance/transfer-leadership", {"targetID": member["ID"]})
                    log(f"etcd is led by {member['name']} from now on: this host leads the database")
                    return
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            log(f"who leads etcd and who leads the database is not known: {error}")

    def _leads_others(self) -> bool:
        """Whether Patroni here leads a cluster that has somebody to take over."""
        members = self._ask(self._patroni, "/cluster")["members"]
        return len(members) > 1 and any(member["role"] == "leader" and member.get("host") == self._patroni[0] for member in members)

    def _answers(self, member: dict[str, Any]) -> bool:
        """Whether a member of etcd serves: a lead that is handed to one that is off is nobody's for a while."""
        for url in member.get("clientURLs", []):
            there = urlsplit(url)
            try:
                self._ask((str(there.hostname), int(there.port or 0)), "/v3/maintenance/status", {})
                return True
            except (OSError, http.client.HTTPException, ValueError):
                continue
        return False

    def _ask(self, peer: Peer, path: str, body: dict[str, str] | None = None) -> Any:
        """The JSON that is answered. Raises OSError, HTTPException, or ValueError for an answer that is none."""
        connection = http.client.HTTPSConnection(*peer, timeout=SILENCE_S, context=self._context)
        try:
            connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.client.OK:
                raise ValueError(f"{path} on {peer[0]}: {answer.status} {text[:200].decode(errors='replace')}")
            return json.loads(text)
        finally:
            connection.close()


def postgresql_answers(port: int) -> bool:
    """Whether the server says anything to a new client. A closed port is an answer: nobody hangs there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SILENCE_S) as client:
            client.settimeout(SILENCE_S)
            client.sendall(GSS_ENCRYPTION_REQUEST)
            client.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def patroni_answers(address: str, port: int, context: ssl.SSLContext) -> bool:
    """Whether Patroni's API says anything."""
    connection = http.client.HTTPSConnection(address, port, timeout=SILENCE_S, context=context)
    try:
        connection.request("GET", "/liveness")
        connection.getresponse().read()
    except TimeoutError:
        return False
    except (OSError, http.client.HTTPException):
        return True
    finally:
        connection.close()
    return True


def postmaster(data: Path) -> int | None:
    """The server's process, None when there is none."""
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        return pid if Path(f"/proc/{pid}/cwd").resolve() == data.resolve() else None
    except (OSError, ValueError):
        return None


def patroni() -> int | None:
    """Patroni's process, None when there is none."""
    own = os.getuid()
    for pid in processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if Path(f"/proc/{pid}").stat().st_uid == own and b"/usr/bin/patroni" in words[:3]:
                return pid
        except OSError:
            continue
    return None


def end(pid: int) -> None:
    """Kill a process, and its children after it: a frozen child would keep the shared memory that the next server needs.

    The server goes first: one that saw its children die would begin to recover and to fork anew.
    """
    children = [child for child in processes() if parent(child) == pid] if is_postgres(pid) else []
    for one in [pid, *children]:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def is_postgres(pid: int) -> bool:
    """Patroni's children are none of our business: one of them may be the server."""
    return Path(f"/proc/{pid}/exe").resolve().name == "postgres"


def processes() -> Iterator[int]:
    """All process numbers."""
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def state(pid: int) -> str:
    """The process's state as the kernel has it: R, S, D, T (stopped), t (traced), Z; empty when it is gone."""
    return _stat(pid)[0]


def parent(pid: int) -> int:
    """The process's parent, 0 when it is gone."""
    return int(_stat(pid)[1] or 0)


def _stat(pid: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[1]


def notify(message: str) -> None:
    """Tell systemd, where it listens."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.sendto(message.encode(), "\0" + path[1:] if path.startswith("@") else path)


def log(text: str) -> None:
    """A line for the journal."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
