"""Medical and image formats: pure functions, bytes in, value out, no I/O."""
