"""`flujo serve`: pages for people who answer, and an API for services; needs the extra `serve`.

It imports `services`: what a page can do, `TaskClient` can do.
"""
