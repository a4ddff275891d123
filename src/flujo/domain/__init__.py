"""The vocabulary that all of Flujo shares: plain data and pure functions, no I/O."""
