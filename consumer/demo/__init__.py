"""Simulated platforms, phantom series and the scripted story of the demo."""
