"""What is done with the events of a lane: one module for each handler."""
