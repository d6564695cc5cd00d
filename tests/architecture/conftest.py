"""The API in memory, as the tests of HTTP have it."""

from tests.http.conftest import _app_and_upstream, app, client, settings, signed_in, token, upstream

__all__ = ["_app_and_upstream", "app", "client", "settings", "signed_in", "token", "upstream"]
