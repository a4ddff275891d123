"""Pages from templates. Every value is escaped: none of them is trusted as HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Return a page.

    Args:
        request: the request; templates have it as `request`, and the path of the server as `base`.
        template: the name of a file in `templates/`.
        status: the HTTP status.
        headers: headers of the answer.
        **values: what the template shows.
    """
    base = request.scope.get("root_path", "")
    text = _TEMPLATES.get_template(template).render(request=request, base=base, **values)
    return HTMLResponse(text, status, headers)
