"""What a picture beside the sound costs: ours with meters, and a still one, in ms of one core per second of stream."""

import io
import tempfile
import time
from pathlib import Path

import av

from audiomixer.outputs.picture import Picture, draw

_SECONDS = 60


def main() -> None:
    """Encodes a minute of each."""
    with tempfile.TemporaryDirectory() as folder:
        cover = Path(folder) / "cover.png"
        draw("Friday show", {"alice": 3000, "bob": -1}).save(cover)
        for name, file in (("ours, with eight speakers", None), ("still", str(cover))):
            with av.open(io.BytesIO(), "w", format="flv") as container:
                picture, size = Picture(file, "Friday show"), 0
                picture.begin(container)
                began = time.process_time()
                for second in range(_SECONDS):
                    volumes = ", ".join(
                        f'"speaker {n}": {{"v": {(second * 977 + n * 3001) % 20_000}}}' for n in range(8)
                    )
                    picture.tell(f'{{"p": {{{volumes}}}}}')
                    for packet in picture.packets(second * 48_000):
                        size += packet.size
                        container.mux_one(packet)
                spent = 1000 * (time.process_time() - began) / _SECONDS
            print(f"{name:26}  {spent:5.1f} ms/s  {8 * size / _SECONDS / 1000:5.0f} kbit/s")


if __name__ == "__main__":
    main()
