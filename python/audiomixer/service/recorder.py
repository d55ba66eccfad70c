"""What is recorded in this process, and what of it is on its way to the store."""

import asyncio
import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import av

from audiomixer.audio.survey import Survey, survey
from audiomixer.clock.background import Line
from audiomixer.clock.tasks import blocking
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import OutputError, SoloOutput, explain
from audiomixer.outputs.bucket import Bucket
from audiomixer.outputs.dual import DualRecorder
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.spool import Spool
from audiomixer.outputs.tracks import TrackRecorder
from audiomixer.service.jobs import RecordingOrder, RecordingState, StoredFile

RECORDING: Final = "KV"
_SID: Final = re.compile(RECORDING + "[0-9a-f]{32}")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Running:
    job: str
    mixer: AudioMixer
    began: float
    """Seconds of the mixer's stream."""
    file: FileOutput | None
    solos: SoloOutput | None


class Recorder:
    """Records what mixers mix, and has it stored. Restarts, and stores that are away, lose nothing of it.

    Args:
        bucket: Where recordings go.
        folder: Where they are until they are there. Processes that share it have folders of their own in it, and each
            goes on with one that has been left.
        limit: GiB that may wait there.

    Raises:
        ValueError: The folder cannot be made.
    """

    def __init__(self, bucket: Bucket, folder: Path, limit: float) -> None:
        try:
            folder, self._claim = _claim(folder)
        except OSError as error:
            raise ValueError(f"spool: expected a folder that can be written, {folder}: {explain(error)}") from None
        self._notes = folder / "stored"
        self._spool = Spool(folder / "files", bucket, round(limit * 1024**3), self._note)
        self._running: dict[str, _Running] = {}
        self._stored: dict[str, StoredFile] = {}
        """By key, until it is acknowledged."""
        self._surveys = Line()
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        """Recordings at work."""
        return len(self._running)

    @property
    def size(self) -> int:
        """Bytes that are not stored yet."""
        return self._spool.size

    async def open(self) -> None:
        """Goes on with what another process has left.

        Raises:
            OSError: The folder cannot be made.
        """
        await blocking(lambda: self._notes.mkdir(parents=True, exist_ok=True))
        for note in await blocking(lambda: list(self._notes.glob("*.json"))):
            with contextlib.suppress(OSError, ValueError, TypeError):
                stored = StoredFile(**json.loads(await blocking(note.read_text)))
                self._stored[stored.key] = stored
        await self._spool.open()
        self._task = asyncio.create_task(self._spool.run())

    async def close(self) -> None:
        """Looks after it no more; the next process does."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._spool.close()
        self._claim.close()

    async def start(self, job: str, mixer: AudioMixer, order: RecordingOrder, part: int) -> None:
        """Begins to record.

        Args:
            job: The SID of the mixer's job.
            mixer: What mixes.
            order: What of it.
            part: How often the job has been interrupted: no two parts have the same name.

        Raises:
            OutputError: It cannot be recorded.
            RuntimeError: The mixer does not run any more.
        """
        if order.sid in self._running:
            return
        try:
            self._spool.check_room()
        except OSError as error:
            raise OutputError(f"recordings: {explain(error)}") from error
        path = self._spool.folder / (order.key + (f"-{part + 1}" if part else ""))
        await blocking(lambda: path.parent.mkdir(parents=True, exist_ok=True))
        file, solos = self._outputs(path, mixer, order)
        running = _Running(job, mixer, mixer.time, file, solos)
        self._running[order.sid] = running
        try:
            if file and solos:
                await file.start()
                file.begin(datetime.now(UTC))
            elif file:
                await mixer.add(file)
            if solos:
                await mixer.add_solos(solos)
        except BaseException:
            await self.finish(order.sid)
            raise

    def _outputs(
        self, path: Path, mixer: AudioMixer, order: RecordingOrder
    ) -> tuple[FileOutput | None, SoloOutput | None]:
        if order.layout == "tracks":
            return None, TrackRecorder(str(path), self._spool)
        file = FileOutput(f"{path}.{order.format}", mixer.audio_bitrate, order.rotate, self._spool)
        return file, DualRecorder(order.identity, file) if order.layout == "dual" else None

    async def finish(self, sid: str) -> None:
        """Ends a recording; what there is of it goes on its way."""
        running = self._running.get(sid)
        if running is None:
            return
        if running.solos:
            await running.mixer.drop_solos(running.solos)
        if running.file and running.solos:
            await running.file.stop()
        elif running.file and running.file in running.mixer.outputs:
            await running.mixer.drop(running.file)
        self._running.pop(sid, None)

    async def finish_all(self, job: str) -> None:
        """Ends all recordings of a job."""
        await asyncio.gather(*(self.finish(sid) for sid, running in list(self._running.items()) if running.job == job))

    def recordings(self) -> dict[str, RecordingState]:
        """All that anything is left of here."""
        stored: dict[str, list[StoredFile]] = defaultdict(list)
        for file in self._stored.values():
            stored[_sid_of(file.key)].append(file)
        waiting = {_sid_of(self._spool.key(path)) for path in self._spool.waiting}
        sizes = self._spool.sizes(_sid_of)
        found = {}
        for sid in {*self._running, *waiting, *stored}.difference({""}):
            running = self._running.get(sid)
            error = running.file.error if running and running.file else None
            problem = error or (self._spool.problem if sid in waiting else "")
            if running and running.file and not running.file.connected:
                problem = problem or "it cannot be written"
            seconds = running.mixer.time - running.began if running else 0.0
            found[sid] = RecordingState(seconds, sizes.get(sid, 0), tuple(stored[sid]), problem, error is not None)
        return found

    async def acknowledge(self, keys: Collection[str]) -> None:
        """It is known that these are stored."""
        for key in keys:
            if self._stored.pop(key, None):
                await blocking(self._note_of(key).unlink, missing_ok=True)

    def _note_of(self, key: str) -> Path:
        return self._notes / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    async def _note(self, path: Path, size: int) -> None:
        """Notes what has been stored; the next process will know."""
        key = self._spool.key(path)
        told = await self._survey(path)
        stored = StoredFile(key, size, told.seconds, told.loudness, told.true_peak, told.outline)
        note = self._note_of(key)
        new = note.with_suffix(".new")
        await blocking(new.write_text, json.dumps(asdict(stored)))
        await blocking(new.replace, note)
        self._stored[key] = stored

    async def _survey(self, path: Path) -> Survey:
        """Listens to a file, in a thread of lower priority."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Survey] = loop.create_future()

        def give(told: Survey) -> None:
            if not done.done():
                done.set_result(told)

        def work() -> None:
            try:
                told = survey(str(path))
            except (OSError, av.FFmpegError) as error:
                _log.warning("%s cannot be listened to: %s", path.name, explain(error))
                told = Survey(0.0, None, None, ())
            with contextlib.suppress(RuntimeError):  # The event loop has ended.
                loop.call_soon_threadsafe(give, told)

        self._surveys.add(work)
        return await done


def _sid_of(key: str) -> str:
    """The recording that an object is of."""
    found = _SID.search(key)
    return found[0] if found else ""


def _claim(folder: Path) -> tuple[Path, IO[str]]:
    """The first folder below this one that no process has, and what it is had by."""
    for number in itertools.count():
        own = folder / str(number)
        own.mkdir(parents=True, exist_ok=True)
        lock = (own / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        else:
            return own, lock
    raise AssertionError("there are numbers enough")


def bucket_of(recordings: str) -> Bucket:
    """Where a setting says that recordings go.

    Raises:
        ValueError: They cannot.
    """
    try:
        return Bucket(recordings)
    except ValueError as error:
        raise ValueError(f"recordings: {error}") from None
