"""The audit log: a C2SP tlog-tiles log that strangers can check from nothing but its files."""
