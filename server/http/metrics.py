"""How the API does, for Prometheus: requests by method, route and status, with their durations."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class RequestMetrics:
    """Counts requests. Labels are route templates, never paths, so that their number is bounded by the routes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "tocsin_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        durations = Histogram(
            "tocsin_http_request_duration_seconds",
            "Time from the first line of the request to the last of the answer.",
            ["method", "route"],
            buckets=BUCKETS_SECONDS,
            registry=registry,
        )
        # A labelled child is looked up under a lock; ours are few and live for ever.
        self._count = cache(requests.labels)
        self._duration = cache(durations.labels)

    def observe(self, method: str, route: str, status: str, seconds: float) -> None:
        """Count one request."""
        if method not in {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"}:
            method = "other"  # whatever a client sends must not become a label
        self._count(method, route, status).inc()
        self._duration(method, route).observe(seconds)


def exposition(registry: CollectorRegistry) -> bytes:
    """Return the metrics in Prometheus' text format, of all processes where there are several."""
    every_process = CollectorRegistry()
    try:
        MultiProcessCollector(every_process)  # type: ignore[no-untyped-call]
    except ValueError:  # it knows no folder that processes share: this one is alone
        return generate_latest(registry)
    return generate_latest(every_process)
