"""The only holder of the secret key, which passes row-level security. Every use of it is a named function of this file.

Each is one narrow RPC that the database grants to `service_role` alone; but for `secret_deriver`, which opens nothing.
"""

import hmac
from collections.abc import Callable
from typing import Any

from server.data.clients import Database
from server.data.queries import call
from server.data.transport import UpstreamSession


def secret_deriver(secret_key: str) -> Callable[[str], bytes]:
    """Return what makes of a seed 256 bits that follow from it, and that nobody without the secret key can know."""
    return lambda seed: hmac.digest(secret_key.encode(), seed.encode(), "sha256")


class Privileged:
    """What the worker and the stream process may do beyond any user.

    Answers are the JSON documents of the functions of the same names.
    """

    def __init__(self, session: UpstreamSession, supabase_url: str, secret_key: str) -> None:
        identity = [("apikey", secret_key)]
        if secret_key.count(".") == 2:  # a legacy service_role JWT; sb_secret_… keys go in the apikey header alone
            identity.append(("Authorization", f"Bearer {secret_key}"))
        self._database = Database(session, f"{supabase_url}/rest/v1", tuple(identity))

    def claim_due(self, region: str, max_checks: int, lease_seconds: int) -> bytes:
        """Lease monitors that are due: {now, checks}."""
        return self._call("claim_due", {"region": region, "max_checks": max_checks, "lease_seconds": lease_seconds})

    def record(self, batch: list[dict[str, Any]]) -> bytes:
        """Write results and what was judged of them: {now, counted}. Repeating it changes nothing."""
        return self._call("record", {"batch": batch})

    def claim_deliveries(self, max_deliveries: int, lease_seconds: int) -> bytes:
        """Lease deliveries that are due, with their signing secrets: {now, deliveries}."""
        return self._call("claim_deliveries", {"max_deliveries": max_deliveries, "lease_seconds": lease_seconds})

    def settle_deliveries(self, batch: list[dict[str, Any]]) -> bytes:
        """Say how attempts ended: {settled}. Repeating it changes nothing."""
        return self._call("settle_deliveries", {"batch": batch})

    def claim_heartbeats(self, max_heartbeats: int, lease_seconds: int, hesitate_seconds: int) -> bytes:
        """Lease heartbeats that are due, with the pings that nobody has judged: {now, heartbeats}.

        None for `hesitate_seconds` after a time in which nobody asked.
        """
        arguments = {
            "max_heartbeats": max_heartbeats,
            "lease_seconds": lease_seconds,
            "hesitate_seconds": hesitate_seconds,
        }
        return self._call("claim_heartbeats", arguments)

    def move_heartbeats(self, noticed_at: str, leapt_seconds: float) -> bytes:
        """Move what heartbeats were last heard of as far as the database's clock has leapt: {moved}. Happens once."""
        return self._call("move_heartbeats", {"noticed_at": noticed_at, "leapt_seconds": leapt_seconds})

    def record_heartbeats(self, batch: list[dict[str, Any]]) -> bytes:
        """Write what was judged of heartbeats: {now, counted}. Repeating it changes nothing."""
        return self._call("record_heartbeats", {"batch": batch})

    def maintain_pings(self, days_ahead: int, max_rows: int) -> bytes:
        """Make the partitions of the days to come, drop or delete pings past their retention: {dropped, done}."""
        return self._call("maintain_pings", {"days_ahead": days_ahead, "max_rows": max_rows})

    def maintain_check_results(self, days_ahead: int) -> bytes:
        """Make the partitions of the days to come and drop those that no plan keeps any longer: the number dropped."""
        return self._call("maintain_check_results", {"days_ahead": days_ahead})

    def apply_retention(self, max_rows: int) -> bytes:
        """Delete some of the results that have passed their own plan's retention: {deleted, done}."""
        return self._call("apply_retention", {"max_rows": max_rows})

    def forget_answers(self, max_rows: int) -> bytes:
        """Forget what was kept for idempotency keys of more than 24 hours ago: how many."""
        return self._call("forget_answers", {"max_rows": max_rows})

    def roll_up(self, max_rows: int) -> bytes:
        """Roll up hours that have ended, and those again into which late results have fallen: {rolled_up, done}."""
        return self._call("roll_up", {"max_rows": max_rows})

    def prune_hours(self, max_rows: int) -> bytes:
        """Delete some of the hourly rollups that have passed their plan's retention: how many."""
        return self._call("prune_hours", {"max_rows": max_rows})

    def release_alerts(self) -> bytes:
        """Tell of the incidents that nothing holds any longer: {released}."""
        return self._call("release_alerts", {})

    def windows_to_extend(self, days_ahead: int, max_windows: int) -> bytes:
        """Return recurring maintenance windows of which less than `days_ahead` days are written, as a JSON array."""
        return self._call("windows_to_extend", {"days_ahead": days_ahead, "max_windows": max_windows})

    def extend_window(
        self, window_id: str, version: int, occurrences: list[dict[str, str]], written_until: str | None
    ) -> bytes:
        """Write more occurrences of a maintenance window; false where it has changed. Repeating it changes nothing."""
        arguments = {
            "window_id": window_id,
            "version": version,
            "occurrences": occurrences,
            "written_until": written_until,
        }
        return self._call("extend_window", arguments)

    def stream_events(self, after: tuple[int, int] | None, max_events: int) -> bytes:
        """Return what has happened in all organisations: {events, position, has_more, horizon, memberships}.

        `after` is a transaction id and a sequence; None: no events, the present position. Raises Gone.
        """
        xid, seq = (str(after[0]), after[1]) if after else (None, None)
        return self._call("stream_events", {"after_xid": xid, "after_seq": seq, "max_events": max_events})

    def prune_events(self, keep_days: int, max_events: int) -> bytes:
        """Drop what is older from the event log, at most `max_events`: the number dropped."""
        return self._call("prune_events", {"keep_days": keep_days, "max_events": max_events})

    def _call(self, function: str, arguments: dict[str, Any]) -> bytes:
        return self._database.execute(call(function, arguments))
