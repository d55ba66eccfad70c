"""PlayerStreamers as resources: created, started when media arrives, ended with a reason."""

from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from audiomixer.service.http.errors import ApiError
from audiomixer.service.jobs import PLAYER_STREAMER
from audiomixer.service.resources import lives
from audiomixer.service.resources.lifecycles import Alarms, Office, check_room_for_more, make_sid
from audiomixer.service.resources.store import MediaProcessor, PlayerStreamer, now
from audiomixer.service.streams import Streams


class StreamerLifecycle:
    """Keeps account of PlayerStreamers.

    Args:
        office: Where account is kept.
        streams: Which has to know what to expect.
    """

    def __init__(self, office: Office, streams: Streams) -> None:
        self._office = office
        self._expected = streams.expected
        self._alarms = Alarms()
        self.on_ended: Callable[[PlayerStreamer], Awaitable[None]]
        """Called when one has ended by itself, not because its source did."""

    async def start(self) -> None:
        """Goes on with those of the last process."""
        running = select(PlayerStreamer).where(PlayerStreamer.status.in_(lives.PLAYER_STREAMER.open))
        for streamer in await self._office.store.run(lambda session: list(session.scalars(running))):
            self._limit(streamer)
            if streamer.status == "created":
                self._expected.add(streamer.sid)

    def close(self) -> None:
        """Ceases to keep time."""
        self._alarms.close()

    async def create(
        self, video: bool, max_duration: int, status_callback: str | None, status_callback_method: str
    ) -> PlayerStreamer:
        """Makes a PlayerStreamer, to be fed by a MediaProcessor.

        Raises:
            ApiError: There are too many.
        """
        made = now()

        def add(session: Session) -> PlayerStreamer:
            most = self._office.settings.max_player_streamers
            check_room_for_more(session, PlayerStreamer, most, PlayerStreamer.status.in_(lives.PLAYER_STREAMER.open))
            streamer = PlayerStreamer(
                sid=make_sid("VJ"),
                status=lives.PLAYER_STREAMER.begins,
                created=made,
                updated=made,
                video=video,
                max_duration=max_duration,
                status_callback=status_callback,
                status_callback_method=status_callback_method,
                callbacks_made=0,
                streamed=0.0,
            )
            session.add(streamer)
            self._tell(session, streamer, "created")
            return streamer

        streamer = await self._office.store.run(add)
        self._limit(streamer)
        self._expected.add(streamer.sid)
        self._office.callbacks.deliver(streamer.sid)
        return streamer

    def claim(self, session: Session, outputs: Sequence[str], source: str) -> None:
        """Within a transaction, sees that nobody feeds these PlayerStreamers, and has them fed by `source`.

        Raises:
            ApiError: One is none, or fed by another.
        """
        for sid in outputs:
            if not sid.startswith(PLAYER_STREAMER):
                continue
            streamer = session.get(PlayerStreamer, sid)
            if streamer is None or streamer.status not in lives.PLAYER_STREAMER.open:
                raise ApiError(
                    400, f"ExtensionContext: outputs: expected a PlayerStreamer that has not ended, got {sid}"
                )
            feeding = session.get(MediaProcessor, streamer.source) if streamer.source else None
            if feeding and feeding.status in lives.MEDIA_PROCESSOR.open:
                raise ApiError(400, f"ExtensionContext: outputs: {sid} is fed by {feeding.sid} already")
            streamer.source = source

    async def started(self, sids: list[str]) -> None:
        """Media has arrived."""

        def start(session: Session) -> None:
            for sid in sids:
                streamer = session.get_one(PlayerStreamer, sid)
                if lives.PLAYER_STREAMER.happens(streamer, "started"):
                    self._tell(session, streamer, "started")

        await self._office.store.run(start)
        for sid in sids:
            self._expected.discard(sid)
            self._office.callbacks.deliver(sid)

    async def end(self, sid: str, reason: str, problem: str | None = None) -> None:
        """Ends one, unless it has ended."""
        ended = await self._office.store.run(lambda session: self.end_within(session, sid, reason, problem))
        if ended:
            self.ended(sid)
            await self.on_ended(ended)

    def end_within(self, session: Session, sid: str, reason: str, problem: str | None = None) -> PlayerStreamer | None:
        """Ends one within a transaction, after which `ended` has to follow; None if it had ended."""
        streamer = session.get_one(PlayerStreamer, sid)
        if not lives.PLAYER_STREAMER.happens(streamer, reason):
            return None
        self._tell(session, streamer, streamer.status, EndedReason=reason, ErrorMessage=problem)
        return streamer

    def ended(self, sid: str) -> None:
        """One has ended, and that is on disk."""
        self._alarms.clear(sid)
        self._expected.discard(sid)
        self._office.callbacks.deliver(sid)

    def _limit(self, streamer: PlayerStreamer) -> None:
        async def over() -> None:
            await self.end(streamer.sid, "max-duration-exceeded")

        left = streamer.created + streamer.max_duration - now()
        # The time of day may have been set back since it was created.
        self._alarms.set(streamer.sid, min(left, streamer.max_duration), over)

    def _tell(self, session: Session, streamer: PlayerStreamer, event: str, **parameters: str | None) -> None:
        self._office.callbacks.tell(
            session, streamer, f"player-streamer-{event}", PlayerStreamerSid=streamer.sid, **parameters
        )
