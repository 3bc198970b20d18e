"""Annotation platforms: each a file with what it verifies, parses, fetches and downloads."""
