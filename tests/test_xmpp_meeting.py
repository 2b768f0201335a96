"""A moderator's orders, against those recorded at real servers, and what a meeting refuses to believe."""

import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from bot.errors import ActionRefusedError
from bot.xmpp.breakout import MoveRequested
from bot.xmpp.connection import IqHandler, IqRequest
from bot.xmpp.meeting import Meeting
from bot.xmpp.moderation import MUTE_TAGS, AvModerationChanged, StartMuted, mute_request
from bot.xmpp.occupants import OccupantTable
from bot.xmpp.stanza_errors import StanzaError
from tests.recordings import dialogue

ROOM = "salon@muc.meet.jitsi"


def _nothing(_: ET.Element) -> None:
    """Nobody hears."""


class Line:
    """A connection that answers with what was recorded, and keeps what is said."""

    def __init__(self) -> None:
        self.said: list[ET.Element] = []
        self.asked: list[tuple[str, ET.Element]] = []
        self.handlers: dict[str, IqHandler] = {}
        self.hear: Callable[[ET.Element], None] = _nothing
        self.services = next(
            frame.element[0]
            for frame in dialogue("room-alice")
            if not frame.sent and frame.element.get("from") == "meet.jitsi" and len(frame.element)
        )

    def on_message(self, callback: Callable[[ET.Element], None]) -> Callable[[], None]:
        self.hear = callback
        return lambda: setattr(self, "hear", _nothing)

    def on_iq(self, tag: str, handler: IqHandler) -> None:
        self.handlers[tag] = handler

    def send(self, stanza: ET.Element) -> None:
        self.said.append(stanza)

    async def iq(self, kind: str, to: str, payload: ET.Element, timeout: float = 15.0) -> ET.Element | None:
        self.asked.append((to, payload))
        return self.services if to == "meet.jitsi" else None


class Hall:
    """A room with one other in it."""

    jid = ROOM

    def __init__(self) -> None:
        self.occupants = OccupantTable("me")
        item = "<x xmlns='http://jabber.org/protocol/muc#user'><item jid='b@meet.jitsi/r' role='participant'/></x>"
        self.occupants.feed(ET.fromstring(f"<presence xmlns='jabber:client' from='{ROOM}/bob'>{item}</presence>"))


def scene() -> tuple[Meeting, Line, list[object]]:
    seen: list[object] = []
    line = Line()
    return Meeting(line, Hall(), "meet.jitsi", on_event=seen.append), line, seen  # type: ignore[arg-type]


def shape(stanza: ET.Element) -> tuple[str | None, str, dict[str, str]]:
    """To whom what is said; addresses of people, which each run has anew, by their names only."""
    attributes = {name: "*" if "@" in value else value for name, value in stanza[0].attrib.items()}
    return stanza.get("to"), stanza[0].tag.rpartition("}")[2], attributes


async def test_the_orders_are_those_recorded_at_real_servers() -> None:
    meeting, line, _ = scene()
    await meeting.set_av_moderation("audio", enabled=True)
    await meeting.approve_unmute("bob", "audio")
    await meeting.reject_unmute("bob", "audio")
    await meeting.set_av_moderation("audio", enabled=False)
    await meeting.add_breakout_room("corner")
    await meeting.send_to_room("bob", "x@breakout.meet.jitsi")
    await meeting.end()
    components = ("avmoderation.meet.jitsi", "breakout.meet.jitsi", "endconference.meet.jitsi")
    recorded = [
        frame.element
        for frame in dialogue("room-alice")
        if frame.sent and frame.element.tag.endswith("message") and frame.element.get("to") in components
    ]
    assert [shape(stanza) for stanza in line.said] == [shape(stanza) for stanza in recorded]
    assert line.said[1][0].get("jidToWhitelist") == f"{ROOM}/bob"
    assert line.said[5][0].get("participantJid") == "b@meet.jitsi/r"
    assert [to for to, _ in line.asked] == ["meet.jitsi"]  # the components are asked for once
    await meeting.remove_breakout_room("x@breakout.meet.jitsi")
    assert line.said[-1][0].get("breakoutRoomJid") == "x@breakout.meet.jitsi"


async def test_who_is_not_there_gets_no_orders() -> None:
    meeting, line, _ = scene()
    for order in (meeting.approve_unmute("nobody", "audio"), meeting.send_to_room("nobody", "r@d")):
        with pytest.raises(ActionRefusedError, match="nobody is not in the room"):
            await order
    assert line.said == []
    assert repr(meeting) == f"<Meeting {ROOM} <AvModeration enabled for nothing>>"


def component(sender: str, text: str) -> ET.Element:
    payload = f"<json-message xmlns='http://jitsi.org/jitmeet'>{text}</json-message>"
    return ET.fromstring(f"<message xmlns='jabber:client' from='{sender}'>{payload}</message>")


def test_what_components_say_and_what_is_for_another_room() -> None:
    meeting, line, seen = scene()
    on = '{"type":"av_moderation","room":"%s","enabled":true,"mediaType":"audio"}'
    line.hear(component("avmoderation.meet.jitsi", on % "other@muc.meet.jitsi"))
    assert seen == []
    line.hear(component("avmoderation.meet.jitsi", on % ROOM))
    move = '{"type":"breakout_rooms","event":"features/breakout-rooms/move-to-room","roomJid":"x@breakout.d"}'
    line.hear(component("breakout.meet.jitsi", move))
    muted = '{"type":"room_metadata","metadata":{"startMuted":{"video":true}}}'
    line.hear(component("metadata.meet.jitsi", muted))
    line.hear(component("metadata.meet.jitsi", muted))  # nothing new
    line.hear(component("metadata.meet.jitsi", '{"type":"room_metadata","metadata":{}}'))
    line.hear(component("polls.meet.jitsi", '{"type":"polls"}'))
    assert seen == [
        AvModerationChanged("audio", True, None),
        MoveRequested("x@breakout.d"),
        StartMuted(audio=False, video=True),
        StartMuted(audio=False, video=False),
    ]
    meeting.close()
    line.hear(component("breakout.meet.jitsi", move))
    assert len(seen) == 4


def test_only_the_focus_mutes() -> None:
    _, line, seen = scene()
    order = mute_request(f"{ROOM}/me", "audio")
    with pytest.raises(StanzaError, match="only the focus mutes"):
        line.handlers[MUTE_TAGS[0]](IqRequest("set", f"{ROOM}/bob", "1", order))
    assert seen == []
    assert line.handlers[MUTE_TAGS[0]](IqRequest("set", f"{ROOM}/focus", "1", order)) is None
    assert len(seen) == 1
