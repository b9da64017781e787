"""The parts of the HTTP side that need no socket."""

import pytest
from phoenix_exporter.server import BadRequest, parse, scrape_timeout_s


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, 10.0),
        ("10", 9.75),
        ("5.0", 4.75),
        ("0.4", 0.2),  # the offset would leave less than half
        ("1e9", 10.0),
    ],
)
def test_scrape_ends_before_the_scraper_gives_up(header, expected):
    assert scrape_timeout_s(header, 10.0, 0.25) == pytest.approx(expected)


@pytest.mark.parametrize("header", ["", "soon", "0", "-3", "nan", "inf"])
def test_timeout_that_is_none_is_refused(header):
    with pytest.raises(ValueError, match="not a positive number of seconds"):
        scrape_timeout_s(header, 10.0, 0.25)


def test_header_names_have_no_case():
    request = parse(b"GET /metrics HTTP/1.1\r\nX-Prometheus-SCRAPE-Timeout-Seconds:  3 \r\n\r\n")
    assert request.headers["x-prometheus-scrape-timeout-seconds"] == "3"
    assert request.keep_alive


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", False),
    ],
)
def test_connection_is_kept_only_where_the_next_request_is_sure_to_begin(head, keep):
    assert parse(head).keep_alive is keep


@pytest.mark.parametrize("head", [b"GET /\r\n\r\n", b"GET / HTTP/2\r\n\r\n", b"GET / HTTP/1.1\r\nfoo\r\n\r\n"])
def test_what_is_not_http_is_refused(head):
    with pytest.raises(BadRequest):
        parse(head)
