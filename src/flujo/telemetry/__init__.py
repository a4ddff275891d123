"""Traces and metrics of runs for OpenTelemetry; the only package that knows OpenTelemetry.

A span is an entry of the journal. Its ids are derived from the run id, so that every process that continues a
run continues its trace, and `flujo trace --format otlp` builds the same spans from the database.
"""
