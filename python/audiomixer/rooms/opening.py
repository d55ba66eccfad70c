"""Makes rooms of the URLs they are named by."""

from collections.abc import Callable

from audiomixer.rooms.base import Room
from audiomixer.rooms.local import LocalRooms
from audiomixer.rooms.place import Place, check_extra
from audiomixer.rooms.publication import Publication
from audiomixer.rooms.remote import MakeSession, RemoteRoom
from audiomixer.webrtc.ice import Ice, addresses_of

RoomMaker = Callable[[], Room]


def room_maker(
    place: Place,
    identity: str,
    *,
    rooms: LocalRooms | None = None,
    ice: Ice | None = None,
    create: bool = True,
    patient: bool = False,
    publication: Publication | None = None,
    is_wanted: Callable[[str], bool] | None = None,
) -> RoomMaker:
    """What makes the room at a place, on the event loop, for a mixer to attach to.

    Args:
        place: Where it is.
        identity: Who the mixer is, where it shows.
        rooms: Where local rooms are; those of nobody else, if None.
        ice: Where media is received from elsewhere: at every address of this machine, if None.
        create: Whether a room elsewhere is made that is not there.
        patient: As of `RemoteRoom`.
        publication: What is published in a room of LiveKit, if anything.
        is_wanted: Which identities of a room elsewhere are mixed; all, if None.

    Raises:
        ValueError: A library or a credential is missing, or there can be no publication, or no choice of identities.
    """
    if publication is not None and place.kind != "livekit":
        raise ValueError(f"publish: expected a room of LiveKit, not {place.kind}:")
    if place.kind == "local" and is_wanted:
        raise ValueError("include, exclude: expected a room elsewhere; all who mix a room of ours have the same mix")
    if place.kind == "local":
        return lambda: (rooms or LocalRooms()).open(place.name)
    check_extra(place.kind)
    make = _livekit if place.kind == "livekit" else _janus
    session = make(place, identity, ice or Ice(addresses_of("0.0.0.0")), create, publication)  # noqa: S104
    wanted = is_wanted or (lambda identity: True)
    return lambda: RemoteRoom(place.name, session, patient=patient, is_wanted=wanted)


def _livekit(place: Place, identity: str, ice: Ice, create: bool, publication: Publication | None) -> MakeSession:
    from audiomixer.rooms.livekit import LiveKitSession
    from audiomixer.rooms.livekit_credentials import LiveKitCredentials

    credentials = LiveKitCredentials(place, identity, visible=publication is not None)
    return lambda roster, bus: LiveKitSession(place, credentials, ice, roster, create=create, publication=publication)


def _janus(place: Place, identity: str, ice: Ice, create: bool, _: Publication | None) -> MakeSession:
    from audiomixer.rooms.janus import JanusSession

    return lambda roster, bus: JanusSession(place, identity, ice, roster, create=create)
