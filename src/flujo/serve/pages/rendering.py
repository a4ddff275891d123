"""Pages from templates. Every value is escaped: none of them is trusted as HTML."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse

from flujo.domain.wording import short, span
from flujo.governance.screen import visible
from flujo.governance.sink import GATE
from flujo.serve.pages.markdown import markdown
from flujo.serve.security import cookies, csrf
from flujo.services.inspection import formatting
from flujo.services.project.system import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

_NAVIGATION = (
    ("/", "Inbox"),
    ("/runs", "Runs"),
    ("/start", "Start"),
    ("/stats", "Figures"),
    ("/deployed", "Deployed"),
)


class Unmasked(str):
    """A text that is shown as it is: what the reader has typed, or a digest that comes back unchanged."""

    __slots__ = ()


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Return a page. Secrets and personal data in its values are masked as in `flujo trace`.

    Args:
        request: the request. Templates have it as `request`, the path of the server as `base`, its principal
            or None as `user`, and `csrf_field()`, which each form calls.
        template: the name of a file in `templates/`.
        status: the HTTP status.
        headers: headers of the answer.
        **values: what the template shows.
    """
    base = request.scope.get("root_path", "")
    text = _TEMPLATES.get_template(template).render(
        request=request,
        base=base,
        links=_links(request, base),
        user=getattr(request.state, "principal", None),
        has_session=cookies.session_of(request) is not None,
        csrf_field=partial(csrf.field, request),
        **values,
    )
    return HTMLResponse(text, status, headers)


def see_other(request: Request, path: str) -> Response:
    """Return the answer to a change: the browser then gets the page at a path of this server."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}{path}", 303)


def _links(request: Request, base: str) -> list[tuple[str, str, bool]]:
    """Return the pages of the server: path, name, and whether it is the one that is shown."""
    here = request.url.path.removeprefix(base)
    there = {getattr(route, "path", None) for route in request.app.routes}
    inside = [path for path, _ in _NAVIGATION if path != "/" and f"{here}/".startswith(f"{path}/")]
    current = inside[0] if inside else "/"
    return [(path, name, path == current) for path, name in _NAVIGATION if path in there]


def _finished(value: Any) -> Any:
    """Return a value as a page shows it: masked, with invisible characters made visible."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Unmasked) and not hasattr(value, "__html__"):
        return visible(GATE.result(value))
    return value


def moment(seconds: float | None) -> str:
    """Return a time in UTC; nothing for None."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def away(seconds: float | None) -> str:
    """Return how far a moment is from now: `in 3 h`, `2 d ago`; nothing for None."""
    if seconds is None:
        return ""
    left = seconds - SystemClock.now()
    size, unit = next(each for each in _UNITS if abs(left) >= each[0] or each[0] == 1)
    words = f"{int(abs(left) // size)} {unit}"
    return f"in {words}" if left > 0 else f"{words} ago"


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def brief(text: str) -> str:
    """Return the beginning of a text in one line."""
    return short(" ".join(GATE.result(text[:_LONGEST]).split()), _BRIEF)


_BRIEF, _LONGEST = 140, 2000

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_finished,
)
_TEMPLATES.filters |= {
    "moment": moment,
    "span": span,
    "brief": brief,
    "markdown": markdown,
    "away": away,
    "usage": formatting.usage,
}
_TEMPLATES.globals["typed"] = Unmasked
