"""Plays the same speech over the same bad networks through several receivers; prints a table and draws a plot.

python -m benches.quality --seeds 5 --bitrates 24 32 --plot docs/quality.png
"""

import argparse
import asyncio
import itertools
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from audiomixer.clock.frame import SAMPLE_RATE
from benches.quality import receivers
from benches.quality.chromium import chromium
from benches.quality.measures import Judged, judge
from benches.quality.neteq import neteq
from benches.quality.network import PACKET, Network
from benches.quality.repairs import repairs
from benches.quality.report import draw, tabulate
from benches.quality.speech import speech
from tests.opus import opus
from tests.signals import Signal

SECONDS = 22.0
RECEIVERS = {
    "straight": receivers.straight,
    "ours": receivers.ours,
    "NetEq model": neteq,
    "aiortc": receivers.aiortc,
}
LOSSES, BURSTS = (0.0, 0.01, 0.03, 0.05, 0.1, 0.2), (1, 2, 4)
CHROMIUM = "NetEq (Chromium)"
IN_CHROMIUM = (
    Network(),
    Network(loss=0.03),
    Network(loss=0.05),
    Network(loss=0.1),
    Network(loss=0.2),
    Network(loss=0.1, burst=2),
    Network(loss=0.1, burst=4),
    Network(jitter=0.015),
    Network(jitter=0.04),
    Network(loss=0.05, jitter=0.015),
    Network(loss=0.1, burst=2, jitter=0.04),
    Network(stall=0.2),
)
DELAYS = ({}, {"jitter": 0.015}, {"jitter": 0.04}, {"stall": 0.2})


def grid(losses: Iterable[float]) -> list[Network]:
    """Without loss there are no bursts of it."""
    losses_in_bursts = [(loss, burst) for loss, burst in itertools.product(losses, BURSTS) if loss or burst == 1]
    return [Network(loss=loss, burst=burst, **delay) for delay in DELAYS for loss, burst in losses_in_bursts]


@cache
def sent(bitrate: int) -> tuple[Signal, list[bytes]]:
    """The speech, and its packets."""
    signal = speech()[: round(SECONDS * SAMPLE_RATE)]
    return signal, opus(signal, bitrate)


def run(bitrate: int, network: Network, seed: int) -> dict[str, Judged]:
    """What each receiver makes of one trace."""
    signal, payloads = sent(bitrate)
    arrivals = network.transmit(len(payloads), seed)
    seconds = len(payloads) * PACKET
    return {name: judge(signal, play(payloads, arrivals, seconds)) for name, play in RECEIVERS.items()}


def run_chromium(bitrate: int, seeds: range) -> dict[Network, dict[str, Judged]]:
    """What Chromium makes of some of the traces, in real time, beside the others."""
    signal, payloads = sent(bitrate)
    traces = [(network, seed) for network in IN_CHROMIUM for seed in seeds]
    played = asyncio.run(chromium(signal, payloads, traces))
    results: dict[Network, list[dict[str, Judged]]] = {}
    for (network, seed), heard in zip(traces, played, strict=True):
        others = run(bitrate, network, seed)
        results.setdefault(network, []).append({CHROMIUM: judge(signal, heard)} | others)
    return {network: mean(cells) for network, cells in results.items()}


def mean(results: Iterable[Mapping[str, Judged]]) -> dict[str, Judged]:
    """Over seeds, for each receiver."""
    results = list(results)
    columns = {name: [result[name] for result in results] for name in results[0]}
    fields = ("pesq", "stoi", "delay", "concealed")
    return {
        name: Judged(*(float(np.mean([getattr(judged, field) for judged in column])) for field in fields))
        for name, column in columns.items()
    }


def count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def share(text: str) -> float:
    if not 0 <= (number := float(text)) < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bitrates", type=int, nargs="+", default=[24, 32], help="kbit/s")
    parser.add_argument("--seeds", type=count, default=5, help="traces in each cell of the grid")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seed of the first trace; 200 to 259 are those ours was tuned on"
    )
    parser.add_argument("--losses", type=share, nargs="+", default=LOSSES, help="shares of packets lost, as 0.05")
    parser.add_argument("--chromium", type=int, default=2, metavar="SEEDS", help="traces in Chromium; takes real time")
    parser.add_argument("--plot", type=Path, help="PNG to draw into")
    options = parser.parse_args()
    networks = grid(options.losses)

    def of_seeds(number: int) -> range:
        return range(options.first_seed, options.first_seed + number)

    seeds = of_seeds(options.seeds)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        runs = {
            (bitrate, network): [pool.submit(run, bitrate, network, seed) for seed in seeds]
            for bitrate in options.bitrates
            for network in networks
        }
        cells = {key: mean([future.result() for future in futures]) for key, futures in runs.items()}
    for bitrate in options.bitrates:
        print(f"\nOpus {bitrate} kbit/s with FEC, mean of {options.seeds} seeds")
        print(repairs(*sent(bitrate), seeds), end="\n\n")
        print(tabulate({network: cells[bitrate, network] for network in networks}))
    bitrate = options.bitrates[-1]
    real = run_chromium(bitrate, of_seeds(options.chromium)) if options.chromium else {}
    if real:
        print(f"\nThe same in Chromium, {bitrate} kbit/s, mean of {options.chromium} seeds")
        print(tabulate(real))
    if options.plot:
        draw({network: cells[bitrate, network] for network in networks}, real, options.plot)


if __name__ == "__main__":
    main()
