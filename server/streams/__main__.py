"""Serve the stream of events: `python -m server.streams`. Why a process of its own: docs/decisions.md."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final

import uvicorn
import uvloop

from server.logs import configure_logs
from server.settings import Settings, SettingsError, load_settings
from server.streams.app import create_stream_app
from server.streams.following import HEARTBEAT_SECONDS
from server.streams.hub import Ending, Hub

log = logging.getLogger("tocsin.streams")

STOP_TIMEOUT_SECONDS: Final = 3
# A reader who takes nothing for so long is gone, and so is one whose network went away without a word.
SILENCE_SECONDS: Final = 30
SEND_BUFFER_BYTES: Final = 64 * 1024  # what the kernel holds of a slow reader's stream; the rest is for us to bound
BACKLOG: Final = 4096
SPARE_FILES: Final = 256
# 5,000 streams are half a million objects, none of which is garbage: looking through them takes 100 ms.
ALLOCATIONS_PER_COLLECTION: Final = 50_000


class StreamServer(uvicorn.Server):
    """uvicorn, which before it closes its connections lets each reader be told."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop when told to, and end as who has stopped: uvicorn itself dies of the signal in the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)
        yield

    def _stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nobody more, take leave of everybody, then close what is left."""
        for server in self.servers:
            server.close()
        self._hub.end_everybody(Ending.RESTART)
        for _ in range(10):
            if not self._hub.readers:
                break
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; its connections inherit how patient they are."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)
    listener.bind((host, port))
    return listener


def allow_open_files(max_streams: int) -> None:
    """Raise the limit of open files as far as it may be, and say so where that is not enough."""
    wanted = max_streams + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < wanted:
        log.warning("fewer files may be open than MAX_STREAMS needs", extra={"allowed": most, "needed": wanted})


async def serve(settings: Settings) -> None:
    """Serve until told to stop."""
    app = create_stream_app(settings)
    config = uvicorn.Config(
        app.asgi,
        http="httptools",
        ws="websockets-sansio",
        ws_ping_interval=HEARTBEAT_SECONDS,
        ws_ping_timeout=SILENCE_SECONDS,
        ws_max_size=16 * 1024,
        ws_per_message_deflate=False,  # a compressor for each stream takes ten times what a stream takes
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_TIMEOUT_SECONDS,
    )
    server = StreamServer(config, app.hub)
    gc.collect()
    gc.freeze()  # as in the API: what stands now stands as long as the process
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    with listen(settings.host, settings.streams_port) as listener:
        await server.serve(sockets=[listener])


def main() -> None:
    """Check the settings, then serve."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    configure_logs(settings.log_level)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    allow_open_files(settings.max_streams)
    log.info("streams start", extra={"address": f"http://{settings.host}:{settings.streams_port}"})
    try:
        uvloop.run(serve(settings))
    except OSError as error:
        sys.exit(f"streams cannot listen on {settings.host}:{settings.streams_port}: {error.strerror}")
    log.info("streams stopped")


if __name__ == "__main__":
    main()
