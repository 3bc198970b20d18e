"""Where the lake lies: one module for each kind of store."""
