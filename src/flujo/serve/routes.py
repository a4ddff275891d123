"""Every endpoint of the server: one table, by which methods, paths and rights are checked."""

from __future__ import annotations

from flujo.serve.api import blobs, changes, claims, events, health, hooks, messages, openapi, runs
from flujo.serve.pages import actions, batch, deployed, inbox, live, login, question, run, start, stats
from flujo.serve.pages import runs as run_pages

ENDPOINTS = (
    *health.ENDPOINTS,
    *runs.ENDPOINTS,
    *changes.ENDPOINTS,
    *claims.ENDPOINTS,
    *events.ENDPOINTS,
    *openapi.ENDPOINTS,
    *blobs.ENDPOINTS,
    *messages.ENDPOINTS,
    *hooks.ENDPOINTS,
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
