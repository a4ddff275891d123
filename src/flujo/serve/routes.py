"""Every endpoint of the server: one table, by which methods, paths and rights are checked."""

from __future__ import annotations

from flujo.serve.api import changes, events, health, openapi, runs
from flujo.serve.pages import actions, batch, inbox, live, login, question, run, stats
from flujo.serve.api import changes, events, health, runs
from flujo.serve.pages import actions, batch, deployed, inbox, live, question, run, start
from flujo.serve.pages import runs as run_pages
from flujo.serve.api import blobs, changes, events, health, messages, openapi, runs
from flujo.serve.pages import inbox

ENDPOINTS = (
    *health.ENDPOINTS,
    *runs.ENDPOINTS,
    *changes.ENDPOINTS,
    *events.ENDPOINTS,
    *openapi.ENDPOINTS,
    *blobs.ENDPOINTS,
    *messages.ENDPOINTS,
    *inbox.ENDPOINTS,
    *run_pages.ENDPOINTS,
    *run.ENDPOINTS,
    *login.ENDPOINTS,
    *live.ENDPOINTS,
    *question.ENDPOINTS,
    *batch.ENDPOINTS,
    *actions.ENDPOINTS,
    *stats.ENDPOINTS,
    *start.ENDPOINTS,
    *deployed.ENDPOINTS,
)
