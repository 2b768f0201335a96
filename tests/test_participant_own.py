"""A participant's own sources on the embedded server: what the others, the focus and the bridge come to know."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack

from bot import events
from bot.bridge import depacketize, rtp
from bot.bridge.channel import SctpBridgeChannel
from bot.embedded.bridge import Conference as Room
from bot.embedded.bridge import Endpoint
from bot.embedded.server import EmbeddedServer
from bot.errors import OwnSourceError
from bot.jingle.model import Source
from bot.media.files import FileAudioTrack
from bot.media.synthetic import SyntheticAudioTrack, SyntheticVideoTrack
from bot.xmpp.connection import XmppConnection
from tests.bridge_support import until
from tests.conftest import CAPTURES
from tests.test_media_files import film
from tests.test_participant_prosody import Seen, participant

ROOM = "jitsi-bot@muc.meet.jitsi"
VP8, H264 = 100, 107


class Arrived(NamedTuple):
    """One RTP packet at the bridge."""

    endpoint: str
    header: rtp.RtpHeader
    data: bytes
    at: float

    @property
    def starts_key(self) -> bool:
        return depacketize.unpack("vp8", self.header, self.data).starts_key


class Call:
    """Two participants in a room; the first one's sources are looked at, from all sides."""

    def __init__(self, server: EmbeddedServer, **settings: Any) -> None:
        self.server = server
        self.seen, self.other = Seen(), Seen()
        settings = {"ice_addresses": "127.0.0.1", "audio": "tone", **settings}
        self.one = participant(server.url, self.seen, name="one", **settings)
        self.two = participant(
            server.url, self.other, name="two", ice_addresses="127.0.0.1", audio="none", video="none"
        )
        self.own = self.one.own
        self.packets: list[Arrived] = []
        forward = server.bridge._rtp

        def note(conference: Room, sender: Endpoint, data: bytes) -> None:
            self.packets.append(Arrived(sender.name, rtp.parse_header(data), data, time.monotonic()))
            forward(conference, sender, data)

        server.bridge._rtp = note  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        """The endpoint id of the first one."""
        assert self.one.conference is not None
        return self.one.conference.room.own.rpartition("/")[2]

    @property
    def shown(self) -> Mapping[str, object]:
        """The first one's SourceInfo as the second one sees it, by label."""
        assert self.two.conference is not None
        others = {item.endpoint: item.sources for item in self.two.conference.room.occupants.others}
        return {name.rpartition("-")[2]: info for name, info in others.get(self.name, {}).items()}

    def signalled(self) -> dict[str, list[Source]]:
        """What the focus knows of the first one, by label."""
        found: dict[str, list[Source]] = {}
        sources = self.server.service.focus.conferences[ROOM].members[self.name].sources
        for source in (*sources.audio.sources, *sources.video.sources):
            found.setdefault((source.name or "").rpartition("-")[2], []).append(source)
        return found

    def of(self, label: str) -> list[Arrived]:
        """What came of one source so far, retransmissions left out."""
        ssrc = self.signalled()[label][0].ssrc
        return [item for item in self.packets if item.header.ssrc == ssrc]

    async def flowing(self, label: str, count: int = 5) -> None:
        """Wait for further packets of a source."""
        before = len(self.of(label))
        await until(lambda: len(self.of(label)) >= before + count)

    async def quiet(self, label: str, most: int = 0) -> None:
        """See that within 0.7 s no more than ``most`` packets of a source come, after those on their way."""
        await asyncio.sleep(0.15)
        before = len(self.of(label))
        await asyncio.sleep(0.7)
        assert len(self.of(label)) - before <= most

    def told(self, kind: type[events.Event]) -> list[dict[str, Any]]:
        """The first one's events of a kind."""
        return [event.as_dict() for event in self.seen.events if isinstance(event, kind)]

    async def connected(self, count: int = 1) -> None:
        await self.seen.wait("media_connected", count)
        await self.other.wait("media_connected")
        await until(lambda: set(self.signalled()) == {source.label for source in self.own.sources})

    async def told_height(self, label: str, height: int) -> None:
        """Wait until the bridge has told the first one this height."""
        found = {"source": label, "max_height": height}
        await until(
            lambda: any(found.items() <= item.items() for item in self.told(events.SenderConstraintsChanged))
        )


@asynccontextmanager
async def calling(
    before: Callable[[Call], object] = lambda _: None, *, max_ssrcs: int = 20, **settings: Any
) -> AsyncIterator[Call]:
    """A call in which media flows; ``before`` acts before the first one joins."""
    server = EmbeddedServer(port=0)
    server.service.focus.config = replace(server.service.focus.config, max_ssrcs=max_ssrcs)
    await server.start()
    call = Call(server, **settings)
    result = before(call)
    if asyncio.iscoroutine(result):
        await result
    tasks = [asyncio.create_task(bot.run()) for bot in (call.one, call.two)]
    try:
        await call.connected()
        yield call
    finally:
        call.one.stop()
        call.two.stop()
        await asyncio.wait_for(asyncio.gather(*tasks), 15)
        await server.stop()


@pytest.fixture(params=["shared", "aiortc"], autouse=True)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All of it on both engines: nobody shall see which it is."""
    monkeypatch.setenv("JITSI_MEDIA_ENGINE", request.param)
    return str(request.param)


def picture(name: str = "desk", **more: Any) -> SyntheticVideoTrack:
    return SyntheticVideoTrack("room", name, 160, 90, **more)


def check_times(packets: list[Arrived], rate: int) -> None:
    """Time stamps run with the clock, over all gaps: what a receiver plays is neither late nor early."""
    first = packets[0]
    for item in packets:
        stamp = (item.header.timestamp - first.header.timestamp) % 2**32 / rate
        assert stamp == pytest.approx(item.at - first.at, abs=0.35)


async def test_a_muted_sound_stays_signalled_and_is_all_but_silent() -> None:
    async with calling(video="none") as call:
        await call.flowing("a0", 20)
        before = call.signalled()
        call.own.mute("audio")
        await until(lambda: call.shown == {"a0": {"muted": True}})
        await asyncio.sleep(0.3)  # the end of the sound, and silence after it
        await call.quiet("a0", most=3)
        assert call.signalled() == before
        call.own.unmute("a0")
        await until(lambda: call.shown == {"a0": {"muted": False}})
        await call.flowing("a0", 20)
        numbers = [item.header.sequence for item in call.of("a0")]
        assert [(later - former) % 2**16 for former, later in itertools.pairwise(numbers)] == [1] * (
            len(numbers) - 1
        )
        check_times(call.of("a0"), 48_000)
        assert [item["muted"] for item in call.told(events.LocalMuteChanged)] == [True, False]
        call.own.unmute("audio")  # nothing new
        assert len(call.told(events.LocalMuteChanged)) == 2


async def test_a_muted_picture_is_not_sent_and_comes_back_with_a_key_frame() -> None:
    async with calling() as call:
        await call.told_height("v0", 360)
        await call.flowing("v0")
        before = call.signalled()
        call.own.mute("video")
        await until(lambda: call.shown["v0"] == {"muted": True})
        await call.quiet("v0")
        await call.flowing("a0")
        count = len(call.of("v0"))
        assert call.signalled() == before
        call.own.unmute("video")
        await until(lambda: call.shown["v0"] == {"muted": False})
        await call.flowing("v0")
        assert call.of("v0")[count].starts_key
        check_times(call.of("v0"), 90_000)


async def test_what_the_bridge_does_not_want_is_not_encoded(engine: str) -> None:
    async with calling() as call:
        await call.told_height("v0", 360)
        await call.flowing("v0")
        assert call.two.conference is not None
        call.two.set_layout(last_n=0)
        await call.told_height("v0", 0)
        track = call.own.sources[1].feed.track
        await call.quiet("v0")
        drawn, count = track._pacer._next if isinstance(track, SyntheticVideoTrack) else 0, len(call.of("v0"))
        await call.flowing("a0", 20)
        if engine == "aiortc":
            assert isinstance(track, SyntheticVideoTrack)
            assert track._pacer._next == drawn > 0
        assert len(call.of("v0")) == count
        assert call.shown["v0"] == {"muted": False}
        call.two.set_layout(last_n=-1)
        await until(lambda: len(call.of("v0")) > count)
        assert call.of("v0")[count].starts_key
        heights = [item["max_height"] for item in call.told(events.SenderConstraintsChanged)]
        assert heights[-3:] == [360, 0, 360]


async def test_a_desktop_comes_and_goes() -> None:
    async with calling() as call:
        track = picture(fps=10)
        assert await call.own.add_source(track) == "v1"
        found = call.signalled()["v1"]
        assert [source.video_type for source in found] == ["desktop", "desktop"]
        assert len({source.msid for source in found}) == 1
        assert {source.msid for source in found}.isdisjoint(source.msid for source in call.signalled()["v0"])
        await until(lambda: call.shown.get("v1") == {"muted": False, "videoType": "desktop"})
        await call.flowing("v1")
        await call.flowing("v0")
        await until(
            lambda: (
                f"{call.name}-v1"
                in [e.source for e in call.other.events if isinstance(e, events.RemoteSourceAdded)]
            )
        )
        sent = call.one.traffic.packets_sent
        await call.own.remove_source(f"{call.name}-v1")
        await until(lambda: "v1" not in call.shown)
        assert set(call.signalled()) == {"a0", "v0"}
        assert track.readyState == "live"
        assert call.one.traffic.packets_sent >= sent
        assert await call.own.add_source(track) == "v1"
        assert call.signalled()["v1"] != found
        await call.flowing("v1")
        names = [event.name for event in call.seen.events if event.name.startswith("local_source_")]
        assert names == ["local_source_added", "local_source_removed", "local_source_added"]
        track.stop()
        await until(lambda: "v1" not in call.signalled())


async def test_a_replaced_track_goes_on_in_the_same_stream(engine: str) -> None:
    async with calling() as call:
        await call.told_height("v0", 360)
        await call.flowing("v0", 20)
        made = call.own.sources[1].feed.track
        before = call.signalled()
        call.own.replace_track("v0", track := picture(fps=15))
        if engine == "aiortc":
            assert made is not None
            assert made.readyState == "ended"  # it was the participant's own
        await call.flowing("v0", 10)
        call.own.replace_track("v0", other := picture("other"))
        await call.flowing("v0", 10)
        assert track.readyState == "live"
        assert call.signalled() == before
        headers = [item.header for item in call.of("v0")]
        assert {header.ssrc for header in headers} == {before["v0"][0].ssrc}
        steps = [(b.sequence - a.sequence) % 2**16 for a, b in itertools.pairwise(headers)]
        assert set(steps) == {1}
        check_times(call.of("v0"), 90_000)
        jumps = [(b.timestamp - a.timestamp) % 2**32 for a, b in itertools.pairwise(headers)]
        assert max(jumps) < 2 * 90_000
        assert call.told(events.LocalMuteChanged) == []
        for item in (track, other):
            item.stop()
        await until(lambda: call.shown["v0"] == {"muted": True})


async def test_tracks_that_end_mute_the_first_source_and_take_others_away() -> None:
    async with calling() as call:
        desk, camera = picture(), picture("camera")
        await call.own.set_video(camera)
        await call.own.add_source(desk)
        await call.flowing("v1")
        camera.stop()
        desk.stop()
        await until(lambda: set(call.shown) == {"a0", "v0"} and call.shown["v0"] == {"muted": True})
        assert set(call.signalled()) == {"a0", "v0"}
        ended = {(item["source"], item["outcome"], item["cause"]) for item in call.told(events.LocalTrackEnded)}
        assert ended == {("v0", "muted", "it ended"), ("v1", "removed", "it ended")}
        await call.own.set_video(again := picture("again"))
        await until(lambda: call.shown["v0"] == {"muted": False})
        await call.flowing("v0")
        again.stop()


async def test_the_picture_is_stopped_and_started() -> None:
    async with calling() as call:
        await call.own.set_video(None)
        await until(lambda: call.shown["v0"] == {"muted": True})
        await call.quiet("v0")
        call.own.unmute("video")  # there is nothing to show
        await call.own.set_audio(None)
        await until(lambda: call.shown == {"a0": {"muted": True}, "v0": {"muted": True}})
        await call.own.set_video(track := picture())
        await call.own.set_audio(sound := SyntheticAudioTrack("other"))
        await until(lambda: call.shown == {"a0": {"muted": False}, "v0": {"muted": False}})
        await call.flowing("v0")
        await call.flowing("a0")
        track.stop()
        sound.stop()


async def test_who_publishes_nothing_can_begin_to() -> None:
    async with calling(video="none") as call:
        assert set(call.signalled()) == {"a0"}
        await call.own.set_video(None)
        await call.own.set_video(track := picture())
        assert {source.video_type for source in call.signalled()["v0"]} == {None}  # a camera
        await until(lambda: call.shown.get("v0") == {"muted": False})
        await call.flowing("v0")
        track.stop()


async def test_the_first_source_can_be_taken_away_and_given_again(engine: str) -> None:
    async with calling() as call:
        made = call.own.sources[1].feed.track
        await call.own.remove_source("v0")
        await until(lambda: set(call.shown) == {"a0"})
        assert set(call.signalled()) == {"a0"}
        if engine == "aiortc":
            assert made is not None
            assert made.readyState == "ended"
        await call.own.set_video(track := picture())
        await call.flowing("v0")
        track.stop()


async def test_any_track_of_aiortc_is_published(tmp_path: Path) -> None:
    """Whatever its form (8 kHz mono, pictures of other sizes), and though it is read by a thread."""
    player = MediaPlayer(str(film(tmp_path / "film.mkv", size=160)), loop=True)
    film_sound, film_picture = player.audio, player.video
    assert film_sound is not None
    assert film_picture is not None
    async with calling() as call:
        sound = AudioStreamTrack()
        await call.own.set_audio(sound)
        await call.own.set_video(film_picture)
        await call.flowing("a0", 20)
        await call.flowing("v0", 10)
        call.own.mute("video")
        call.own.replace_track("a0", film_sound)
        await call.flowing("a0", 20)
        call.own.replace_track("v0", green := VideoStreamTrack())
        call.own.unmute("video")
        await call.flowing("v0", 10)
        assert {track.readyState for track in (sound, green, film_sound, film_picture)} == {"live"}
        assert call.told(events.LocalTrackEnded) == []
    for track in (sound, green, film_sound, film_picture):
        track.stop()


async def test_a_file_is_published(engine: str, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", size=160)
    async with calling(lambda call: None, video=f"file:{path}", audio=f"file:{path}") as call:
        await call.flowing("v0", 20)
        await call.flowing("a0", 50)
        assert isinstance(call.own.sources[0].feed.track, FileAudioTrack) == (engine == "aiortc")


async def test_what_was_set_before_holds_from_the_first_session_on() -> None:
    camera, desk = picture("camera"), picture()

    async def before(call: Call) -> None:
        call.own.mute("audio")
        call.own.replace_track("video", camera)
        assert await call.own.add_source(desk) == "v1"

    async with calling(before) as call:
        await until(lambda: set(call.shown) == {"a0", "v0", "v1"})
        assert call.shown["a0"] == {"muted": True}
        assert call.own.sources[1].feed.track is camera
        await call.flowing("v0")
        await call.flowing("v1")
        joined = call.told(events.TracksCreated)
        assert [item["count"] for item in joined] == [3]
    assert (camera.readyState, desk.readyState) == ("live", "live")
    camera.stop()
    desk.stop()


async def test_what_was_set_stays_in_the_next_session() -> None:
    async with calling() as call:
        camera, desk = picture("camera"), picture()
        await call.own.set_video(camera)
        await call.own.add_source(desk)
        call.own.mute("audio")
        await call.flowing("v1")
        before = call.signalled()
        await call.server.bridge.conferences[ROOM].endpoints[call.name].close()
        await call.seen.wait("media_failed")
        call.own.mute("v1")  # between two sessions
        await call.seen.wait("media_connected", 2)
        assert set(call.signalled()) == {"a0", "v0", "v1"}
        assert call.signalled()["v1"][0].ssrc != before["v1"][0].ssrc
        await until(lambda: call.shown["v1"] == {"muted": True, "videoType": "desktop"})
        assert call.shown["a0"] == {"muted": True}
        await call.flowing("v0")
        call.own.unmute("v1")
        await call.flowing("v1")
        assert (camera.readyState, desk.readyState) == ("live", "live")
        camera.stop()
        desk.stop()


async def test_what_changes_while_the_connection_is_away_is_told_afterwards() -> None:
    async with calling() as call:
        await until(lambda: call.shown.get("a0") == {"muted": False})
        call.server.drop_connections()
        await call.seen.wait("connection_degraded")
        call.own.mute("audio")
        await call.seen.wait("connection_recovered")
        await until(lambda: call.shown["a0"] == {"muted": True})


@pytest.mark.parametrize("kind", ["audio", "video"])
async def test_joining_muted(kind: str) -> None:
    muted: dict[str, Any] = {f"start_muted_{kind}": True}
    async with calling(**muted) as call:
        label = f"{kind[0]}0"
        await until(lambda: set(call.shown) == {"a0", "v0"})
        assert {name: info["muted"] for name, info in call.shown.items()} == {  # type: ignore[index]
            "a0": kind == "audio",
            "v0": kind == "video",
        }
        await call.quiet(label, most=20)
        call.own.unmute(kind)
        await call.flowing(label, 30)


async def test_a_source_that_the_focus_refuses_changes_nothing() -> None:
    async with calling(max_ssrcs=3) as call:
        track = picture()
        with pytest.raises(OwnSourceError, match="The focus refused v1: bad-request: More than 3 SSRCs"):
            await call.own.add_source(track)
        assert [source.label for source in call.own.sources] == ["a0", "v0"]
        assert track.readyState == "live"
        await call.flowing("v0")
        assert "local_source_added" not in call.seen.names()
        track.stop()


async def test_the_codec_is_one_that_all_can_take() -> None:
    async with calling() as call:
        await call.flowing("v0")
        assert {item.header.payload_type for item in call.of("v0")} == {VP8}

    def only_h264(call: Call) -> None:
        call.two = participant(
            call.server.url,
            call.other,
            name="two",
            ice_addresses="127.0.0.1",
            audio="none",
            video="none",
            codecs="h264",
        )

    async with calling(only_h264) as call:
        await call.flowing("v0")
        assert {item.header.payload_type for item in call.of("v0")} == {H264}


async def test_the_codec_follows_who_comes_and_goes() -> None:
    async with calling() as call:
        await call.told_height("v0", 360)
        await call.flowing("v0", 10)
        third = participant(
            call.server.url,
            Seen(),
            name="three",
            ice_addresses="127.0.0.1",
            audio="none",
            video="none",
            codecs="h264",
        )
        task = asyncio.create_task(third.run())
        await until(lambda: any(item.header.payload_type == H264 for item in call.of("v0")))
        await call.flowing("v0", 10)
        third.stop()
        await asyncio.wait_for(task, 10)
        count = len(call.of("v0"))
        await until(lambda: call.of("v0")[-1].header.payload_type == VP8)
        await call.flowing("v0", 10)
        packets = call.of("v0")
        kinds = [item.header.payload_type for item in packets]
        first, again = kinds.index(H264), count + kinds[count:].index(VP8)
        assert set(kinds[:first]) == {VP8}
        assert set(kinds[first:again]) == {H264}
        assert set(kinds[again:]) == {VP8}
        assert depacketize.unpack("h264", packets[first].header, packets[first].data).starts_key
        assert packets[again].starts_key
        numbers = [item.header.sequence for item in packets]
        assert all((later - former) % 2**16 == 1 for former, later in itertools.pairwise(numbers))
        assert [item["codec"] for item in call.told(events.SendCodecChanged)] == ["h264", "vp8"]


def recorded() -> list[object]:
    """What a lib-jitsi-meet of August 2026 said while it did what the test below does, as ``said`` there."""
    found: list[object] = []
    for line in (CAPTURES / "web-client-sources.txt").read_text().splitlines():
        _, direction, text = line.split(" ", 2)
        if direction == ">>>":
            found += spoken(json.loads(text) if text.startswith("{") else ET.fromstring(text))
    return found[found.index("source-add") :]


def spoken(said: Mapping[str, Any] | ET.Element) -> list[object]:
    """The action of a Jingle stanza, the SourceInfo of a presence, the source and kind of a video type."""
    if isinstance(said, Mapping):
        kinds = said["colibriClass"] == "SourceVideoTypeMessage"
        return [(said["sourceName"].rpartition("-")[2], said["videoType"])] if kinds else []
    if (jingle := next((node for node in said.iter() if node.tag.endswith("}jingle")), None)) is not None:
        return [jingle.get("action")]
    info = json.loads(said.findtext("{jabber:client}SourceInfo") or "{}")
    return [{name.rpartition("-")[2]: entry for name, entry in info.items()}]


async def test_it_says_what_web_clients_say_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling() as call:
        await call.told_height("v0", 360)
        said: list[object] = []
        connection = call.one._connection
        iq, send, tell = XmppConnection.iq, XmppConnection.send, SctpBridgeChannel.send

        async def noted_iq(self: XmppConnection, kind: str, to: str, payload: Any, *rest: Any) -> Any:
            if self is connection and payload.get("action"):
                said.extend(spoken(payload))
            return await iq(self, kind, to, payload, *rest)

        def noted_send(self: XmppConnection, stanza: Any) -> None:
            if self is connection and stanza.tag.endswith("}presence"):
                said.extend(spoken(stanza))
            send(self, stanza)

        def noted_tell(self: SctpBridgeChannel, message: Mapping[str, Any]) -> None:
            said.extend(spoken(message))
            tell(self, message)

        monkeypatch.setattr(XmppConnection, "iq", noted_iq)
        monkeypatch.setattr(XmppConnection, "send", noted_send)
        monkeypatch.setattr(SctpBridgeChannel, "send", noted_tell)
        track = picture()
        await call.own.add_source(track)
        for kind in ("audio", "video"):
            call.own.mute(kind)
            call.own.unmute(kind)
        await call.own.remove_source("v1")
        web_client = recorded()
        # A web client leaves it at the muted presence. Here the source goes.
        assert said[: len(web_client)] == web_client
        rest = {"a0": {"muted": False}, "v0": {"muted": False}}
        assert said[len(web_client) :] == [("v1", "none"), "source-remove", rest]
        said.clear()
        await call.own.add_source(track)
        assert said[:2] == [("v1", "desktop"), "source-add"]  # the bridge remembers what it was told of this name
        track.stop()
        await until(lambda: said[-2:] == ["source-remove", rest])


async def test_what_cannot_be_is_a_clear_error() -> None:
    one = participant("ws://127.0.0.1:1", Seen(), video="none")
    sound, film, over = SyntheticAudioTrack("a"), picture(), picture()
    over.stop()
    with pytest.raises(OwnSourceError, match=r"publishes no v7 \(its sources: a0\)"):
        one.own.mute("v7")
    with pytest.raises(OwnSourceError, match="publishes no video"):
        one.own.unmute("video")
    with pytest.raises(OwnSourceError, match="a0 can't have this track: a track of audio is needed"):
        one.own.replace_track("deadbeef-a0", film)
    with pytest.raises(OwnSourceError, match="v0 can't have this track: the track has ended"):
        await one.own.add_source(over)
    with pytest.raises(OwnSourceError, match="video_type must be camera or desktop, not 'slides'"):
        await one.own.add_source(film, "slides")
    with pytest.raises(OwnSourceError, match="publishes no v0"):
        await one.own.remove_source("v0")
    assert [source.label for source in one.own.sources] == ["a0"]
    assert await one.own.add_source(sound) == "a1"
    assert repr(one.own) == "<OwnMedia a0, a1>"
    assert repr(one.own.sources[0]) == "<LocalSource a0 <Feed audio None>>"
    await one.own.close()
    assert sound.readyState == "live"
    one.own.constrain("deadbeef-v0", 0)
    sound.stop()
    film.stop()
