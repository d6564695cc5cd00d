"""Serve the API: `python -m server`. The figures behind these choices are in docs/decisions.md."""

import gc
import logging
import os
import signal
import sys
from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from server.logs import configure_logs
from server.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from server.http.wsgi import Api

log = logging.getLogger("tocsin.api")

# More threads than calls that may be in flight to Supabase (data/transport.py): the rest can say that it is slow.
THREADS = 64
# Connections beyond this wait in the kernel's queue, where they cost nothing.
BACKPRESSURE = 128
# The longest request, a preview, takes 10 s and a little; who is not done then never will be.
STOP_TIMEOUT_SECONDS = 15


# Objects that a request leaves behind in cycles are few; looking for them every 700 allocations takes 3 % of its CPU.
ALLOCATIONS_PER_COLLECTION = 10_000


def build_app() -> "Api":
    """Build the API in a process that will serve it; granian calls this."""
    # Until granian serves, this process has the signal handlers of the one that it was forked from, which note the wish
    # and wait for this one to end: told to stop while it starts, it would never.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_DFL)
    # Not above: prometheus_client decides when it is imported whether processes add up, and `main` has to speak first.
    from server.app import create_app

    app = create_app()
    gc.collect()
    gc.freeze()  # what stands now stands as long as the process: no collection need look at it again
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    return app


def main() -> None:
    """Check the settings, then serve until told to stop."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    configure_logs(settings.log_level)
    address = f"http://{settings.host}:{settings.port}"
    log.info("api starts", extra={"address": address, "processes": settings.web_concurrency})
    with ExitStack() as until_stopped:
        if settings.web_concurrency > 1:
            # Several processes add their counts up in files; prometheus_client asks for the folder when it is imported.
            folder = until_stopped.enter_context(TemporaryDirectory(prefix="tocsin-metrics-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        Granian(
            "server.__main__:build_app",
            factory=True,
            interface=Interfaces.WSGI,
            address=settings.host,
            port=settings.port,
            workers=settings.web_concurrency,
            blocking_threads=THREADS,
            backpressure=BACKPRESSURE,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_TIMEOUT_SECONDS,
        ).serve()


if __name__ == "__main__":
    main()
