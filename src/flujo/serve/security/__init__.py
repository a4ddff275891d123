"""Finds the principal of a request, and refuses requests before they reach an endpoint."""
