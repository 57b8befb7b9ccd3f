"""Helpers of the course, one module per duty. Import names from the modules; nothing happens at import."""
