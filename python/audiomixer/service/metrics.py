"""What `/metrics` tells Prometheus: read from the service when it is asked, never counted twice."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audiomixer.rooms.roster import COUNTED
from audiomixer.service.jobs import Load, WorkerState
from audiomixer.service.service import Service


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"audiomixer_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"audiomixer_{name}", text, value=value)


_COUNTED: Final[Sequence[tuple[str, str, Callable[[Load], float]]]] = (
    ("concealed_seconds", "Audio made up for missing packets.", lambda load: load.packets.get("concealed", 0.0)),
    ("strangers", "Datagrams at the media port that were nobody's.", lambda load: load.strangers),
    ("ticks", "Rounds of 20 ms.", lambda load: load.ticks),
    ("ticks_late", "Rounds that ended after the next should have begun.", lambda load: load.late),
    ("tick_lateness_seconds", "By how much, all together.", lambda load: load.lateness),
    ("tick_busy_seconds", "How long rounds took, all together.", lambda load: load.busy),
    ("frames_left_out", "Frames of mixes that were not encoded, for want of time.", lambda load: load.left_out),
    ("output_dropped", "Packets that slow listeners and servers lost.", lambda load: load.dropped),
)
"""What is counted from the beginning of a process; by worker, where there are some: they do not begin together."""
_MEASURED: Final[Sequence[tuple[str, str, Callable[[Load], float]]]] = (
    ("player_streamers", "PlayerStreamers that are fed.", lambda load: load.streams),
    ("listeners", "WebRTC listeners.", lambda load: load.listeners),
    ("output_queued", "Packets that wait for servers.", lambda load: load.queued),
    ("pushes", "Outputs that push to servers.", lambda load: load.pushes),
    ("recordings", "Recordings at work.", lambda load: load.recordings),
    ("spooled_bytes", "Of recordings that are not stored yet.", lambda load: load.spooled),
    ("pushes_connected", "Those of them that are connected.", lambda load: load.connected),
)
"""What is added up for all processes."""
_OF_EACH: Final[Sequence[tuple[str, str, Callable[[WorkerState, Load], float]]]] = (
    ("share", "Of the time that it has for mixing, how much a worker needs.", lambda worker, load: worker.share),
    ("rooms", "Rooms of ours on a worker.", lambda worker, load: load.rooms),
    ("media_processors", "MediaProcessors on a worker.", lambda worker, load: load.jobs),
    ("listeners", "WebRTC listeners of a worker.", lambda worker, load: load.listeners),
)


class ServiceCollector(Collector):
    """Metrics of one service.

    Args:
        service: A started one.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        service = self._service
        workers = service.engine.workers()
        told = [(worker, worker.load) for worker in workers if worker.load]
        yield _gauge("rooms", "Rooms in progress.", service.rooms.in_progress)
        yield _gauge("participants", "Participants in rooms, mixers included.", service.rooms.participants)
        yield _gauge("media_processors", "MediaProcessors at work.", service.processors.running)
        for name, text, of in _MEASURED:
            yield _gauge(name, text, sum(of(load) for _, load in told))
        by_worker = ["worker"] if service.cluster else []
        packets = CounterMetricFamily("audiomixer_packets", "Packets of participants.", labels=["fate", *by_worker])
        for worker, load in told:
            for fate in COUNTED:
                if fate != "concealed":
                    packets.add_metric([fate, worker.name][: 1 + len(by_worker)], load.packets.get(fate, 0))
        yield packets
        for name, text, of in _COUNTED:
            counter = CounterMetricFamily(f"audiomixer_{name}", text, labels=by_worker)
            for worker, load in told:
                counter.add_metric([worker.name][: len(by_worker)], of(load))
            yield counter
        if service.cluster:
            yield from _of_each(workers, told)
        yield from _loudness(service)
        yield _gauge("event_readers", "Readers of server-sent events.", service.streams.readers)
        yield _gauge("callbacks_waiting", "Status callbacks not delivered yet.", service.callbacks.waiting)
        yield _counter("callbacks_delivered", "Status callbacks delivered.", service.callbacks.delivered)
        yield _counter("callbacks_failed", "Tries to deliver that failed.", service.callbacks.failed)
        yield _counter("callbacks_given_up", "Status callbacks given up.", service.callbacks.given_up)


def _loudness(service: Service) -> Iterator[Metric]:
    """How loud mixes are, those that are measured."""
    family = GaugeMetricFamily("audiomixer_loudness_lufs", "Of mixes.", labels=["media_processor", "window"])
    for sid, progress in service.engine.progress().items():
        if progress.loudness:
            for window in ("momentary", "short_term", "integrated"):
                family.add_metric([sid, window], getattr(progress.loudness, window))
    yield family


def _of_each(workers: Sequence[WorkerState], told: Sequence[tuple[WorkerState, Load]]) -> Iterator[Metric]:
    """What each worker is, and has to do."""
    status = GaugeMetricFamily("audiomixer_worker_status", "What a worker is.", labels=["worker", "node", "status"])
    for worker in workers:
        status.add_metric([worker.name, worker.node, worker.status], 1)
    yield status
    for name, text, of in _OF_EACH:
        family = GaugeMetricFamily(f"audiomixer_worker_{name}", text, labels=["worker", "node"])
        for worker, load in told:
            family.add_metric([worker.name, worker.node], of(worker, load))
        yield family


def render(service: Service) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(service))
    return generate_latest(registry)
