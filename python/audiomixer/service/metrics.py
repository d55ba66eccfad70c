"""What `/metrics` tells Prometheus: read from the service when it is asked, never counted twice."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from audiomixer.clock.bus import process_pacer
from audiomixer.service.service import Service


class ServiceCollector(Collector):
    """Metrics of one service.

    Args:
        service: A started one.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        service, pacer = self._service, process_pacer()
        streams = list(service.streams)
        outputs = [output for stream in streams for output in stream.outputs]
        yield _gauge("rooms", "Rooms in progress.", service.rooms.in_progress)
        yield _gauge("participants", "Participants in rooms, mixers included.", service.rooms.participants)
        yield _gauge("media_processors", "MediaProcessors at work.", service.processors.running)
        yield _gauge("player_streamers", "PlayerStreamers that are fed.", len(streams))
        yield _gauge("listeners", "WebRTC listeners.", sum(stream.whep.listeners for stream in streams))
        here, elsewhere = service.rooms.packets(), service.engine.packets()
        happened = {fate: number + elsewhere[fate] for fate, number in here.items()}
        yield _counter("concealed_seconds", "Audio made up for missing packets.", happened.pop("concealed"))
        packets = CounterMetricFamily("audiomixer_packets", "Packets of participants.", labels=["fate"])
        for fate, number in happened.items():
            packets.add_metric([fate], number)
        yield packets
        yield _counter("strangers", "Datagrams at the media port that were nobody's.", service.ice.strangers)
        yield _counter("ticks", "Rounds of 20 ms.", pacer.rounds)
        yield _counter("ticks_late", "Rounds that ended after the next should have begun.", pacer.late)
        yield _counter("tick_lateness_seconds", "By how much, all together.", pacer.lateness)
        left_out = service.engine.left_out()
        yield _counter("frames_left_out", "Frames of mixes that were not encoded, for want of time.", left_out)
        dropped = service.streams.dropped + service.engine.dropped() + sum(output.dropped for output in outputs)
        yield _counter("output_dropped", "Packets that slow listeners and servers lost.", dropped)
        yield _gauge("event_readers", "Readers of server-sent events.", service.streams.readers)
        pushes = service.engine.pushes()
        queued = sum(push.queued for push in pushes)
        yield _gauge("output_queued", "Packets that wait for servers.", queued)
        yield _gauge("pushes", "Outputs that push to servers.", len(pushes))
        yield _gauge("pushes_connected", "Those of them that are connected.", sum(push.connected for push in pushes))
        yield _gauge("callbacks_waiting", "Status callbacks not delivered yet.", service.callbacks.waiting)
        yield _counter("callbacks_delivered", "Status callbacks delivered.", service.callbacks.delivered)
        yield _counter("callbacks_failed", "Tries to deliver that failed.", service.callbacks.failed)
        yield _counter("callbacks_given_up", "Status callbacks given up.", service.callbacks.given_up)


def render(service: Service) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ServiceCollector(service))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"audiomixer_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"audiomixer_{name}", text, value=value)
