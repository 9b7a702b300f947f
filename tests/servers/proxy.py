"""A TCP proxy that counts round trips, adds latency, freezes, and cuts connections."""

import asyncio
import threading
from urllib.parse import urlsplit, urlunsplit

from tests.servers.processes import HOST, free_port

CHUNK = 65536


class Proxy:
    """In front of the server of a URL; `url` is the same through the proxy. Runs in a thread of its own.

    A round trip begins whenever a client speaks first or after the server did, so a pipeline of many commands counts
    once, unless the server begins to answer before the client has sent all of it. Opening a connection and logging in
    count as well: call `reset` after that.
    """

    def __init__(self, url, latency=0.0):
        parts = urlsplit(url)
        self.target = parts.hostname, parts.port
        self.port = free_port()
        login = parts.netloc.rpartition("@")
        self.url = urlunsplit(parts._replace(netloc="".join(login[:2]) + f"{HOST}:{self.port}"))
        self.latency = latency  # seconds each way; may be changed at any time
        self.round_trips = 0
        self.connections = 0  # all that were ever accepted
        self._open = set()  # the tasks of connections
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._listener = None

    def start(self):
        self._thread.start()
        self._run(self._listen())
        self.thaw()
        return self

    def reset(self):
        self.round_trips = 0

    def freeze(self):
        """Pass nothing on any more, and keep all connections: as a network that loses every packet."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def thaw(self):
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self):
        """Drop all connections and refuse new ones until `heal`."""
        self._run(self._cut())

    def heal(self):
        self._run(self._listen())

    def close(self):
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _listen(self):
        if self._listener is None:
            self._listener = await asyncio.start_server(self._accept, HOST, self.port)

    async def _cut(self):
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        while self._open:
            tasks = list(self._open)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader, writer):
        task = asyncio.current_task()
        self._open.add(task)
        self.connections += 1
        writers = [writer]
        try:
            await self._flowing.wait()
            there, back = await asyncio.open_connection(*self.target)
            writers.append(back)
            await self._relay(reader, writer, there, back)
        except* OSError:  # one side is gone, so the other one goes too
            pass
        except* asyncio.CancelledError:  # by `cut`
            pass
        finally:
            for each in writers:
                each.transport.abort()
            self._open.discard(task)

    async def _relay(self, reader, writer, there, back):
        asked = False  # whether the client spoke last

        def client():
            nonlocal asked
            self.round_trips += not asked
            asked = True

        def server():
            nonlocal asked
            asked = False

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pump(reader, back, client))
            tasks.create_task(self._pump(there, writer, server))

    async def _pump(self, source, sink, spoke):
        """Pass on in order, each chunk `latency` after it came: a delay of the line, not a limit of its speed."""
        line = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await line.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                await self._flowing.wait()
                if not data:
                    sink.write_eof()
                    return
                sink.write(data)
                await sink.drain()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(deliver())
            while True:
                data = await source.read(CHUNK)
                if data:
                    spoke()
                line.put_nowait((self._loop.time() + self.latency, data))
                if not data:
                    return
