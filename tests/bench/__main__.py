"""``make bench``: each number beside its peer, measured in the same run.

Only ratios of one run mean anything; nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from tests.bench import exports, frames, latency, log, masks, merge, pull, receive, volumes
from tests.bench.table import show

BENCHMARKS: dict[str, Callable[..., Iterable[Any]]] = {
    "receive": receive.run,
    "export": exports.run,
    "latency": latency.run,
    "log": log.run,
    "masks": masks.run,
    "pull": pull.run,
    "frames": frames.run,
    "merge": merge.run,
    "volumes": volumes.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer rounds")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    loads = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    sys.stdout.write(f"{os.cpu_count()} cores, load before: {loads}\n\n")
    for name in asked.names or BENCHMARKS:
        show(BENCHMARKS[name](quick=asked.quick))


if __name__ == "__main__":
    main()
