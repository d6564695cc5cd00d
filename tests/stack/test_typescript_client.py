"""The TypeScript client and real supabase-js under Node, against the API, the streams and the embedded Supabase.

The steps are those of clients/typescript/tests/journey.test.ts.
"""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from clients import generate
from tests.stack.conftest import EmbeddedSupabase
from tests.stack.product import UNLIMITED, running_api
from tests.stack.streaming import running_streams
from tests.stack.upstream import Between, through

LIMITS = UNLIMITED.replace("costly=1000000000/day", "costly=2/second")


def test_a_page_with_supabase_js_gets_along_with_the_api(
    supabase: EmbeddedSupabase, worker: "subprocess.Popen[bytes]", tmp_path: Path
):
    between = Between(supabase.url)
    with (
        running_streams(supabase, tmp_path) as streams_url,
        running_api(through(between, supabase), tmp_path, STREAMS_URL=streams_url, RATE_LIMITS=LIMITS) as api,
        switch_of(between) as switch_url,
    ):
        journey = generate.run_node(
            "--test",
            "--test-reporter=spec",
            "--test-timeout=60000",
            "tests/journey.test.ts",
            env={
                "SUPABASE_URL": supabase.url,
                "SUPABASE_PUBLISHABLE_KEY": supabase.publishable_key,
                "SUPABASE_JWT_SECRET": supabase.jwt_secret,
                "SUPABASE_SWITCH": switch_url,
                "STREAMS_URL": streams_url,
                "TOCSIN_URL": api.url,
            },
        )
    between.close()
    assert journey.returncode == 0, journey.stdout + journey.stderr
    assert worker.poll() is None


@contextmanager
def switch_of(between: Between) -> Iterator[str]:
    """Let another process switch an upstream: `POST /off` makes it answer as a proxy does whose server is away."""

    class Switch(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            between.become("html" if self.path == "/off" else None)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name that http.server calls
            return

    server = HTTPServer(("127.0.0.1", 0), Switch)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
