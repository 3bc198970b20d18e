"""What Groundwire says about itself: log lines (structlog) and metrics (Prometheus).

No label takes a value that a stranger chooses: sources are the configured ones, reasons are slugs.
No log line holds a secret, a signed URL or an e-mail: a processor takes them out of every value.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TextIO

import msgspec
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from consumer.model import Message, Record
from consumer.ports import LaneDepth
from consumer.redact import Redactor

UNKNOWN = "unknown"  # the source of a request that names none of ours
OTHER = "other"  # a reason that is not a slug

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_MAX_REASONS = 200  # distinct reasons of one metric: slugs are constants, so this is never reached
_TOLD_BY_US = ("aiormq.connection",)  # a traceback for each lost connection, of which we tell
_redactor = Redactor()

_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class Metrics:
    """Every metric Groundwire has, each behind a typed method.

    ``sources`` are the configured names: any other becomes ``unknown``.
    """

    def __init__(
        self,
        sources: Iterable[str] = (),
        *,
        version: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sources = frozenset(sources)
        self._reasons: set[str] = set()
        self._now = now
        disable_created_metrics()  # type: ignore[no-untyped-call]  # series nobody asks for
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._build = _gauge(registry, "build_info", "Always 1; the version", "version")
        self._build.labels(version).set(1)
        self._accepted = _counter(registry, "events_accepted", "Task events queued", "source")
        self._repeated = _counter(
            registry, "events_repeated", "Those of them that were queued already", "source"
        )
        self._closed = _counter(
            registry, "connections_closed", "Webhook connections that we ended", "reason"
        )
        self._refused = _counter(
            registry, "requests_refused", "Requests not answered 2xx", "source", "reason"
        )
        self._last_webhook = _gauge(
            registry, "last_webhook_timestamp_seconds", "When the last verified one came", "source"
        )
        self._depth = _gauge(registry, "queue_messages", "Messages in a lane", "lane", "state")
        self._oldest = _gauge(registry, "queue_oldest_seconds", "Age of the oldest", "lane")
        self._dead = _gauge(registry, "dead_letters", "Messages given up, for a person", "lane")
        self._settled = _counter(registry, "settled", "Messages done", "lane")
        self._retried = _counter(
            registry, "retries", "Messages to be tried again", "lane", "reason"
        )
        self._buried = _counter(registry, "buried", "Messages given up", "lane", "reason")
        self._paused = _gauge(
            registry, "source_paused", "1 while a source is not asked", "source", "reason"
        )
        self._not_made = _counter(
            registry, "not_made", "Files that could not be made rightly", "source", "reason"
        )
        self._fetch = _histogram(registry, "fetch_seconds", "Asking a platform", "source", "ok")
        self._download = _histogram(registry, "download_seconds", "One mask", "source")
        self._bytes = _counter(registry, "download_bytes", "Bytes of masks fetched", "source")
        self._following = _gauge(
            registry, "follower_next", "The first log entry not durably followed", "follower"
        )
        self._behind = _gauge(
            registry, "follower_behind_entries", "Log entries not durably followed", "follower"
        )
        self._followed_at = _gauge(
            registry, "follower_seen_timestamp_seconds", "When it last got on", "follower"
        )
        self._follower_failures = _counter(
            registry, "follower_failures", "Times that it had to wait", "follower", "reason"
        )
        self._follower_troubles = _gauge(
            registry,
            "follower_troubles",
            "What it cannot do at present and tries again",
            "follower",
        )
        self._readers = _gauge(registry, "stream_readers", "Open streams of changes")
        self._sweeps = _counter(registry, "sweeps", "Projects compared", "source", "sweep")
        self._gaps = _counter(
            registry, "sweep_gaps", "Tasks that a sweep found to lag", "source", "gap"
        )
        self._sweep_failures = _counter(
            registry, "sweep_failures", "Sweeps that are not finished", "source", "reason"
        )
        self._swept_at = _gauge(
            registry,
            "sweep_succeeded_timestamp_seconds",
            "When all projects had been compared; at first, when the process began",
            "source",
        )
        self._sweep_interval = _gauge(
            registry, "sweep_interval_seconds", "How often that is to be", "source"
        )
        self._log: dict[str, Gauge] = {}
        self._inbox: dict[str, Gauge] = {}
        self._scrape = _gauge(
            registry, "observed", "1 when the last look succeeded, 0 when it failed", "what"
        )
        for source in self._sources:
            self._accepted.labels(source)

    def accepted(self, source: str, n: int, repeated: int = 0) -> None:
        """A verified webhook was answered 202 with ``n`` events in the queue, ``repeated`` of
        them there since before."""
        self._accepted.labels(self._source(source)).inc(n)
        self._repeated.labels(self._source(source)).inc(repeated)
        self._last_webhook.labels(self._source(source)).set(self._now())

    def refused(self, source: str, reason: str) -> None:
        self._refused.labels(self._source(source), self._reason(reason)).inc()

    def connection_closed(self, reason: str) -> None:
        """Ended without an answer; ``reason`` is the listener's slug."""
        self._closed.labels(self._reason(reason)).inc()

    def connections(self, count: Callable[[], int], held_bytes: Callable[[], int]) -> None:
        """What the hook listener holds, asked at each scrape."""
        open_ = _gauge(self.registry, "connections", "Open webhook connections")
        open_.set_function(count)
        held = _gauge(self.registry, "connections_held_bytes", "Bytes of unanswered requests")
        held.set_function(held_bytes)

    def settled(self, lane: str, n: int = 1) -> None:
        self._settled.labels(lane).inc(n)

    def retried(self, lane: str, reason: str) -> None:
        self._retried.labels(lane, self._reason(reason)).inc()

    def buried(self, lane: str, reason: str) -> None:
        self._buried.labels(lane, self._reason(reason)).inc()

    def source_paused(self, source: str, reason: str, *, paused: bool) -> None:
        """A source's outage began or ended in this process."""
        self._paused.labels(self._source(source), self._reason(reason)).set(1 if paused else 0)

    def not_made(self, source: str, reason: str) -> None:
        """A file of a new revision was refused: a volume, an image, a DICOM object."""
        self._not_made.labels(self._source(source), self._reason(reason)).inc()

    def fetched(self, source: str, seconds: float, ok: bool) -> None:
        """A call for the state of tasks ended; ``ok`` is False when it raised."""
        self._fetch.labels(self._source(source), "true" if ok else "false").observe(seconds)

    def downloaded(self, source: str, seconds: float, size: int) -> None:
        """A mask of ``size`` bytes came."""
        self._download.labels(self._source(source)).observe(seconds)
        self._bytes.labels(self._source(source)).inc(size)

    def lane_depth(self, lane: str, depth: LaneDepth) -> None:
        self._depth.labels(lane, "ready").set(depth.ready)
        self._depth.labels(lane, "leased").set(depth.leased)
        self._depth.labels(lane, "waiting").set(depth.waiting)
        self._oldest.labels(lane).set(depth.oldest_s)
        self._dead.labels(lane).set(depth.dead)

    def log_state(self, entries: int, age_s: float | None) -> None:
        """``age_s`` is the time since the newest entry was logged, if there is one."""
        self._of_log("log_entries", "Entries in the audit log").set(entries)
        if age_s is not None:
            self._of_log("log_age_seconds", "Age of the log's newest entry").set(age_s)

    def follower(self, name: str, following: int, size: int) -> None:
        """A follower took in a batch of a log of ``size`` entries."""
        self._following.labels(name).set(following)
        self._behind.labels(name).set(max(0, size - following))
        self._followed_at.labels(name).set(self._now())

    def follower_failed(self, name: str, reason: str) -> None:
        self._follower_failures.labels(name, self._reason(reason)).inc()

    def follower_troubles(self, name: str, count: int) -> None:
        self._follower_troubles.labels(name).set(count)

    def sweep_interval(self, source: str, every_s: float) -> None:
        """The process begins to sweep a source."""
        self._sweep_interval.labels(self._source(source)).set(every_s)
        self.sweep_succeeded(source)

    def sweep_succeeded(self, source: str) -> None:
        self._swept_at.labels(self._source(source)).set(self._now())

    def swept(self, source: str, kind: str) -> None:
        """One project has been compared."""
        self._sweeps.labels(self._source(source), kind).inc()

    def sweep_gap(self, source: str, why: str) -> None:
        self._gaps.labels(self._source(source), self._reason(why)).inc()

    def sweep_failed(self, source: str, reason: str) -> None:
        self._sweep_failures.labels(self._source(source), self._reason(reason)).inc()

    def stream_readers(self, count: int) -> None:
        self._readers.set(count)

    def inbox(self, waiting: int, *, away: bool) -> None:
        """How the receiver's inbox stands; ``away`` is whether the broker takes nothing now."""
        if not self._inbox:  # a process without an inbox tells nothing of one
            self._inbox = {
                "waiting": _gauge(
                    self.registry, "inbox_waiting", "Messages kept here for the broker"
                ),
                "away": _gauge(self.registry, "broker_away", "1 while the broker takes nothing"),
            }
        self._inbox["waiting"].set(waiting)
        self._inbox["away"].set(1 if away else 0)

    def observed(self, what: str, *, ok: bool) -> None:
        """Whether a lane (``queue-NAME``) could be looked at: when not, its numbers are old."""
        self._scrape.labels(what).set(1 if ok else 0)

    def render(self) -> bytes:
        """The text that Prometheus scrapes (version 0.0.4)."""
        return generate_latest(self.registry)

    def _of_log(self, name: str, about: str) -> Gauge:
        """Made when it is first told: a process that writes no log must not say that the log is
        empty and brand new, which would silence every alarm about it."""
        if name not in self._log:
            self._log[name] = _gauge(self.registry, name, about)
        return self._log[name]

    def _source(self, name: str) -> str:
        return name if name in self._sources else UNKNOWN

    def _reason(self, reason: str) -> str:
        if reason in self._reasons:
            return reason
        if not _SLUG.fullmatch(reason) or len(self._reasons) >= _MAX_REASONS:
            return OTHER
        self._reasons.add(reason)
        return reason


def _counter(registry: CollectorRegistry, name: str, about: str, *labels: str) -> Counter:
    return Counter(f"groundwire_{name}", about, labels, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, about: str, *labels: str) -> Gauge:
    return Gauge(f"groundwire_{name}", about, labels, registry=registry)


def _histogram(registry: CollectorRegistry, name: str, about: str, *labels: str) -> Histogram:
    return Histogram(f"groundwire_{name}", about, labels, registry=registry, buckets=_SECONDS)


def logger() -> structlog.stdlib.BoundLogger:
    """The logger of log lines; ``event`` names what happened, the rest are fields."""
    return structlog.stdlib.get_logger("groundwire")


def about(message: Message, lane: str) -> AbstractContextManager[None]:
    """Binds event id, task (with its source and project) and lane to every log line within."""
    of = {} if isinstance(message, Record) else msgspec.structs.asdict(message.key)
    return bound_contextvars(event_id=message.id, lane=lane, **of)


def configure_logging(
    *, stream: TextIO | None = None, secrets: Iterable[str] = (), level: str = "INFO"
) -> None:
    """Log lines to ``stream`` (stderr): JSON when it is no terminal, else for the eye.

    What libraries log through ``logging`` takes the same way, from WARNING on.
    """
    global _redactor
    _redactor = Redactor(secrets)
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redacting(_redactor),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(stream),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("groundwire").setLevel(level)
    for chatty in _TOLD_BY_US:
        logging.getLogger(chatty).setLevel(logging.ERROR)


def learn_secret(text: str) -> None:
    """A secret that came to be while the process runs is kept out of log lines as well."""
    _redactor.learn(text)


def redacting(redactor: Redactor) -> Processor:
    """A structlog processor that redacts every value of a log line."""

    def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        kept = {k: v for k, v in event.items() if k.startswith("_")}  # structlog's own
        clean = {k: redactor.field(k, v) for k, v in event.items() if not k.startswith("_")}
        return {**clean, **kept}

    return redact


def _renderer(stream: TextIO) -> Processor:
    if stream.isatty():
        return structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    return structlog.processors.JSONRenderer(sort_keys=True)
