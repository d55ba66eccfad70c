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


_OF_ALL: Final[Sequence[tuple[Callable[[str, str, float], Metric], str, str, Callable[[Load], float]]]] = (
    (_counter, "strangers", "Datagrams at the media port that were nobody's.", lambda load: load.strangers),
    (_counter, "ticks", "Rounds of 20 ms.", lambda load: load.ticks),
    (_counter, "ticks_late", "Rounds that ended after the next should have begun.", lambda load: load.late),
    (_counter, "tick_lateness_seconds", "By how much, all together.", lambda load: load.lateness),
    (_counter, "tick_busy_seconds", "How long rounds took, all together.", lambda load: load.busy),
    (
        _counter,
        "frames_left_out",
        "Frames of mixes that were not encoded, for want of time.",
        lambda load: load.left_out,
    ),
    (_counter, "output_dropped", "Packets that slow listeners and servers lost.", lambda load: load.dropped),
    (_gauge, "output_queued", "Packets that wait for servers.", lambda load: load.queued),
    (_gauge, "pushes", "Outputs that push to servers.", lambda load: load.pushes),
    (_gauge, "pushes_connected", "Those of them that are connected.", lambda load: load.connected),
)
"""What is added up for all processes."""


_OF_EACH: Final[Sequence[tuple[str, str, Callable[[WorkerState], float]]]] = (
    ("share", "Of the time that it has for mixing, how much a worker needs.", lambda worker: worker.share),
    ("rooms", "Rooms of ours on a worker.", lambda worker: worker.load.rooms),
    ("media_processors", "MediaProcessors on a worker.", lambda worker: worker.load.jobs),
    ("listeners", "WebRTC listeners of a worker.", lambda worker: worker.load.listeners),
)
_COUNTED_OF_EACH: Final[Sequence[tuple[str, str, Callable[[WorkerState], float]]]] = (
    ("ticks", "Rounds of 20 ms of a worker.", lambda worker: worker.load.ticks),
    (
        "ticks_late",
        "Rounds of a worker that ended after the next should have begun.",
        lambda worker: worker.load.late,
    ),
    (
        "frames_left_out",
        "Frames of mixes that a worker did not encode, for want of time.",
        lambda worker: worker.load.left_out,
    ),
    ("output_dropped", "Packets that slow listeners and servers of a worker lost.", lambda worker: worker.load.dropped),
)
"""What is counted from the beginning of the worker's process."""


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
        all_loads = [worker.load for worker in service.engine.workers()]
        yield _gauge("rooms", "Rooms in progress.", service.rooms.in_progress)
        yield _gauge("participants", "Participants in rooms, mixers included.", service.rooms.participants)
        yield _gauge("media_processors", "MediaProcessors at work.", service.processors.running)
        yield _gauge("player_streamers", "PlayerStreamers that are fed.", sum(load.streams for load in all_loads))
        yield _gauge("listeners", "WebRTC listeners.", sum(load.listeners for load in all_loads))
        happened = dict.fromkeys(COUNTED, 0.0)
        for load in all_loads:
            for fate, number in load.packets.items():
                happened[fate] += number
        yield _counter("concealed_seconds", "Audio made up for missing packets.", happened.pop("concealed"))
        packets = CounterMetricFamily("audiomixer_packets", "Packets of participants.", labels=["fate"])
        for fate, number in happened.items():
            packets.add_metric([fate], number)
        yield packets
        for kind, name, text, of in _OF_ALL:
            yield kind(name, text, sum(of(load) for load in all_loads))
        if service.cluster:
            yield from _of_each(service.engine.workers())
        yield _gauge("event_readers", "Readers of server-sent events.", service.streams.readers)
        yield _gauge("callbacks_waiting", "Status callbacks not delivered yet.", service.callbacks.waiting)
        yield _counter("callbacks_delivered", "Status callbacks delivered.", service.callbacks.delivered)
        yield _counter("callbacks_failed", "Tries to deliver that failed.", service.callbacks.failed)
        yield _counter("callbacks_given_up", "Status callbacks given up.", service.callbacks.given_up)


def _of_each(workers: Sequence[WorkerState]) -> Iterator[Metric]:
    """The same by worker, and how it is."""
    status = GaugeMetricFamily("audiomixer_worker_status", "What a worker is.", labels=["worker", "node", "status"])
    for worker in workers:
        status.add_metric([worker.name, worker.node, worker.status], 1)
    yield status
    for name, text, of in _OF_EACH:
        family = GaugeMetricFamily(f"audiomixer_worker_{name}", text, labels=["worker", "node"])
        for worker in workers:
            family.add_metric([worker.name, worker.node], of(worker))
        yield family
    for name, text, count in _COUNTED_OF_EACH:
        counter = CounterMetricFamily(f"audiomixer_worker_{name}", text, labels=["worker", "node"])
        for worker in workers:
            counter.add_metric([worker.name, worker.node], count(worker))
        yield counter


def render(service: Service) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(service))
    return generate_latest(registry)
