"""Encryption, certificates and passwords between the store and a server."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import StoreBlocked, StoreError, StoreUnavailable
from runner.store.store import Store
from tests.pgbouncer import Bouncer
from tests.postgres import Server

pytestmark = pytest.mark.anyio

DOORS = """\
hostssl all guarded 127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostnossl all plain 127.0.0.1/32 trust
"""


def certificates(folder: Path) -> None:
    """Two authorities of our own, and certificates for the server and one user; one expired."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca in ("ca", "other"):
        openssl(
            "req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}"
        )
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    for name, subject, days in (
        ("server", "localhost", "2"),
        ("expired", "localhost", "-1"),
        ("certified", "certified", "2"),
    ):
        openssl(
            "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={subject}"
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", days, "-extfile", "names", "-out", f"{name}.crt"),
        )


class Door:
    """PgBouncer before the tests' server, which is built without encryption itself."""

    def __init__(self, bouncer: Bouncer, folder: Path) -> None:
        self._bouncer, self.folder = bouncer, folder

    def open(self, certificate: str | None) -> None:
        """Let in, with this certificate of its own; None: without encryption."""
        self._bouncer.stop()
        lines = [f"auth_type = hba\nauth_hba_file = {self.folder}/doors"]
        if certificate is not None:
            lines += [
                "client_tls_sslmode = allow",
                f"client_tls_ca_file = {self.folder}/ca.crt",
                f"client_tls_cert_file = {self.folder}/{certificate}.crt",
                f"client_tls_key_file = {self.folder}/{certificate}.key",
            ]
        self._bouncer.door = "\n".join(lines)
        self._bouncer.start()

    def url(self, user: str, host: str = "localhost", **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql+asyncpg://{user}@{host}:{self._bouncer.port}/empty?{query}"


@pytest.fixture(scope="module")
def made(
    postgres_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Bouncer, Path]]:
    cache = tmp_path_factory.getbasetemp().parent / "pgbouncer"
    with tempfile.TemporaryDirectory(prefix="runner-tls-") as name:
        folder = Path(name)
        certificates(folder)
        (folder / "doors").write_text(DOORS)
        for file in folder.iterdir():
            file.chmod(0o644)  # whoever PgBouncer runs as
        bouncer = Bouncer(postgres_server, folder, cache)
        yield bouncer, folder
        bouncer.stop()


@pytest.fixture
def guarded(made: tuple[Bouncer, Path]) -> Door:
    door = Door(*made)
    door.open("server")
    return door


async def opens(url: str) -> None:
    await (await Store.open(url, create=False)).close()


async def test_the_server_is_known_by_its_certificate(guarded: Door) -> None:
    who = "guarded:right-secret"
    root = guarded.folder / "ca.crt"
    await opens(guarded.url(who, sslmode="verify-full", sslrootcert=root))
    await opens(guarded.url(who, ssl="require"))
    with pytest.raises(
        StoreBlocked, match=r"safely \(IP address mismatch.*127\.0\.0\.1.*sslrootcert"
    ):
        await opens(guarded.url(who, "127.0.0.1", sslmode="verify-full", sslrootcert=root))
    await opens(guarded.url(who, "127.0.0.1", sslmode="verify-ca", sslrootcert=root))
    other = guarded.folder / "other.crt"
    with pytest.raises(
        StoreBlocked, match=r"safely \(.*unable to get.*issuer certificate|safely \(self"
    ):
        await opens(guarded.url(who, sslmode="verify-full", sslrootcert=other))
    with pytest.raises(StoreUnavailable, match=r"no file /nowhere\.crt, which `sslrootcert`"):
        await opens(guarded.url(who, sslmode="verify-full", sslrootcert="/nowhere.crt"))
    with pytest.raises(StoreError, match=r"sslmode"):
        await opens(guarded.url(who, sslmode="sometimes"))


async def test_a_client_is_known_by_his_certificate(guarded: Door) -> None:
    files = {
        part: guarded.folder / f"certified.{part[3:].replace('cert', 'crt')}"
        for part in ("sslcert", "sslkey")
    }
    root = {"sslmode": "verify-full", "sslrootcert": guarded.folder / "ca.crt"}
    await opens(guarded.url("certified", **root, **files))
    with pytest.raises(StoreUnavailable, match=r"refused you .*certificate"):
        await opens(guarded.url("certified", **root))


async def test_an_expired_certificate_is_told(guarded: Door) -> None:
    guarded.open("expired")
    root = guarded.folder / "ca.crt"
    with pytest.raises(StoreBlocked, match=r"safely \(certificate has expired\)"):
        await opens(guarded.url("guarded:right-secret", sslmode="verify-full", sslrootcert=root))


async def test_a_server_that_does_not_encrypt_is_told(guarded: Door) -> None:
    guarded.open(None)
    await opens(guarded.url("plain"))
    with pytest.raises(StoreBlocked, match=r"safely \(it does not encrypt"):
        await opens(guarded.url("plain", sslmode="require"))


async def test_passwords_come_from_where_other_programs_have_them(
    guarded: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreUnavailable, match=r"refused you .*PGPASSWORD or ~/\.pgpass") as told:
        await opens(guarded.url("guarded:wrong-secret", sslmode="require"))
    assert "wrong-secret" not in str(told.value)
    with pytest.raises(StoreUnavailable, match="refused you"):
        await opens(guarded.url("guarded", sslmode="require"))
    monkeypatch.setenv("PGPASSWORD", "right-secret")
    await opens(guarded.url("guarded", sslmode="require"))
    monkeypatch.delenv("PGPASSWORD")
    passwords = tmp_path / ".pgpass"
    passwords.write_text("localhost:*:*:guarded:right-secret\n")
    passwords.chmod(0o600)
    await opens(guarded.url("guarded", sslmode="require"))
    passwords.rename(tmp_path / "elsewhere")
    await opens(guarded.url("guarded", sslmode="require", passfile=tmp_path / "elsewhere"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "elsewhere"))
    await opens(guarded.url("guarded", sslmode="require"))
