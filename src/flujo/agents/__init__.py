"""ASK: who answers a step: models through pydantic-ai, plain callables, scripts for tests."""
