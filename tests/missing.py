"""Programs that a test machine may lack; the summary reports each skipped test with its reason."""

from __future__ import annotations

NO_POOLER = "pgbouncer is missing, so nothing was tested behind a pooler: `apt-get install pgbouncer`"

NO_NPM = "npm is missing, so the schema was not tried in an editor's service: install Node.js"

MAY_EVERYTHING = "permissions do not bind whoever runs the tests, so no read-only database was tried"

NO_CHROMIUM = "chromium is missing, so no browser has shown the page of a run: `apt-get install chromium`"

NO_KUBECTL = (
    "kubectl is missing, so the manifests of deploy/ were validated one by one and not built: install kubectl"
)

NO_SYSTEMD = (
    "systemd-analyze is missing, so systemd has not verified the units of deploy/: `apt-get install systemd`"
)

ALL = (NO_POOLER, NO_NPM, MAY_EVERYTHING, NO_CHROMIUM, NO_KUBECTL, NO_SYSTEMD)
