"""Serving: a finished recipe behind HTTP, on Ray Serve."""
