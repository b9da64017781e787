"""Asks the services of the host it runs on whether they are well. Sent over SSH and run there: standard library only.

Everything is asked at the same time and nothing waits longer than TIMEOUT_S, so that one frozen service costs no more than that.
"""

import json
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any

TIMEOUT_S = 3.0
TLS = "/etc/phoenix/tls"

POSTGRESQL = (
    "SELECT format('%s, %s, %s of %s connections',"
    " CASE WHEN pg_is_in_recovery() THEN 'replica' ELSE 'leader' END, split_part(version(), ' ', 2),"
    " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), current_setting('max_connections'))"
)

Answer = tuple[bool, str]


def http(address: str, port: int, path: str, tls: bool) -> Answer:
    """Whether a GET is answered with 2xx; over TLS with the host's own certificate as the client's."""
    started = time.monotonic()
    try:
        status, _ = _get(address, port, path, tls)
    except (OSError, HTTPException, ValueError) as error:
        return False, _reason(error)
    took_ms = (time.monotonic() - started) * 1000
    return 200 <= status < 300, f"{path} answered {status} in {took_ms:.0f} ms"


def said(address: str, port: int, path: str, tls: bool) -> Answer:
    """As `http`; what the answer says, one line, is the detail."""
    try:
        status, text = _get(address, port, path, tls, most=500)
    except (OSError, HTTPException, ValueError) as error:
        return False, _reason(error)
    return 200 <= status < 300, text.strip()


def _get(address: str, port: int, path: str, tls: bool, *, most: int = 0) -> tuple[int, str]:
    """Status and the first `most` bytes of the answer. Raises OSError, HTTPException, ValueError."""
    if tls:
        context = ssl.create_default_context(cafile=TLS + "/ca.crt")
        context.load_cert_chain(TLS + "/host.crt", TLS + "/host.key")
        connection: HTTPConnection = HTTPSConnection(address, port, timeout=TIMEOUT_S, context=context)
    else:
        connection = HTTPConnection(address, port, timeout=TIMEOUT_S)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read(most).decode(errors="replace") if most else ""
    connection.close()
    return answer.status, text


def tcp(address: str, port: int) -> Answer:
    """Whether a connection is accepted."""
    try:
        socket.create_connection((address, port), timeout=TIMEOUT_S).close()
    except OSError as error:
        return False, _reason(error)
    return True, "accepts connections"


def postgresql(port: int) -> Answer:
    """Whether the server answers the superuser over its socket; who leads, version, connections."""
    command = ["runuser", "-u", "postgres", "--", "psql", "-XAtq", "-p", str(port), "-d", "postgres", "-c", POSTGRESQL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, _reason(error)
    if done.returncode != 0:
        return False, (done.stderr.strip().splitlines() or ["psql failed"])[0].removeprefix("psql: error: ")
    return True, done.stdout.strip()


def tailscale(address: str) -> Answer:
    """Whether the host is in the tailnet at `address` and its control server answers; how many others it sees."""
    try:
        done = subprocess.run(["tailscale", "status", "--json"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        status = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return False, "tailscaled does not answer" if isinstance(error, ValueError) else _reason(error)
    own, peers = status["Self"], (status.get("Peer") or {}).values()
    if status["BackendState"] != "Running":
        return False, f"not in the tailnet ({status['BackendState']})"
    if address not in own["TailscaleIPs"]:
        return False, f"has the address {own['TailscaleIPs'][0]}, not {address}"
    seen = f"{address}, {sum(bool(peer['Online']) for peer in peers)} of {len(peers)} others are there"
    return bool(own["Online"]), seen if own["Online"] else f"{seen}; the control server does not answer"


def units(names: list[str]) -> dict[str, dict[str, str]]:
    """systemd's properties of each unit, by its name."""
    properties = "--property=Id,LoadState,ActiveState,SubState,ConditionResult,Result"
    done = subprocess.run(["systemctl", "show", properties, *names], capture_output=True, text=True, check=False)
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if line) for block in done.stdout.split("\n\n")]
    # In the order asked for; an alias has another Id than its name.
    return dict(zip(names, [block for block in blocks if block], strict=False))


def unit(state: dict[str, str]) -> Answer:
    """Whether a unit does its work, from its properties."""
    load, active, sub = state.get("LoadState", ""), state.get("ActiveState", ""), state.get("SubState", "")
    if load != "loaded":
        return False, "not installed" if load in ("not-found", "") else load
    if active == "active":
        return True, "done" if sub == "exited" else sub
    if active == "inactive" and state.get("ConditionResult") == "no":
        return True, "not needed on this host"
    return False, f"{active} ({state.get('Result') or sub})"


def main(services: list[dict[str, Any]]) -> None:
    """Print, as JSON, [ok, detail] for each service: unit, kind, address, port, path, tls."""

    def ask(service: dict[str, Any]) -> Answer:
        if service["kind"] == "http":
            return http(service["address"], service["port"], service["path"], service["tls"])
        if service["kind"] == "said":
            return said(service["address"], service["port"], service["path"], service["tls"])
        if service["kind"] == "tcp":
            return tcp(service["address"], service["port"])
        if service["kind"] == "tailscale":
            return tailscale(service["address"])
        return postgresql(service["port"])

    with ThreadPoolExecutor(max_workers=16) as pool:
        states = pool.submit(units, list(dict.fromkeys(service["unit"] for service in services)))
        asked = [None if service["kind"] == "unit" else pool.submit(ask, service) for service in services]
        answers = []
        for service, future in zip(services, asked, strict=True):
            ok, detail = unit(states.result().get(service["unit"], {}))
            if ok and future is not None:
                ok, detail = future.result()
            answers.append([ok, detail])
    print(json.dumps(answers))


def _reason(error: Exception) -> str:
    if isinstance(error, (TimeoutError, subprocess.TimeoutExpired)):
        return f"no answer within {TIMEOUT_S:.0f} s"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return str(error) or type(error).__name__
