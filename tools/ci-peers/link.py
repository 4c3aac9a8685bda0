"""A slow link: a TCP proxy with a rate and a delay, counting bytes. Linux's own netem is not in every kernel."""
import asyncio, threading


class Link:
    """Forwards a free loopback port to `target`. `rate` in bytes a second and `delay` in seconds one way, each way
    by itself; all connections share the rate. Without a rate it only counts. Up is towards the target."""

    def __init__(self, target, rate=None, delay=0.0):
        self.target, self.rate, self.delay = target, rate, delay
        self.up = self.down = self.connections = 0
        self.free_at = {"up": 0.0, "down": 0.0}
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    async def _accept(self, reader, writer):
        self.connections += 1
        try:
            if self.rate:
                await asyncio.sleep(2 * self.delay)  # the handshake's round trip
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._forward("up", reader, there_writer), self._forward("down", there_reader, writer),
                             return_exceptions=True)

    async def _forward(self, way, reader, writer):
        # What is on the link, at most a rate's worth of some round trips: beyond it the sender has to wait.
        on_the_way = asyncio.Queue(maxsize=256)

        async def deliver():
            broken = False
            while (item := await on_the_way.get()) is not None:
                at, data = item
                wait = at - self.loop.time()
                if wait > 0:
                    await asyncio.sleep(wait)
                try:
                    if not broken:
                        writer.write(data)
                        await writer.drain()
                except OSError:
                    broken = True  # goes on taking, so that the reader's side ends, too
            writer.close()

        delivering = self.loop.create_task(deliver())
        try:
            while data := await reader.read(16 << 10 if self.rate else 256 << 10):
                setattr(self, way, getattr(self, way) + len(data))
                at = self.loop.time()
                if self.rate:
                    self.free_at[way] = max(self.free_at[way], at) + len(data) / self.rate
                    at = self.free_at[way] + self.delay
                await on_the_way.put((at, data))
        except OSError:
            pass
        await on_the_way.put(None)
        await delivering

    def counted(self):
        """Bytes (up, down) since the last call."""
        counted, self.up, self.down = (self.up, self.down), 0, 0
        return counted

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
