"""`groundwire pull`: a folder on this machine that holds what the lake holds now.

`sync.pull` is the whole of it. A folder is complete or says so: its index (``tasks.json`` and its
kin) is replaced last and names only files that are there.
"""
