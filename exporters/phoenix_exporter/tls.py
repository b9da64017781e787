"""The server's side of TLS: certificates that are read again when they change, and clients that must show one."""

from __future__ import annotations

import ssl
from pathlib import Path

from phoenix_exporter import journal
from phoenix_exporter.config import Tls

CHECK_INTERVAL_S = 1.0

_Stamp = tuple[tuple[int, int, int], ...]


class TlsError(Exception):
    """One sentence: which files do not make a working server, and why."""


class Certificates:
    """Gives the context for a new connection. Changed files that do not work leave the old context in force."""

    def __init__(self, settings: Tls, now: float) -> None:
        """Load the files. Raises TlsError."""
        self._settings = settings
        self._stamp = self._read_stamp()
        self._checked_at = now
        self._context, self.expires = self._load()
        self.reload_ok = True

    def context(self, now: float) -> ssl.SSLContext:
        """Give the context for a connection accepted at `now` (monotonic seconds)."""
        if now - self._checked_at >= CHECK_INTERVAL_S:
            self._checked_at = now
            self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            stamp = self._read_stamp()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._context, self.expires = self._load()
        except TlsError as error:
            if self.reload_ok:
                journal.write("certificate not reloaded", level="error", reason=error)
            self.reload_ok = False
            return
        self.reload_ok = True
        journal.write("certificate reloaded", certificate=self._settings.certificate)

    def _files(self) -> tuple[Path, Path, Path]:
        return self._settings.certificate, self._settings.key, self._settings.client_ca

    def _read_stamp(self) -> _Stamp:
        try:
            stats = [path.stat() for path in self._files()]
        except OSError as error:
            raise TlsError(f"{error.filename}: cannot be read: {error.strerror}") from error
        # The time of change also moves when only a right was changed, which may be what was wrong.
        return tuple((s.st_ino, s.st_ctime_ns, s.st_size) for s in stats)

    def _load(self) -> tuple[ssl.SSLContext, float]:
        certificate, key, client_ca = self._files()
        for path in self._files():
            try:
                path.read_bytes()
            except OSError as error:
                raise TlsError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            context = _server_context(certificate, key)
            expires = _rehearse(_server_context(certificate, key), client_ca)
            context.load_verify_locations(cafile=client_ca)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or str(error)
            raise TlsError(f"{certificate}, {key} and {client_ca} do not fit together: {reason}") from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context, expires


def _server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A resumed session would skip the check of the client's certificate against a CA that was replaced meanwhile.
    context.num_tickets = 0
    context.load_cert_chain(certificate, key)
    return context


def _rehearse(server: ssl.SSLContext, client_ca: Path) -> float:
    """Shake hands with ourselves in memory, as a client that trusts the CA; return when the certificate expires (unix time).

    This finds a key of another certificate, a certificate of another CA and an expired one before they are put into
    service.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cafile=client_ca)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(4):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    seen = ends[0].getpeercert()
    if not seen:
        raise ValueError("the rehearsed handshake showed no certificate")
    return float(ssl.cert_time_to_seconds(str(seen["notAfter"])))
