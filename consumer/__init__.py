"""Groundwire's way of one webhook: receive, verify, queue, dispatch, log."""
