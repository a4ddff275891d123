"""The vocabulary: plain data and pure functions, no I/O. Everything else in Flujo speaks it."""
