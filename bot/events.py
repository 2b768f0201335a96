"""The event contract: what a participant reports of its life.

Each event is a dataclass with a stable ``name``. The log line, the metric, the web-hook and the state in the API
carry this same name and these same fields. ``message`` is the text for people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

EventSink = Callable[["Event"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base: who (``room``, ``participant``), in which connection attempt (from 1), and how far into its phase.

    ``seconds`` is the time since the start of the phase that the event ends or belongs to.
    """

    name: ClassVar[str] = "event"
    level: ClassVar[str] = "info"
    text: ClassVar[str] = ""

    room: str
    participant: str
    attempt: int = 1
    seconds: float = 0.0

    @property
    def message(self) -> str:
        """The text for people; stable for the events of the normal case."""
        return self.text.format_map({item.name: getattr(self, item.name) for item in fields(self)})

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, without those that are None."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCreating(Event):
    """A connection attempt begins. ``url`` without token."""

    name: ClassVar[str] = "connection_creating"
    text: ClassVar[str] = "Creating connection..."
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDone(Event):
    """One phase of joining is done: websocket, sasl, bind, focus, muc, offer, ice, dtls, first_packet_in/_out."""

    name: ClassVar[str] = "phase_done"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Phase {phase} done after {seconds:.3f} s"
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionEstablished(Event):
    """WebSocket, SASL and bind are done."""

    name: ClassVar[str] = "connection_established"
    text: ClassVar[str] = "Connection established!"
    jid: str
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(Event):
    """One attempt failed. ``delay`` seconds until the next one, None when it was the last."""

    name: ClassVar[str] = "connection_attempt_failed"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Connection attempt {attempt} failed: {cause}"
    code: str
    cause: str
    delay: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinFailed(Event):
    """The participant gave up: after the last retry, or at once where no retry can help. Exactly once a cycle."""

    name: ClassVar[str] = "join_failed"
    level: ClassVar[str] = "error"
    text: ClassVar[str] = "Could not join: {cause}"
    code: str
    cause: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConferenceJoined(Event):
    """The room admitted the participant."""

    name: ClassVar[str] = "conference_joined"
    text: ClassVar[str] = "Conference joined!"
    endpoint: str
    occupants: int
    versions: Mapping[str, str] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracksCreated(Event):
    """The local tracks exist and can be published."""

    name: ClassVar[str] = "local_tracks_created"
    text: ClassVar[str] = "Local tracks created: {count}"
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """The participant is in another state."""

    name: ClassVar[str] = "state_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "State {previous} -> {state}"
    previous: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FocusUnavailable(Event):
    """The focus does not answer or is not in the room: the participant stands there and waits for it."""

    name: ClassVar[str] = "focus_unavailable"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "The focus is not available, waiting for it: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaConnected(Event):
    """Media flows. ``seconds`` from when a session could be expected: joined, not alone, the last one gone."""

    name: ClassVar[str] = "media_connected"
    text: ClassVar[str] = "Media session connected"
    channel: str
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMissing(Event):
    """No media session came though one could: the room is joined anew, ``sctp`` says whether with SCTP."""

    name: ClassVar[str] = "session_missing"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "No media session, joining anew: {cause}"
    cause: str
    sctp: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeChannelDegraded(Event):
    """The bridge channel could not be opened or was lost; media goes on without it."""

    name: ClassVar[str] = "bridge_channel_degraded"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Bridge channel lost: {cause}"
    channel: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeChannelRecovered(Event):
    """The bridge channel is open again after ``seconds``."""

    name: ClassVar[str] = "bridge_channel_recovered"
    text: ClassVar[str] = "Bridge channel recovered after {seconds:.1f} s"
    channel: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaEnded(Event):
    """The focus took the media session away (alone in the room, bridge moved …). The participant stays."""

    name: ClassVar[str] = "media_ended"
    text: ClassVar[str] = "Media session ended: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFailed(Event):
    """A media session could not be set up or broke; another one is asked for where that can help."""

    name: ClassVar[str] = "media_failed"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Media session failed: {cause}"
    code: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRecovered(Event):
    """Packets come again after a media session was lost or moved; ``seconds`` is how long none came."""

    name: ClassVar[str] = "media_recovered"
    text: ClassVar[str] = "Media recovered after {seconds:.1f} s without a packet"


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaStatistics(Event):
    """What went each way in the last ``seconds``; bit rates in bit/s, ``streams`` is what was heard so far.

    ``frames_decoded`` and ``frames_dropped`` are of the streams that are decoded: who drops some can't keep up.
    ``bandwidth`` is the bridge's estimate of the way to us in bit/s, None before it has told one.
    """

    name: ClassVar[str] = "media_statistics"
    text: ClassVar[str] = (
        "Sent {packets_sent} packets, received {packets_received} of {streams} streams, lost {packets_lost}"
    )
    packets_sent: int
    packets_received: int
    packets_lost: int
    bytes_sent: int
    bytes_received: int
    bitrate_sent: float
    bitrate_received: float
    streams: int
    frames_decoded: int = 0
    frames_dropped: int = 0
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics(Event):
    """What has come of one remote source so far; ``jitter`` in seconds, ``bitrate`` in bit/s of the last second.

    ``lost`` packets of which ``repaired`` came by retransmission; ``first_frame`` seconds after the session began.
    """

    name: ClassVar[str] = "stream_statistics"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Received {packets} packets of {media} source {source}"
    source: str | None
    owner: str | None
    media: str
    codec: str
    packets: int
    bytes: int
    frames: int
    lost: int
    repaired: int
    reordered: int
    jitter: float
    bitrate: float
    first_frame: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSourceAdded(Event):
    """A remote media source is known: by Jingle, or by the bridge's maps where it rewrites SSRCs."""

    name: ClassVar[str] = "remote_source_added"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Remote {media} source {source} added"
    source: str
    media: str
    ssrc: int
    owner: str | None = None
    video_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSourceRemoved(Event):
    """A remote media source is gone."""

    name: ClassVar[str] = "remote_source_removed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Remote {media} source {source} removed"
    source: str
    media: str
    ssrc: int
    owner: str | None = None
    video_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSourceAdded(Event):
    """A further source of ours is published. ``source`` is its label: its name without the endpoint id."""

    name: ClassVar[str] = "local_source_added"
    text: ClassVar[str] = "Local {media} source {source} added"
    source: str
    media: str
    video_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSourceRemoved(Event):
    """A source of ours is not published any more."""

    name: ClassVar[str] = "local_source_removed"
    text: ClassVar[str] = "Local {media} source {source} removed"
    source: str
    media: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMuteChanged(Event):
    """A source of ours was muted or unmuted."""

    name: ClassVar[str] = "local_mute_changed"
    text: ClassVar[str] = "Local {media} source {source}: muted={muted}"
    source: str
    media: str
    muted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTrackEnded(Event):
    """A track of ours ended by itself. ``outcome`` is what became of its source: ``muted`` or ``removed``."""

    name: ClassVar[str] = "local_track_ended"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "The track of {source} is over ({cause}); it is {outcome}"
    source: str
    media: str
    outcome: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEncodingFailed(Event):
    """A frame of a track of ours could not be encoded; it is left out, and the next one is tried anew."""

    name: ClassVar[str] = "local_encoding_failed"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "{source} could not be encoded ({cause}); it goes on with the next frame"
    source: str
    media: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendCodecChanged(Event):
    """Our pictures are sent with another codec, as others came or went."""

    name: ClassVar[str] = "send_codec_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Pictures are sent with {codec}"
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderConstraintsChanged(Event):
    """The bridge wants a source of ours up to ``max_height`` pixels tall; 0: not at all, below 0: any height."""

    name: ClassVar[str] = "sender_constraints_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "The bridge wants {source} up to a height of {max_height}"
    source: str
    max_height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantJoined(Event):
    """Somebody else is in the room."""

    name: ClassVar[str] = "participant_joined"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{nick} ({endpoint}) is in the room"
    endpoint: str
    nick: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantChanged(Event):
    """Somebody else has another display name, e-mail address or avatar."""

    name: ClassVar[str] = "participant_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{endpoint} is now {nick}"
    endpoint: str
    nick: str
    email: str | None = None
    avatar_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandChanged(Event):
    """Somebody else raised or lowered his hand."""

    name: ClassVar[str] = "hand_changed"
    text: ClassVar[str] = "Raised hand of {nick} ({endpoint}): {raised}"
    endpoint: str
    nick: str
    raised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged(Event):
    """Somebody gained or lost a moderator's rights; ``own`` where it is us. ``role`` is XEP-0045's."""

    name: ClassVar[str] = "role_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{endpoint} is {role} now"
    endpoint: str
    role: str
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessageReceived(Event):
    """Somebody wrote, to all or to us alone. ``stamp`` is set for what was written before we came (XEP-0203)."""

    name: ClassVar[str] = "chat_message_received"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{nick} ({endpoint}) wrote a message of {length} characters"
    endpoint: str
    nick: str
    body: str
    private: bool
    stamp: str | None = None

    @property
    def message(self) -> str:
        """Who wrote; what he wrote is for who asks for the field."""
        return self.text.format(nick=self.nick, endpoint=self.endpoint, length=len(self.body))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatMessageRefused(Event):
    """A message of ours was not delivered."""

    name: ClassVar[str] = "chat_message_refused"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "A chat message was not delivered: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectChanged(Event):
    """The room has another subject."""

    name: ClassVar[str] = "subject_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "The subject is {subject}"
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyWaiting(Event):
    """The participant waits in the lobby for a moderator, ``timeout`` seconds at most."""

    name: ClassVar[str] = "lobby_waiting"
    text: ClassVar[str] = "Waiting in the lobby, {timeout:g} s at most"
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyAdmitted(Event):
    """A moderator let the participant in, or closed the lobby, after ``seconds``."""

    name: ClassVar[str] = "lobby_admitted"
    text: ClassVar[str] = "Admitted from the lobby after {seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyKnocked(Event):
    """Somebody waits in the lobby that we keep as a moderator."""

    name: ClassVar[str] = "lobby_knocked"
    text: ClassVar[str] = "{nick} ({endpoint}) waits in the lobby"
    endpoint: str
    nick: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LobbyKnockEnded(Event):
    """Somebody does not wait in the lobby any more: admitted, denied, or gone."""

    name: ClassVar[str] = "lobby_knock_ended"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{nick} ({endpoint}) left the lobby"
    endpoint: str
    nick: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MutedByModerator(Event):
    """A moderator muted us; it was obeyed. ``endpoint`` is who, None where AV moderation did it."""

    name: ClassVar[str] = "muted_by_moderator"
    text: ClassVar[str] = "A moderator muted our {media}"
    media: str
    endpoint: str | None = None
    nick: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvModerationChanged(Event):
    """Whether participants may unmute themselves only with a moderator's approval."""

    name: ClassVar[str] = "av_moderation_changed"
    text: ClassVar[str] = "AV moderation of {media}: {enabled}"
    media: str
    enabled: bool
    endpoint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmuteApproved(Event):
    """A moderator lets us unmute, or asks us to. We stay muted until somebody unmutes us."""

    name: ClassVar[str] = "unmute_approved"
    text: ClassVar[str] = "A moderator lets us unmute our {media}"
    media: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmuteRejected(Event):
    """A moderator took that back."""

    name: ClassVar[str] = "unmute_rejected"
    text: ClassVar[str] = "A moderator does not let us unmute our {media}"
    media: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMutedChanged(Event):
    """Whether those who join from now on begin muted; obeyed where it was so when we came."""

    name: ClassVar[str] = "start_muted_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Participants start muted: audio {audio}, video {video}"
    audio: bool
    video: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakoutRoomsChanged(Event):
    """The rooms of the meeting by address, with their names; the main room is among them."""

    name: ClassVar[str] = "breakout_rooms_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Rooms of the meeting: {rooms}"
    rooms: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedToRoom(Event):
    """The participant is in another room of the meeting, after ``seconds``."""

    name: ClassVar[str] = "moved_to_room"
    text: ClassVar[str] = "Moved to {address} in {seconds:.1f} s"
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectedToVisitorNode(Event):
    """The focus wants a visitor: the participant connects to the visitor node ``node`` within the same attempt."""

    name: ClassVar[str] = "redirected_to_visitor_node"
    text: ClassVar[str] = "The focus redirects to the visitor node {node} ({domain})"
    node: str
    domain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingNotLive(Event):
    """The meeting takes visitors only once it is live; the focus is asked again after ``delay`` seconds."""

    name: ClassVar[str] = "meeting_not_live"
    text: ClassVar[str] = "The meeting is not live yet; asking again in {delay:g} s"
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotedToParticipant(Event):
    """A visitor was let into the main room, where he can send, too; he was in neither for ``seconds``."""

    name: ClassVar[str] = "promoted_to_participant"
    text: ClassVar[str] = "Promoted from visitor to participant in {seconds:.1f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionRefused(Event):
    """A moderator does not let the visitor, who raised a hand, into the main room."""

    name: ClassVar[str] = "promotion_refused"
    text: ClassVar[str] = "The main room stays closed to us: a moderator refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantLeft(Event):
    """Somebody else left the room."""

    name: ClassVar[str] = "participant_left"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{endpoint} left the room"
    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DominantSpeakerChanged(Event):
    """The bridge names another dominant speaker; ``previous`` spoke before, the latest first.

    With ``silence`` nobody speaks now, and ``endpoint`` was the last one.
    """

    name: ClassVar[str] = "dominant_speaker_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Dominant speaker is {endpoint}"
    endpoint: str
    previous: Sequence[str] = ()
    silence: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedSourcesChanged(Event):
    """The bridge sends us other video sources: what ``entered`` comes now, what is ``gone`` does not any more."""

    name: ClassVar[str] = "forwarded_sources_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "The bridge forwards {sources}"
    sources: Sequence[str]
    entered: Sequence[str] = ()
    gone: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointConnectivityChanged(Event):
    """The bridge hears an endpoint again, or does not any more."""

    name: ClassVar[str] = "endpoint_connectivity_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "The bridge's connection to {endpoint} is active: {active}"
    endpoint: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointMessageReceived(Event):
    """Another participant sent a message over the bridge, to us or to all."""

    name: ClassVar[str] = "endpoint_message"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "Message of {endpoint}"
    endpoint: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionDegraded(Event):
    """The WebSocket was lost; media goes on while the stream is resumed (XEP-0198)."""

    name: ClassVar[str] = "connection_degraded"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Connection lost: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionRecovered(Event):
    """The connection is back. ``how`` is ``resumed`` or ``rejoined``; ``seconds`` is how long it was away."""

    name: ClassVar[str] = "connection_recovered"
    text: ClassVar[str] = "Connection recovered ({how}) after {seconds:.1f} s"
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedFromRoom(Event):
    """The participant was removed from the room: kicked, banned, or the room was destroyed."""

    name: ClassVar[str] = "removed_from_room"
    level: ClassVar[str] = "error"
    text: ClassVar[str] = "Removed from the room: {cause}"
    code: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CoolDown(Event):
    """The retry cycle ended without success; the next one begins after ``delay`` seconds."""

    name: ClassVar[str] = "cool_down"
    text: ClassVar[str] = "Trying again in {delay:.0f} s"
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(Event):
    """The participant left. ``clean`` is true when its own unavailable presence was seen."""

    name: ClassVar[str] = "left"
    text: ClassVar[str] = "Left the conference"
    clean: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepAliveFailed(Event):
    """The keep-alive URL did not answer as it should; the call goes on."""

    name: ClassVar[str] = "keep_alive_failed"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Keep-alive request failed: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingStarted(Event):
    """The meeting is recorded into ``folder`` from now on; everybody in the room was told before."""

    name: ClassVar[str] = "recording_started"
    text: ClassVar[str] = "Recording into {folder}"
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingDegraded(Event):
    """A recording goes on with less, or not at all: pictures dropped, or files closed, for want of disk."""

    name: ClassVar[str] = "recording_degraded"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "The recording is not complete: {cause}"
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingEnded(Event):
    """A recording is over after ``seconds``, all its files are whole. ``cause`` is what ended it."""

    name: ClassVar[str] = "recording_ended"
    text: ClassVar[str] = "Recording ended after {seconds:.0f} s ({cause}): {files} files in {folder}"
    folder: str
    cause: str
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecovered(Event):
    """A recording whose recorder was killed is playable again: ``files`` were cut off."""

    name: ClassVar[str] = "recording_recovered"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Recovered {files} files of {folder}"
    folder: str
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteMuteChanged(Event):
    """Somebody else muted or unmuted a source, as a monitor sees it."""

    name: ClassVar[str] = "remote_mute_changed"
    level: ClassVar[str] = "debug"
    text: ClassVar[str] = "{media} source {source} of {endpoint}: muted={muted}"
    endpoint: str
    source: str
    media: str
    muted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityChanged(Event):
    """What a monitor gets of somebody is better or worse: ``good``, ``poor``, ``bad`` or ``lost``.

    ``own`` where everybody is as bad, so that the monitor's own way to the bridge is to be suspected.
    """

    name: ClassVar[str] = "quality_changed"
    text: ClassVar[str] = "{nick} ({endpoint}) is {quality}, was {previous}: {cause}"
    endpoint: str
    nick: str
    quality: str
    previous: str
    cause: str
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingDelivered(Event):
    """``target`` (folder, s3, command, webhook) has taken a recording; ``place`` is its address there."""

    name: ClassVar[str] = "recording_delivered"
    text: ClassVar[str] = "Delivered {folder} ({target}{place})"
    folder: str
    target: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingNotDelivered(Event):
    """A recording stays where it is: tried again in ``retry`` seconds, at the next start where that is None."""

    name: ClassVar[str] = "recording_not_delivered"
    level: ClassVar[str] = "warning"
    text: ClassVar[str] = "Could not deliver {folder} ({target}): {cause}"
    folder: str
    target: str
    cause: str
    retry: float | None = None


def all_event_types() -> tuple[type[Event], ...]:
    """Every event class, for documentation and metrics."""
    # A dataclass with slots is a second class of the same name: the first one is not the one in use.
    by_name = {item.name: item for item in Event.__subclasses__() if "__slots__" in vars(item)}
    return tuple(by_name[name] for name in sorted(by_name))
