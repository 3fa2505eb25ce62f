"""The page that shows the OpenAPI document: Swagger UI, whose files come out of a package and not from the internet."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from payments_ledger.web.routes import Route

# What a browser may do for this page: run these files, ask this server. No script or style stands in the page itself.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# fastapi-offline ships the files of npm's swagger-ui-dist.
_SWAGGER_UI = Path(str(files("fastapi_offline"))) / "static"
# They change with a new version of the engine only.
_SECONDS_KEPT = 3600

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Payments Ledger</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="documentation"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Without a validator: it would send the document's address to somebody else.
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#documentation",
  deepLinking: true,
  validatorUrl: null,
});
"""

PATHS = frozenset({"/", "/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"})

router = APIRouter(include_in_schema=False, route_class=Route)


@router.api_route("/", methods=["GET", "HEAD"])
async def lead_to_the_documentation() -> Response:
    """Nothing else is at the root, which is what people try first."""
    return RedirectResponse("/docs")


@router.api_route("/docs", methods=["GET", "HEAD"])
async def show_page() -> Response:
    """HTML without a script or style of its own, as PAGE_POLICY demands."""
    return HTMLResponse(_PAGE)


@router.api_route("/docs/start.js", methods=["GET", "HEAD"])
async def show_start() -> Response:
    """The call that draws the page, in a file because PAGE_POLICY forbids it in the page."""
    return Response(_START, media_type="text/javascript")


@router.api_route("/docs/swagger-ui-bundle.js", methods=["GET", "HEAD"])
async def show_script() -> Response:
    """Swagger UI's script, as its package ships it."""
    return _file("swagger-ui-bundle.js", "text/javascript")


@router.api_route("/docs/swagger-ui.css", methods=["GET", "HEAD"])
async def show_style() -> Response:
    """Swagger UI's style sheet, as its package ships it."""
    return _file("swagger-ui.css", "text/css")


def _file(name: str, media_type: str) -> Response:
    headers = {"Cache-Control": f"private, max-age={_SECONDS_KEPT}"}
    return FileResponse(_SWAGGER_UI / name, headers=headers, media_type=media_type)
