"""The script that tells the node exporter until when certificates are valid, run on certificates whose end is known."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509

from deploys.lib.operations import template
from deploys.lib.pki import Authority


def run(tmp_path: Path, certificates: list[Path]) -> tuple[subprocess.CompletedProcess[str], Path]:
    script, out = tmp_path / "phoenix-tls-expiry", tmp_path / "phoenix-tls.prom"
    script.write_text(template("node_exporter/phoenix-tls-expiry.j2", certificates=[str(path) for path in certificates])())
    return subprocess.run(["sh", str(script), str(out)], capture_output=True, text=True, check=False), out


def test_each_certificate_s_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    path.write_text(Authority.make().certificate)
    done, out = run(tmp_path, [path])
    assert done.returncode == 0, done.stderr
    end = int(x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
    assert out.read_text().splitlines()[2:] == [f'phoenix_tls_not_after_timestamp_seconds{{path="{path}"}} {end}']
    assert out.stat().st_mode & 0o777 == 0o644
    assert {one.name for one in tmp_path.iterdir()} == {"ca.crt", "phoenix-tls-expiry", "phoenix-tls.prom"}


def test_a_damaged_certificate_gives_no_value_but_hides_no_other(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.crt", tmp_path / "bad.crt"
    good.write_text(Authority.make().certificate)
    bad.write_text("-----BEGIN CERTIFICATE-----\n")
    done, out = run(tmp_path, [bad, good])
    assert done.returncode == 1
    assert f"{bad} cannot be read as a certificate" in done.stderr
    text = out.read_text()
    assert str(good) in text
    assert str(bad) not in text


def test_a_failed_run_leaves_the_last_values(tmp_path: Path) -> None:
    """The target directory is gone: the run fails, and what stood there is not half-written."""
    path = tmp_path / "ca.crt"
    path.write_text(Authority.make().certificate)
    done, _ = run(tmp_path, [path])
    assert done.returncode == 0
    script = tmp_path / "phoenix-tls-expiry"
    again = subprocess.run(["sh", str(script), str(tmp_path / "missing" / "x.prom")], capture_output=True, text=True, check=False)
    assert again.returncode != 0
    assert not (tmp_path / "missing").exists()
