"""The open questions, for the people who answer them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from flujo.domain.access import Right
from flujo.domain.questions import QuestionOrder
from flujo.exceptions import SettingsError
from flujo.serve.endpoints import Endpoint
from flujo.serve.pages.rendering import page
from flujo.serve.serving import principal, tasks
from flujo.services.inspection.questions import KINDS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

_PAGE = 50
_FILTERS = ("words", "blueprint", "queue", "kind", "user_id", "meta", "claim")
_SORT = "sort"


async def inbox(request: Request) -> Response:
    """Show the questions that wait for an answer, by urgency or by risk; the filters are in the URL."""
    asked = {name: request.query_params.get(name, "").strip() for name in _FILTERS}
    order = request.query_params.get(_SORT) or QuestionOrder.URGENCY
    found = await tasks(request).questions(
        **_conditions(asked, principal(request).name),
        order=order,
        limit=_PAGE + 1,
        cursor=request.query_params.get("after") or None,
    )
    shown = found[:_PAGE]
    given = {name: text for name, text in asked.items() if text}
    following = {
        **given,
        _SORT: order,
        "after": shown[-1].cursor if shown else "",
    }
    return page(
        request,
        "inbox.html",
        questions=shown,
        asked=asked,
        kinds=KINDS,
        order=order,
        orders=[(each, urlencode({**given, _SORT: each})) for each in QuestionOrder],
        is_filtered=any(asked.values()),
        has_more_filters=any(text for name, text in asked.items() if name != "words"),
        may_answer=Right.ANSWER in principal(request).role.rights,
        me=principal(request).name,
        further=urlencode(following) if len(found) > _PAGE else None,
    )


def _conditions(asked: dict[str, str], me: str) -> dict[str, Any]:
    """Return the conditions of a list as `TaskClient.questions` takes them.

    Raises:
        SettingsError: a condition on metadata is not `key=value`.
    """
    found: dict[str, Any] = {
        name: asked[name] for name in ("words", "blueprint", "queue", "kind", "user_id") if asked[name]
    }
    if asked["meta"]:
        found["metadata_filter"] = dict(map(_of_metadata, asked["meta"].split()))
    if asked["claim"] == "mine":
        found["claimed_by"] = me
    elif asked["claim"] == "none":
        found["unclaimed"] = True
    return found


def _of_metadata(text: str) -> tuple[str, list[Any]]:
    """Return a condition on metadata: a number or a truth value is also looked for as a text."""
    key, separator, value = text.partition("=")
    if not separator:
        raise SettingsError(
            f"{text!r} is not a condition on metadata", hint="write `key=value`: `team=north`"
        )
    try:
        return key, [value, json.loads(value)]
    except (ValueError, RecursionError):
        return key, [value]


ENDPOINTS = (Endpoint("GET", "/", inbox, Right.READ),)
