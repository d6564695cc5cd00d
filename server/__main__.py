"""Serve the API: `python -m server`. The figures behind these choices are in docs/decisions.md."""

import gc
import logging
import os
import sys
import tempfile

from granian import Granian
from granian.constants import HTTPModes, Interfaces

from server.app import create_app
from server.http.wsgi import Api
from server.logs import configure_logs
from server.settings import SettingsError, load_settings

log = logging.getLogger("tocsin.api")

# More threads than calls that may be in flight to Supabase (data/transport.py): the rest can say that it is slow.
THREADS = 64
# Connections beyond this wait in the kernel's queue, where they cost nothing.
BACKPRESSURE = 128


# Objects that a request leaves behind in cycles are few; looking for them every 700 allocations takes 3 % of its CPU.
ALLOCATIONS_PER_COLLECTION = 10_000


def build_app() -> Api:
    """Build the API in a process that will serve it; granian calls this."""
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
    if settings.web_concurrency > 1:
        # Several processes add their counts up in files; prometheus_client looks for the folder when it is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="tocsin-metrics-")
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
    ).serve()


if __name__ == "__main__":
    main()
