"""A real PgBouncer in front of the tests' server, from the system's packages.

Where it is not installed, its package is fetched by apt and unpacked into a folder of the tests:
nothing of the system is changed, and nobody needs to be root.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from tests.postgres import Server

HOW = (
    "these tests run a real PgBouncer. It is not installed, and apt could not fetch it ({}). "
    "Install it (`apt-get install pgbouncer`, `dnf install pgbouncer`, `brew install pgbouncer`) "
    "and run them again."
)
SETTINGS = """\
[databases]
* = host={server} port=5432 user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 200
# Whatever is left behind in a connection is met by somebody else soon.
server_round_robin = 1
server_login_retry = 1
{door}
"""

TRUSTING = "auth_type = trust"
USERS = '"postgres" ""\n"guarded" "right-secret"\n"certified" ""\n"plain" ""\n'


def program(cache: Path) -> tuple[str, Mapping[str, str]]:
    """The program, and the environment that it runs in.

    Args:
        cache: a folder where it may be unpacked; others may want it there at the same time.
    """
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which("pgbouncer", path=path):
        return found, os.environ
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = cache / "pgbouncer"
        if not (unpacked / "usr/sbin/pgbouncer").exists():
            _fetch(cache, unpacked)
    libraries = os.pathsep.join(str(folder) for folder in unpacked.glob("usr/lib/*-linux-*"))
    return str(unpacked / "usr/sbin/pgbouncer"), os.environ | {"LD_LIBRARY_PATH": libraries}


def _fetch(cache: Path, unpacked: Path) -> None:
    state = ["-o", f"Dir::State={cache}/state", "-o", f"Dir::Cache={cache}/cache"]
    for folder in ("state/lists/partial", "cache/archives/partial", "packages"):
        (cache / folder).mkdir(parents=True, exist_ok=True)

    def run(*command: str) -> str:
        try:
            done = subprocess.run(
                command, cwd=cache / "packages", capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise RuntimeError(HOW.format(error)) from None
        if done.returncode:
            raise RuntimeError(HOW.format(done.stderr.strip().rpartition("\n")[2]))
        return done.stdout

    run("apt-get", *state, "-q", "update")
    needs = re.findall(
        r"^ +Depends: (lib[^<>\s]+)$",
        run("apt-cache", *state, "depends", "pgbouncer"),
        re.MULTILINE,
    )
    wanted = ["pgbouncer", *(name for name in needs if name != "libc6")]
    run("apt-get", *state, "-q", "download", *wanted)
    for package in (cache / "packages").glob("*.deb"):
        run("dpkg", "-x", str(package), str(unpacked))


class Bouncer:
    """PgBouncer in transaction mode.

    Args:
        pool: connections to the server for each database.
        folder: an empty one.
        cache: of `program`.
        door: settings of who is let in.
    """

    def __init__(
        self, server: Server, folder: Path, cache: Path, *, pool: int = 2, door: str = TRUSTING
    ) -> None:
        self._server, self._folder = server, folder
        self._program, self._environment = program(cache)
        self._pool = pool
        self.door = door
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        place = Path(str(self._server.url("x").query["host"]))
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        values = {
            "server": place,
            "port": self.port,
            "folder": self._folder,
            "pool": self._pool,
            "door": self.door,
        }
        (self._folder / "settings.ini").write_text(SETTINGS.format(**values))
        (self._folder / "users").write_text(USERS)
        # It refuses to be root; whoever runs the server reaches its socket.
        owner = place.stat().st_uid if os.getuid() == 0 else None
        self._folder.chmod(0o755)
        log = (self._folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [self._program, str(self._folder / "settings.ini")],
                env=self._environment,
                stdout=log,
                stderr=log,
                user=owner,
            )
        tries = 1500
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            tries -= 1
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.02)
                tries = 0
            assert tries, (self._folder / "log").read_text()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, database: str) -> URL:
        """The URL of one of the server's databases, through it."""
        return make_url(database).set(host="127.0.0.1", port=self.port, query={})


@contextmanager
def a_bouncer(server: Server, folder: Path, cache: Path, *, pool: int = 2) -> Iterator[Bouncer]:
    bouncer = Bouncer(server, folder, cache, pool=pool)
    bouncer.start()
    try:
        yield bouncer
    finally:
        bouncer.stop()


class Pooled:
    """A place whose databases are reached through a pooler."""

    kind = "postgres"

    def __init__(self, server: Server, bouncer: Bouncer) -> None:
        self._server, self._bouncer = server, bouncer

    def new(self) -> str:
        return self._bouncer.url(self._server.empty()).render_as_string(hide_password=False)

    def drop(self, database: str) -> None:
        self._server.drop(database)
