"""The API, described: the OpenAPI document, and a page to browse it, served from here so that it works offline."""

from pathlib import Path

import flask_swagger_ui

from server.errors import NotFound
from server.http.replies import JSON, Reply
from server.http.routing import Feature, Services, public

feature = Feature("Service")

HTML = "text/html; charset=utf-8"
_ASSETS = {
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "favicon-32x32.png": "image/png",
}
_FOLDER = Path(flask_swagger_ui.__file__).parent / "dist"
_SCRIPT = """\
window.addEventListener("load", () => {
  window.ui = SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true });
});
"""
_PAGE = """\
<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Tocsin API</title>
  <link rel="icon" href="/docs/favicon-32x32.png">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
  <div id="docs"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""
# The bundle writes style attributes and uses data: images; scripts are ours alone.
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'",
}
_FOR_A_DAY = {"Cache-Control": "public, max-age=86400"}


@feature.route("GET", "/openapi.json", content_type=JSON)
@public
def openapi(services: Services) -> Reply:
    """Describe this API: OpenAPI 3.1."""
    return Reply(services.openapi_document)


@feature.route("GET", "/docs", content_type=HTML)
@public
def docs(services: Services) -> Reply:
    """Browse this API."""
    return Reply(_PAGE.encode(), content_type=HTML, headers=dict(_POLICY))


@feature.route("GET", "/docs/<string:asset>", content_type="*/*", refusals=(NotFound,))
@public
def docs_asset(services: Services, asset: str) -> Reply:
    """Serve a part of the page."""
    if asset == "start.js":
        return Reply(_SCRIPT.encode(), content_type="text/javascript; charset=utf-8", headers=dict(_FOR_A_DAY))
    if asset not in _ASSETS:
        raise NotFound
    found = _FOLDER / asset
    return Reply(found.read_bytes(), content_type=_ASSETS[asset], headers=dict(_FOR_A_DAY))
