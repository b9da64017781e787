"""The watcher of Kafka Connect: what failed is restarted, at once and then ever more rarely; what it says is what Connect said."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from services.connect_watcher import LONGEST_PAUSE_S, WELL_S, Watch, over_http, read

URL = "http://connect"


def answer(connector: str = "RUNNING", *tasks: str) -> dict[str, Any]:
    """What /connectors?expand=status gives for one connector."""
    parts = [{"id": n, "state": state, "trace": "java.X: a\n\tat b\nCaused by: java.Y: the reason\n"} for n, state in enumerate(tasks)]
    return {"outbox": {"status": {"name": "outbox", "connector": {"state": connector}, "tasks": parts}}}


class Connect:
    """Answers as Connect does; `said` is what it says next, or an error."""

    def __init__(self) -> None:
        self.said: dict[str, Any] | Exception = answer("RUNNING", "RUNNING")
        self.restarts: list[str] = []

    def __call__(self, method: str, url: str) -> bytes:
        if method == "POST":
            self.restarts.append(url)
            return b""
        if isinstance(self.said, Exception):
            raise self.said
        return json.dumps(self.said).encode()


@pytest.fixture
def connect() -> Connect:
    return Connect()


@pytest.fixture
def watch(connect: Connect) -> Watch:
    return Watch(URL, connect)


def test_what_runs_is_left_alone(watch: Watch, connect: Connect) -> None:
    watch.look(0)
    assert connect.restarts == []
    assert watch.unwell() == []


@pytest.mark.parametrize("said", [answer("FAILED"), answer("RUNNING", "FAILED"), answer("RUNNING", "RUNNING", "FAILED")])
def test_what_failed_is_restarted_at_once(watch: Watch, connect: Connect, said: dict[str, Any]) -> None:
    connect.said = said
    watch.look(0)
    assert connect.restarts == [f"{URL}/connectors/outbox/restart?includeTasks=true&onlyFailed=true"]
    assert any("FAILED" in one for one in watch.unwell())


def test_a_fault_that_stays_is_restarted_ever_more_rarely(watch: Watch, connect: Connect) -> None:
    connect.said = answer("RUNNING", "FAILED")
    moments = []
    for second in range(0, 600, 2):
        before = len(connect.restarts)
        watch.look(second)
        if len(connect.restarts) > before:
            moments.append(second)
    pauses = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert pauses[:4] == [4, 8, 16, 32]
    assert set(pauses[4:]) == {LONGEST_PAUSE_S}
    assert f'phoenix_connect_restarts_total{{connector="outbox"}} {len(moments)}' in watch.metrics()


def test_after_it_ran_for_a_while_the_next_restart_is_at_once(watch: Watch, connect: Connect) -> None:
    connect.said = answer("RUNNING", "FAILED")
    for second in range(0, 30, 2):
        watch.look(second)
    connect.said = answer("RUNNING", "RUNNING")
    watch.look(30)
    watch.look(30 + WELL_S)
    connect.said = answer("RUNNING", "FAILED")
    before = len(connect.restarts)
    watch.look(31 + WELL_S)
    watch.look(35 + WELL_S)
    assert len(connect.restarts) == before + 2


@pytest.mark.parametrize("fault", [OSError("refused"), ValueError("no JSON")])
def test_a_connect_that_does_not_answer_is_said_to_be_away(watch: Watch, connect: Connect, fault: Exception) -> None:
    watch.look(0)
    assert "phoenix_connect_up 1" in watch.metrics()
    connect.said = fault
    watch.look(2)
    assert "phoenix_connect_up 0" in watch.metrics()
    assert "phoenix_connect_state{" not in watch.metrics(), "what nobody knows is not said"
    assert watch.unwell() == ["Connect does not answer"]


def test_a_connector_without_a_task_is_not_well_unless_a_person_stopped_it(watch: Watch, connect: Connect) -> None:
    connect.said = answer("RUNNING")
    watch.look(0)
    assert watch.unwell() == ["outbox has no task"]
    connect.said = answer("STOPPED")
    watch.look(2)
    assert watch.unwell() == []
    assert connect.restarts == []


def test_each_state_is_a_series_of_its_own(watch: Watch) -> None:
    watch.look(0)
    lines = watch.metrics().splitlines()
    assert 'phoenix_connect_state{connector="outbox",task="0",state="running"} 1' in lines
    assert 'phoenix_connect_state{connector="outbox",task="0",state="failed"} 0' in lines
    assert 'phoenix_connect_state{connector="outbox",task="connector",state="running"} 1' in lines


def test_a_restart_is_asked_for_as_connect_wants_it() -> None:
    """Over real HTTP: what urllib calls a form by itself, Connect refuses with 415."""
    asked: list[tuple[str, str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.command, self.path, self.headers["Content-Type"]))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        over_http("POST", f"http://127.0.0.1:{server.server_port}/connectors/outbox/restart")
    assert asked == [("POST", "/connectors/outbox/restart", "application/json")]


def test_the_reason_is_the_exception_itself_when_it_has_no_cause() -> None:
    said = answer("RUNNING", "FAILED")
    said["outbox"]["status"]["tasks"][0]["trace"] = "java.X: the reason\n\tat b\n"
    assert read(said)[1] == {"outbox": "java.X: the reason"}


def test_the_reason_is_the_innermost_cause() -> None:
    states, reasons = read(answer("RUNNING", "FAILED"))
    assert states == {("outbox", "connector"): "RUNNING", ("outbox", "0"): "FAILED"}
    assert reasons == {"outbox": "Caused by: java.Y: the reason"}
