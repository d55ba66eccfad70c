"""The table and the plot of a grid of networks."""

from collections.abc import Mapping
from pathlib import Path

from benches.quality.measures import Judged
from benches.quality.network import Network

_TIE = 0.01
"""PESQ that is no difference: that of two versions of libopus decoding the same packets."""

Cells = Mapping[Network, Mapping[str, Judged]]


def _delays(network: Network) -> str:
    if network.stall:
        return f"{network.stall * 1000:.0f} ms stalls"
    return f"{network.jitter * 1000:.0f} ms jitter" if network.jitter else "no jitter"


def _loss(network: Network) -> str:
    return f"{network.loss:.0%}" + (f" in {network.burst:.0f}s" if network.burst > 1 else "")


def tabulate(cells: Cells) -> str:
    """A Markdown table: per receiver PESQ, STOI, delay in ms and percent concealed; a star where ours is not best."""
    names = list(next(iter(cells.values())))
    lines = ["| network | " + " | ".join(names) + " | |", "|---" * (len(names) + 2) + "|"]
    for network, results in cells.items():
        row = [f"{_delays(network)}, {_loss(network)}"]
        for judged in results.values():
            delay, concealed = judged.delay * 1000, judged.concealed * 100
            row.append(f"{judged.pesq:.2f} {judged.stoi:.2f} {delay:3.0f} {concealed:4.1f}")
        best = max(judged.pesq for name, judged in results.items() if name != "straight")
        beaten = best > results["ours"].pesq + _TIE
        lines.append("| " + " | ".join(row) + f" | {'*' if beaten else ''} |")
    return "\n".join(lines)


def draw(cells: Cells, real: Cells, path: Path) -> None:
    """PESQ over loss: a panel for each kind of delay, a line for each receiver and mean burst, crosses for `real`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    kinds = list(dict.fromkeys(_delays(network) for network in cells))
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(4 * len(kinds), 4), sharey=True, layout="constrained")
    names = [name for name in next(iter(cells.values())) if name != "straight"]
    for panel, kind in zip(panels, kinds, strict=True):
        for color, name in enumerate(names):
            for burst, style in ((1, "-"), (2, "--"), (4, ":")):
                points = sorted(
                    (network.loss * 100, results[name].pesq)
                    for network, results in cells.items()
                    if _delays(network) == kind and (network.burst == burst or not network.loss)
                )
                label = name if burst == 1 else None
                panel.plot(*zip(*points, strict=True), style, color=f"C{color}", label=label, marker=".")
        for network, results in real.items():
            if _delays(network) == kind:
                panel.plot(network.loss * 100, next(iter(results.values())).pesq, "kx")
        panel.set(title=kind, xlabel="packets lost, %", ylim=(1, 4.5))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("PESQ-WB")
    panels[0].plot([], [], "kx", label="NetEq (Chromium)")
    panels[0].legend()
    figure.suptitle("Opus with FEC; lost independently (solid), 2 (dashed) or 4 (dotted) in a row on average")
    figure.savefig(path, dpi=100)
