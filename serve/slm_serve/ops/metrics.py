"""What the server measures, for Prometheus; one registry per server, so that two do not count together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from slm_serve.ops.gate import Gate

_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)
_FACTORS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.5, 2, 4, 10)


class Metrics:
    """The server's instruments; names begin with ``slm_``.

    Attributes:
        registry: Holds them.
        requests: Requests by route and status.
        errors: Errors told to clients, by kind (the ``code`` of OpenAI's error form), streams included.
        cancels: Answers cut short, by reason: disconnect, slow_reader, timeout.
        refused: Requests turned away, by reason: queue, sessions.
        first_audio: Seconds from a request's arrival to its first samples.
        first_text: Seconds from a request's arrival to its first words.
        real_time_factor: Seconds it took to make an answer over the seconds it lasts; below 1 it plays without gaps.
        audio_seconds: Seconds of sound made.
        tokens: Tokens by kind: prompt_text, prompt_audio, text, audio.
        answers: Answers by why they ended.
        queue_seconds: Seconds waited for a place.
        engine_restarts: How often the engine was started again.
        task_restarts: Restarts of background tasks after a failure, by task.
        experts: Experts that can be asked for.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self.errors = self._counter("errors", "Errors told to clients, by kind.", "kind")
        self.cancels = self._counter("cancels", "Answers cut short, by reason.", "reason")
        self.refused = self._counter("refused", "Requests turned away, by reason.", "reason")
        self.first_audio = self._histogram("time_to_first_audio_seconds", "Arrival to first samples.", _SECONDS)
        self.first_text = self._histogram("time_to_first_text_seconds", "Arrival to first words.", _SECONDS)
        self.real_time_factor = self._histogram(
            "real_time_factor", "Seconds to make a spoken answer over the seconds it lasts.", _FACTORS
        )
        self.audio_seconds = self._counter("audio_seconds", "Seconds of sound made.")
        self.tokens = self._counter("tokens", "Tokens by kind.", "kind")
        self.answers = self._counter("answers", "Complete answers by why they ended.", "finish")
        self.queue_seconds = self._histogram("queue_seconds", "Wait for a place.", _SECONDS)
        self.engine_restarts = self._counter("engine_restarts", "Starts of the engine after the first.")
        self.task_restarts = self._counter("task_restarts", "Restarts of background tasks after a failure.", "task")
        self._replicas = Gauge(
            "slm_replica_running", "Answers that an engine makes.", ["replica"], registry=self.registry
        )
        self.experts = Gauge("slm_experts", "Experts that can be asked for.", registry=self.registry)

    def watch_gate(self, answers: Gate, sessions: Gate) -> None:
        """Show how full the gates are, read when asked."""
        self.gauge("running", "Answers being made.", lambda: answers.running)
        self.gauge("queued", "Requests that wait for a place.", lambda: answers.waiting)
        self.gauge("sessions", "Open WebSocket sessions.", lambda: sessions.running)

    def replica(self, name: str, read: Callable[[], float]) -> None:
        """Show how busy one of several engines is."""
        self._replicas.labels(name).set_function(read)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Add a value that is read when asked."""
        Gauge(f"slm_{name}", text, registry=self.registry).set_function(read)

    def page(self) -> bytes:
        """Return the text that Prometheus reads."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"slm_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"slm_{name}", text, buckets=buckets, registry=self.registry)
