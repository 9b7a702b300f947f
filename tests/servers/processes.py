"""Servers as processes of the test session: on free ports, killed, frozen, started again, never left behind."""

import atexit
import functools
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.servers import guard

HOST = "127.0.0.1"
# Below the ports a system hands out by itself (from 32768 on Linux), so that nobody takes the port of a server that is
# down for a moment. A Redis Cluster node listens on its port + 10000 as well, hence the upper end.
PORTS = range(12000, 22000)
BUS = 10000
START = 30.0  # seconds a server may take to answer; two cores may be busy with other tests

_taken: set[int] = set()


def free_port():
    """A port nobody listens on, nor on its cluster bus; never the same twice in one session."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if port not in _taken and _unused(port) and _unused(port + BUS):
            _taken.add(port)
            return port
    raise OSError(f"no free port in {PORTS}")


def _unused(port):
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


@functools.cache
def _guard():
    process = subprocess.Popen(
        [sys.executable, "-P", guard.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for the session, which ends its servers in its own time
    )
    atexit.register(process.communicate)
    return process


def tell_guard(*words):
    stream = _guard().stdin
    stream.write(" ".join(map(str, words)) + "\n")
    stream.flush()


class Server:
    """One server process. A subclass says how it is started and when it is ready."""

    ending = signal.SIGTERM
    user: dict = {}  # noqa: RUF012 - arguments of Popen that make it run as somebody else

    def __init__(self):
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="llm-memory-test-"))
        self.log = self.folder / "log"
        self.process = None
        tell_guard("folder", self.folder)

    def command(self):
        raise NotImplementedError

    def environment(self):
        return None  # the session's own

    def ready(self):
        raise NotImplementedError

    @property
    def pid(self):
        return self.process.pid

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, self.command())),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self.user,
            )
        tell_guard("start", self.pid, int(self.ending))
        deadline = time.monotonic() + START
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise RuntimeError(f"{type(self).__name__} did not start on port {self.port}:\n{said}")
            time.sleep(0.005)
        return self

    def kill(self):
        """SIGKILL, children included: nothing is flushed, nobody is told."""
        if self.process is not None:
            guard.kill(self.pid)
            self._collect()

    def stop(self):
        """SIGSTOP, children included: connections stay open and nothing answers."""
        guard.freeze(self.pid)

    def cont(self):
        guard.thaw(self.pid)

    def restart(self):
        """Start again on the same port with the same data, as after a crash if it still runs."""
        self.kill()
        return self.start()

    def close(self):
        if self.process is not None:
            guard.end(self.pid, self.ending)
            self._collect()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _collect(self):
        self.process.wait(guard.PATIENCE)
        tell_guard("ended", self.pid)

    def __enter__(self):
        return self if self.running else self.start()

    def __exit__(self, *_):
        self.close()


class Servers:
    """Several servers that stand and fall together; each can be hit alone through `nodes`."""

    nodes: list[Server]

    def kill(self):
        for node in self.nodes:
            node.kill()

    def stop(self):
        for node in self.nodes:
            node.stop()

    def cont(self):
        for node in self.nodes:
            node.cont()

    def restart(self):
        self.kill()
        return self.start()

    def close(self):
        for node in self.nodes:
            node.close()

    def start(self):
        raise NotImplementedError

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


def wait_until(happened, what, seconds=START):
    """Poll until `happened()` is true."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.01)
