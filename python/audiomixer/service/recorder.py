"""What is recorded in this process, and what of it is on its way to the store."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from audiomixer.audio.survey import Survey, survey
from audiomixer.clock.background import be_nice
from audiomixer.clock.tasks import blocking, spawn
from audiomixer.mixer import AudioMixer
from audiomixer.outputs.base import OutputError, SoloOutput, explain
from audiomixer.outputs.bucket import Bucket, store_of
from audiomixer.outputs.dual import DualRecorder
from audiomixer.outputs.file import FileOutput
from audiomixer.outputs.folder import Folder
from audiomixer.outputs.spool import Spool, claim, files_in, try_to_lock
from audiomixer.outputs.tracks import TrackRecorder
from audiomixer.service.jobs import RecordingOrder, RecordingState, StoredFile

RECORDING: Final = "KV"
_ADOPTION: Final = 60.0
"""Seconds between two looks for what processes have left."""
_LEAST_FREE: Final = 256 << 20
"""Bytes of the disk that recordings do not begin to fill."""
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
        store: Where recordings go; nothing can be recorded, if None.
        folder: Where they are until they are there. Processes that share it have folders of their own in it, and each
            goes on with one that has been left.
        limit: GiB that may wait there.

    Raises:
        ValueError: The folder cannot be made.
    """

    def __init__(self, store: Bucket | Folder | None, folder: Path, limit: float) -> None:
        try:
            self._own, self._lock = claim(folder)
        except OSError as error:
            raise ValueError(f"spool: expected a folder that can be written, {folder}: {explain(error)}") from None
        self._store = store
        self._notes = self._own / "stored"
        self._spool = Spool(self._own / "files", store or Folder(""), round(limit * 1024**3), self._note)
        self._running: dict[str, _Running] = {}
        self._stored: dict[str, StoredFile] = {}
        """By key, until it is acknowledged."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Held while a recording begins, or ends."""
        self._surveyor = ThreadPoolExecutor(1, thread_name_prefix="survey", initializer=be_nice)
        self._tasks: list[asyncio.Task[None]] = []

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
        if self._store is None:
            return
        await blocking(self._adopt)
        await self._read_notes()
        await self._spool.open()
        self._tasks = [asyncio.create_task(self._spool.run()), asyncio.create_task(self._look_for_ever())]
        spawn(self._check(self._store))

    async def _check(self, store: Bucket | Folder) -> None:
        """Tells early that recordings cannot be stored."""
        if isinstance(store, Bucket):
            try:
                await store.check()
            except OutputError as error:
                _log.error("recordings: %s", error)

    async def _read_notes(self) -> None:
        """What others have stored, and not told."""
        for note in await blocking(lambda: list(self._notes.glob("*.json"))):
            with contextlib.suppress(OSError, ValueError, TypeError):
                stored = StoredFile(**json.loads(await blocking(note.read_text)))
                self._stored.setdefault(stored.key, stored)

    async def _look_for_ever(self) -> None:
        """Goes on with what processes leave that nobody comes after."""
        while True:
            await asyncio.sleep(_ADOPTION)
            try:
                if adopted := await blocking(self._adopt):
                    await self._read_notes()
                for path in adopted:
                    self._spool.take(path)
            except OSError as error:
                _log.warning("spool: %s", explain(error))

    def _adopt(self) -> list[Path]:
        """Moves here what is in folders that no process has; gives the files to be stored."""
        adopted = []
        for other in self._own.parent.iterdir():
            if other == self._own or not other.is_dir() or not (lock := try_to_lock(other)):
                continue
            with lock:
                for kind in (self._spool.folder, self._notes):
                    for file in files_in(other / kind.name):
                        own = kind / file.relative_to(other / kind.name)
                        own.parent.mkdir(parents=True, exist_ok=True)
                        if not own.exists():
                            file.rename(own)
                            adopted += [own] if kind is self._spool.folder else []
        return adopted

    async def close(self) -> None:
        """Looks after it no more; the next process does."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._spool.close()
        self._surveyor.shutdown(wait=False, cancel_futures=True)
        self._lock.close()

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
        async with self._locks[order.sid]:
            if order.sid not in self._running:
                await self._start(job, mixer, order, part)

    async def _start(self, job: str, mixer: AudioMixer, order: RecordingOrder, part: int) -> None:
        if self._store is None:
            raise OutputError("recordings: expected AUDIOMIXER_RECORDINGS, for workers on other machines")
        try:
            self._spool.check_room()
        except OSError as error:
            raise OutputError(f"recordings: {explain(error)}") from error
        if (await blocking(shutil.disk_usage, self._own)).free < _LEAST_FREE:
            raise OutputError(f"recordings: expected {_LEAST_FREE >> 20} MiB of free disk")
        # Two that went on at once, as neither knew of the other, would write over one another.
        path = self._spool.folder / (order.key + (f"-{part + 1}-{secrets.token_hex(2)}" if part else ""))
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
            await self._finish(order.sid)
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
        async with self._locks[sid]:
            await self._finish(sid)
        self._locks.pop(sid, None)

    async def _finish(self, sid: str) -> None:
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
        here: dict[str, str] = {_sid_of(self._spool.key(path)): "" for path in self._spool.writing}
        for path in self._spool.waiting:
            sid = _sid_of(self._spool.key(path))
            here[sid] = here.get(sid) or self._spool.problem_of(path)
        sizes = self._spool.sizes(_sid_of)
        found = {}
        for sid in {*self._running, *here, *stored}.difference({""}):
            running = self._running.get(sid)
            failed = running.file.error if running and running.file else None
            problem = failed or (self._problem_of(running) if running else "") or here.get(sid, "")
            found[sid] = RecordingState(
                running.mixer.time - running.began if running else 0.0,
                sizes.get(sid, 0),
                tuple(stored[sid]),
                problem,
                failed is not None,
                running is not None,
            )
        return found

    def _problem_of(self, running: _Running) -> str:
        """Why it does not get on, just now."""
        is_lost = running.file is not None and not running.file.connected
        if is_lost or (running.solos and running.solos.error):
            return "the spool is full" if self._spool.is_full else "it cannot be written"
        return ""

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
        await blocking(_write, note, json.dumps(asdict(stored)))
        self._stored[key] = stored

    async def _survey(self, path: Path) -> Survey:
        """Listens to a file, in a thread of lower priority."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._surveyor, survey, str(path))
        except Exception as error:  # Whatever is in it, it is stored.
            _log.warning("%s cannot be listened to: %s", path.name, explain(error))
            return Survey(0.0, None, None, ())


def _write(file: Path, text: str) -> None:
    """Writes a file, which is on disk then."""
    new = file.with_suffix(".new")
    with new.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(file)


def _sid_of(key: str) -> str:
    """The recording that an object is of."""
    found = _SID.search(key)
    return found[0] if found else ""


def place_of(recordings: str) -> Bucket | Folder:
    """Where a setting says that recordings go.

    Raises:
        ValueError: They cannot.
    """
    try:
        return store_of(recordings)
    except ValueError as error:
        raise ValueError(f"recordings: {error}") from None
