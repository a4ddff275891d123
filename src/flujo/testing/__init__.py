"""Public tools for tests: scripted agents, a store in memory, the suite that every store passes."""
