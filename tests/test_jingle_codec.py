"""The XML codec against recorded dialogues, generated stanzas and broken ones."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from bot.errors import ProtocolError
from bot.jingle import names
from bot.jingle.codec import JingleError, build_jingle, parse_jingle
from bot.jingle.model import (
    EXT_ABS_SEND_TIME,
    EXT_AUDIO_LEVEL,
    EXT_DEPENDENCY_DESCRIPTOR,
    EXT_TRANSPORT_CC,
    Candidate,
    Content,
    Jingle,
    MediaSources,
    PayloadType,
    Reason,
    RtcpFeedback,
    SctpMap,
    Source,
    SourceGroup,
    SourceMap,
)
from tests.jingle_support import Recorded, audio_video, jingles, offer, one, recorded

OFFERS = [
    "probe-basic-alice",
    "probe-media-both-alice",
    "probe-media-sctp-alice",
    "probe-media-sctp-bob",
    "probe-media-ws-alice",
    "probe-modern-alice",
    "web-client-0-xmpp",
    "web-client-1-xmpp",
]
OFFERS_OF_BOTS = [
    "bot-elements",
    "bot-kicked",
    "bot-muted",
    "bot-pair",
    "bot-race-1",
    "bot-race-2",
    "bot-resumed-1",
    "bot-sources",
    "bot-three",
    "bot-websocket",
]
WITHOUT_SCTP = {"probe-basic-alice", "probe-media-ws-alice", "bot-elements", "bot-websocket"}
WITHOUT_WEB_SOCKET = {"probe-media-sctp-alice", "probe-media-sctp-bob"}


def over_the_wire(jingle: Jingle) -> Jingle:
    """``jingle`` written as text and read again."""
    return parse_jingle(ET.fromstring(ET.tostring(build_jingle(jingle))))


def element(children: str = "", attributes: str = "action='session-initiate' sid='s1'") -> ET.Element:
    return ET.fromstring(f"<jingle xmlns='urn:xmpp:jingle:1' {attributes}>{children}</jingle>")


def content(description: str = "", rest: str = "", media: str = "video") -> ET.Element:
    return element(
        f"<content name='{media}'><description xmlns='{names.RTP}' media='{media}'>{description}</description>"
        f"{rest}</content>"
    )


def transport(children: str) -> ET.Element:
    return content(rest=f"<transport xmlns='{names.ICE_UDP}' ufrag='u' pwd='p'>{children}</transport>")


# --- recorded dialogues ------------------------------------------------------------------------------------


def test_the_dialogues_hold_what_they_should() -> None:
    counted = Counter((item.dialogue, item.element.get("action")) for item in recorded())
    initiated = {dialogue for dialogue, action in counted if action == "session-initiate"}
    assert initiated == {*OFFERS, *OFFERS_OF_BOTS, "bot-alone", "visitor-node"}
    assert {dialogue for dialogue, action in counted if action == "session-accept"} >= {
        *OFFERS_OF_BOTS,
        "bot-alone",
    }
    assert {action for _, action in counted} == {
        "session-initiate",
        "session-accept",
        "session-terminate",
        "source-add",
        "source-remove",
    }
    # A bot that was alone was offered a second session.
    again = {(dialogue, action) for (dialogue, action), count in counted.items() if count > 1}
    assert again == {
        ("bot-alone", "session-accept"),
        ("bot-alone", "session-initiate"),
        ("bot-elements", "source-add"),
        ("bot-sources", "source-add"),
    }


@pytest.mark.parametrize("item", recorded(), ids=repr)
def test_replay_survives_the_round_trip(item: Recorded) -> None:
    jingle = parse_jingle(item.element)
    assert jingle.contents or jingle.sources or jingle.reason
    assert parse_jingle(build_jingle(jingle)) == jingle
    assert over_the_wire(jingle) == jingle


@pytest.mark.parametrize("dialogue", OFFERS + OFFERS_OF_BOTS)
def test_replay_offer(dialogue: str) -> None:
    jingle = offer(dialogue)
    names_offered = ["audio", "video"] if dialogue in WITHOUT_SCTP else ["audio", "video", "data"]
    assert (jingle.initiator, jingle.responder) == ("focus@auth.meet.jitsi/focus", None)
    assert [item.name for item in jingle.contents] == names_offered
    assert jingle.bundle == tuple(names_offered)
    assert jingle.bridge_session_id is not None
    assert len(jingle.bridge_session_id) == 36
    assert (jingle.restart, jingle.reason, jingle.info) == (None, None, ())


@pytest.mark.parametrize("dialogue", OFFERS + OFFERS_OF_BOTS)
def test_replay_offered_audio(dialogue: str) -> None:
    audio = offer(dialogue).content("audio")
    assert audio is not None
    assert [(item.id, item.name, item.clockrate, item.channels) for item in audio.payload_types] == [
        (111, "opus", 48000, 2),
        (126, "telephone-event", 8000, 1),
    ]
    assert audio.payload_types[0].parameters == {"minptime": "10", "useinbandfec": "1"}
    assert audio.payload_types[0].feedback == (RtcpFeedback("transport-cc"),)
    assert {item.uri: item.id for item in audio.header_extensions} == {EXT_AUDIO_LEVEL: 1, EXT_TRANSPORT_CC: 5}
    assert (audio.maxptime, audio.rtcp_mux, audio.extmap_allow_mixed) == (60, True, True)


@pytest.mark.parametrize("dialogue", OFFERS + OFFERS_OF_BOTS)
def test_replay_offered_video(dialogue: str) -> None:
    video = offer(dialogue).content("video")
    assert video is not None
    codecs = {item.id: item.name for item in video.payload_types}
    assert codecs == {41: "AV1", 100: "VP8", 107: "H264", 101: "VP9", 42: "rtx", 96: "rtx", 97: "rtx", 99: "rtx"}
    repairs = {pt: rtx.id for pt in (41, 100, 101, 107) if (rtx := video.rtx_for(pt))}
    assert repairs == {41: 42, 100: 96, 101: 97, 107: 99}
    assert {item.uri: item.id for item in video.header_extensions} == {
        EXT_DEPENDENCY_DESCRIPTOR: 11,
        EXT_ABS_SEND_TIME: 3,
        EXT_TRANSPORT_CC: 5,
    }
    assert video.payload_types[1].feedback == (
        RtcpFeedback("ccm", "fir"),
        RtcpFeedback("nack"),
        RtcpFeedback("nack", "pli"),
        RtcpFeedback("transport-cc"),
    )


@pytest.mark.parametrize("dialogue", OFFERS + OFFERS_OF_BOTS)
def test_replay_offered_transport(dialogue: str) -> None:
    jingle = offer(dialogue)
    for item in jingle.contents:
        offered = item.transport
        assert offered is not None
        assert (len(offered.ufrag) >= 4, len(offered.pwd) >= 22, offered.rtcp_mux) == (True, True, True)
        [candidate] = offered.candidates
        assert candidate == Candidate(
            "1", 1, "udp", 2130706431, "10.77.0.1", 10000, "host", generation=0, id=candidate.id, network=0
        )
        [fingerprint] = offered.fingerprints
        assert (fingerprint.hash, fingerprint.setup, len(fingerprint.value)) == ("sha-256", "actpass", 95)
        assert (offered.web_socket_url is None) == (dialogue in WITHOUT_WEB_SOCKET)
        assert offered.sctp == (SctpMap(5000, "webrtc-datachannel", 1024) if item.name == "data" else None)


@pytest.mark.parametrize("dialogue", OFFERS + OFFERS_OF_BOTS)
def test_replay_offered_sources(dialogue: str) -> None:
    jingle = offer(dialogue)
    if dialogue == "probe-basic-alice":
        assert not jingle.sources
        assert not jingle.json_sources
        return
    [audio] = jingle.sources.audio.sources
    [video] = jingle.sources.video.sources
    assert (audio.name, audio.owner, audio.msid) == ("jvb-a0", "jvb", "mixedmslabel mixedlabelaudio0")
    assert (video.name, video.owner, video.msid) == ("jvb-v0", "jvb", "mixedmslabel mixedlabelvideo0")


@pytest.mark.parametrize("dialogue", ["bot-elements", "bot-sources"])
def test_replay_sources_of_others(dialogue: str) -> None:
    """Jicofo writes the msid in RTP's namespace where sources are elements; owners are endpoint ids in both."""
    added = [
        parse_jingle(item.element)
        for item in recorded()
        if (item.dialogue, item.element.get("action")) == (dialogue, "source-add")
    ]
    for jingle in added:
        for source in (*jingle.sources.audio.sources, *jingle.sources.video.sources):
            assert source.owner is not None
            assert (source.name or "").startswith(f"{source.owner}-")
            assert (source.msid or "").startswith(f"{source.owner}-")
        [group] = jingle.sources.video.groups
        assert (group.semantics, group.ssrcs) == ("FID", tuple(item.ssrc for item in jingle.sources.video.sources))


def test_replay_sources_in_both_encodings() -> None:
    assert offer("web-client-0-xmpp").json_sources
    assert offer("web-client-0-xmpp").sources.video.sources[0].ssrc == 2622345347
    accepted = one("probe-media-ws-alice", "session-accept")
    assert not accepted.json_sources
    assert accepted.sources.audio.sources == (
        Source(690834138, "31b8c024-a0", None, "31b8c024-audio-0-1 audio690834138"),
    )


def test_replay_web_client_accept() -> None:
    jingle = one("web-client-0-xmpp", "session-accept")
    video = jingle.content("video")
    data = jingle.content("application")
    assert video is not None
    assert data is not None
    assert jingle.initiator == "ceo1@muc.meet.jitsi/focus"
    assert jingle.responder == "04280b68-88ca-4270-8023-36ef58edbc56@meet.jitsi/-PRft_YdPwuH"
    assert {item.creator for item in jingle.contents} == {"responder"}
    assert [item.id for item in video.payload_types] == [41, 42, 101, 97, 100, 96, 107, 99]
    assert jingle.sources.audio.sources == (
        Source(1568910919, "04280b68-a0", None, "04280b68-audio-0-1 f6c09107-5496-4c5d-b4c0-3ea552801a61-1"),
    )
    assert {item.video_type for item in jingle.sources.video.sources} == {"camera"}
    assert jingle.sources.video.groups == (
        SourceGroup("FID", (556593402, 961424086)),
        SourceGroup("SIM", (556593402, 4197869130, 1237730525)),
        SourceGroup("FID", (4197869130, 1978633496)),
        SourceGroup("FID", (1237730525, 3107181189)),
    )
    # The content has no description: its name tells what it is.
    assert data.transport is not None
    assert data.transport.sctp == SctpMap(5000, "webrtc-datachannel", 0)


# --- round trips -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(jingles())
def test_round_trip(jingle: Jingle) -> None:
    assert over_the_wire(jingle) == jingle


@pytest.mark.parametrize(
    "jingle",
    [
        Jingle("session-terminate", "s1", reason=Reason("gone", "bye & <farewell>"), restart=True),
        Jingle("session-terminate", "s1", reason=Reason("expired")),
        Jingle("session-info", "s1", bridge_session_id="b1", ice_restart=True),
        Jingle("source-add", "s1", sources=audio_video(1, 2, 3, owner="ep"), json_sources=True),
        Jingle("source-remove", "s1", json_sources=True),
    ],
    ids=lambda jingle: str(jingle.action),
)
def test_round_trip_without_contents(jingle: Jingle) -> None:
    assert over_the_wire(jingle) == jingle


def test_sources_make_the_contents_they_need() -> None:
    jingle = Jingle("source-add", "s1", sources=audio_video(1, 2, 3, owner="ep"))
    read = over_the_wire(jingle)
    assert read.sources == jingle.sources
    assert [(item.name, item.media) for item in read.contents] == [("audio", "audio"), ("video", "video")]
    audio_only = replace(jingle, sources=SourceMap(audio=jingle.sources.audio))
    assert [item.name for item in over_the_wire(audio_only).contents] == ["audio"]


def test_children_are_in_the_order_of_jicofo() -> None:
    built = build_jingle(offer())
    assert [names.local_name(child.tag) for child in built] == [
        *["content"] * 3,
        "group",
        "bridge-session",
        "json-message",
    ]
    data_transport = built[2][1]
    assert [names.local_name(child.tag) for child in data_transport] == [
        "web-socket",
        "rtcp-mux",
        "fingerprint",
        "sctpmap",
        "candidate",
    ]


# --- tolerance ---------------------------------------------------------------------------------------------


def test_unknown_elements_are_left_out() -> None:
    jingle = parse_jingle(
        element(
            "<!-- remark --><traceparent xmlns='jitsi:opentelemetry'/><new xmlns='urn:new'/>"
            '<json-message xmlns=\'http://jitsi.org/jitmeet\'>{"type":"else"}</json-message>'
            "<group xmlns='urn:xmpp:jingle:apps:grouping:0' semantics='LS'><content name='audio'/></group>"
            "<content name='whiteboard'/><content name='file'>"
            f"<description xmlns='{names.RTP}' media='file'/></content>"
        )
    )
    assert jingle == Jingle("session-initiate", "s1")


def test_session_info_names_its_payload() -> None:
    payload = "<!-- remark --><mute xmlns='urn:info'/><traceparent xmlns='jitsi:opentelemetry'/><reason/>"
    jingle = parse_jingle(element(payload, "action='session-info' sid='s1'"))
    assert jingle.info == ("{urn:info}mute",)


def test_reason() -> None:
    terminate = "action='session-terminate' sid='s1'"
    both = element("<reason><!-- why --><text>left</text><gone/></reason>", terminate)
    assert parse_jingle(both).reason == Reason("gone", "left")
    assert parse_jingle(element("<reason/>", terminate)).reason == Reason("general-error")


def test_xml_sources_and_json_are_merged() -> None:
    jingle = parse_jingle(
        element(
            f"<content name='audio'><description xmlns='{names.RTP}' media='audio'>"
            f"<source xmlns='{names.SSMA}' ssrc='1'>"
            f"<ssrc-info xmlns='{names.JITMEET}' owner='r@muc.x/ep1'/></source></description></content>"
            f'<json-message xmlns=\'{names.JITMEET}\'>{{"sources":{{"ep2":[[],[],[{{"s":2}}]]}}}}</json-message>'
        )
    )
    assert jingle.sources.audio.sources == (Source(1, owner="ep1"), Source(2, owner="ep2"))
    assert jingle.json_sources


def test_sources_beside_the_description_count_too() -> None:
    jingle = parse_jingle(element(f"<content name='video'><source xmlns='{names.SSMA}' ssrc='7'/></content>"))
    assert jingle.sources.video == MediaSources((Source(7),))


def test_sources_of_the_data_content_mean_nothing() -> None:
    jingle = parse_jingle(element(f"<content name='data'><source xmlns='{names.SSMA}' ssrc='7'/></content>"))
    assert not jingle.sources


def test_payload_type_needs_but_an_id() -> None:
    jingle = parse_jingle(
        content("<payload-type id='0'><parameter value='0-15'/><parameter name='x'/></payload-type>")
    )
    [payload_type] = jingle.contents[0].payload_types
    assert (payload_type.id, payload_type.name, payload_type.clockrate, payload_type.channels) == (0, "", 0, 1)
    assert payload_type.parameters == {"x": ""}
    assert payload_type.apt is None
    assert hash(payload_type) == hash(replace(payload_type))


@pytest.mark.parametrize("apt", ["9" * 5000, "²", "٣", "-1", "", "1000"])
def test_what_is_no_payload_type_repairs_nothing(apt: str) -> None:
    assert PayloadType(96, "rtx", 90_000, parameters={"apt": apt}).apt is None


def test_bridge_session_restart_is_read_as_a_flag() -> None:
    bridge = f"<bridge-session xmlns='{names.FOCUS}' id='b' restart='TRUE' ice-restart='false'/>"
    jingle = parse_jingle(element(bridge))
    assert (jingle.bridge_session_id, jingle.restart, jingle.ice_restart) == ("b", True, False)


def test_content_look_ups() -> None:
    video = offer().content("video")
    assert video is not None
    assert video.extension_id(EXT_ABS_SEND_TIME) == 3
    assert video.extension_id("urn:none") is None
    assert Content("audio", "audio").payload_type("opus") is None
    assert Jingle("source-add", "s").content("audio") is None


# --- broken input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ET.fromstring("<query xmlns='urn:x'/>"), "<query> is not a Jingle element"),
        (element(attributes="sid='s1'"), "<jingle> lacks its attribute 'action'"),
        (element(attributes="action='source-add'"), "<jingle> lacks its attribute 'sid'"),
        (element(attributes="action='source-add' sid=''"), "<jingle> lacks its attribute 'sid'"),
        (element("<content/>"), "<content> lacks its attribute 'name'"),
        (content("<payload-type/>"), "<payload-type> attribute 'id'"),
        (content("<payload-type id='128'/>"), "from 0 to 127: '128'"),
        (content("<payload-type id='-1'/>"), "'-1'"),
        (content("<payload-type id='１'/>"), "<payload-type> attribute 'id'"),
        (content("<payload-type id='1_0'/>"), "<payload-type> attribute 'id'"),
        (content(f"<payload-type id='{'9' * 5000}'/>"), "<payload-type> attribute 'id'"),
        (content("<payload-type id='1' clockrate='fast'/>"), "<payload-type> attribute 'clockrate'"),
        (content(f"<rtp-hdrext xmlns='{names.RTP_HDREXT}' id='0' uri='u'/>"), "<rtp-hdrext> attribute 'id'"),
        (content(f"<rtp-hdrext xmlns='{names.RTP_HDREXT}' id='1'/>"), "<rtp-hdrext> lacks its attribute 'uri'"),
        (content(f"<source xmlns='{names.SSMA}' ssrc='4294967296'/>"), "<source> attribute 'ssrc'"),
        (content(f"<source xmlns='{names.SSMA}'/>"), "<source> attribute 'ssrc'"),
        (content(f"<ssrc-group xmlns='{names.SSMA}'/>"), "<ssrc-group> lacks its attribute 'semantics'"),
        (transport("<candidate component='1'/>"), "<candidate> lacks its attribute 'foundation'"),
        (transport(f"<fingerprint xmlns='{names.DTLS}' hash='sha-256'/>"), "<fingerprint> is empty"),
        (transport(f"<fingerprint xmlns='{names.DTLS}'>AA</fingerprint>"), "lacks its attribute 'hash'"),
        (transport(f"<sctpmap xmlns='{names.DTLS_SCTP}'/>"), "<sctpmap> attribute 'number'"),
        (element(f"<json-message xmlns='{names.JITMEET}'/>"), "<json-message> is not JSON"),
        (element("<content name='audio'/>" * 1001), "<jingle> has more than 1000 <content>"),
    ],
)
def test_broken_stanzas_name_element_and_attribute(broken: ET.Element, message: str) -> None:
    with pytest.raises(JingleError) as caught:
        parse_jingle(broken)
    assert message in str(caught.value)
    assert caught.value.condition == ("resource-constraint" if "more than" in message else "bad-request")
    assert isinstance(caught.value, ProtocolError)


def test_too_many_sources_in_one_content() -> None:
    crowd = content("".join(f"<source xmlns='{names.SSMA}' ssrc='{ssrc}'/>" for ssrc in range(10_001)))
    with pytest.raises(JingleError, match="more than 10000 <source>"):
        parse_jingle(crowd)


def test_too_many_sources_over_all_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_SOURCES", 2)
    with pytest.raises(JingleError, match="more than 2 sources") as caught:
        parse_jingle(build_jingle(Jingle("source-add", "s", sources=audio_video(1, 2, 3))))
    assert caught.value.condition == "resource-constraint"


def test_five_hundred_sources_are_fine() -> None:
    crowd = SourceMap(audio=MediaSources(tuple(Source(ssrc, owner=f"ep{ssrc}") for ssrc in range(500))))
    assert over_the_wire(Jingle("source-add", "s", sources=crowd, json_sources=True)).sources == crowd
    assert over_the_wire(Jingle("source-add", "s", sources=crowd)).sources == crowd
