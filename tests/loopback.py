"""The private network that the tests' servers are on; what a person would name as such."""

from __future__ import annotations

from ipaddress import ip_network

LOOPBACK = (ip_network("127.0.0.0/8"),)
