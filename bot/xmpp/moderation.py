"""Muting by moderators, AV moderation, and the policy to start muted: stanzas in, events out. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bot.xmpp.framing import NS_CLIENT, split_tag
from bot.xmpp.stanza_errors import StanzaError

MediaKind = Literal["audio", "video", "desktop"]
KINDS: tuple[MediaKind, ...] = get_args(MediaKind)
NS_MUTE = "http://jitsi.org/jitmeet/"
#: Payloads of Jicofo's mute requests.
MUTE_TAGS = tuple(f"{{{NS_MUTE}{kind}}}mute" for kind in KINDS)


@dataclass(frozen=True, slots=True)
class MutedByModerator:
    """A moderator muted us. ``actor`` is his endpoint id, where the focus names it."""

    media: MediaKind
    actor: str | None


@dataclass(frozen=True, slots=True)
class AvModerationChanged:
    """From now on participants may, or may not, unmute themselves. ``actor`` is the moderator's endpoint id."""

    media: MediaKind
    enabled: bool
    actor: str | None


@dataclass(frozen=True, slots=True)
class UnmuteApproved:
    """A moderator lets us unmute, or asks us to."""

    media: MediaKind


@dataclass(frozen=True, slots=True)
class UnmuteRejected:
    """A moderator takes that back."""

    media: MediaKind


@dataclass(frozen=True, slots=True)
class StartMuted:
    """Whether those who join from now on begin muted."""

    audio: bool
    video: bool


ModerationEvent = MutedByModerator | AvModerationChanged | UnmuteApproved | UnmuteRejected | StartMuted


class AvModeration:
    """What AV moderation allows us: ``feed`` takes what its component says."""

    def __init__(self) -> None:
        self._enabled: set[MediaKind] = set()
        self._approved: set[MediaKind] = set()

    def __repr__(self) -> str:
        return f"<AvModeration enabled for {', '.join(sorted(self._enabled)) or 'nothing'}>"

    def may_unmute(self, media: MediaKind, *, moderator: bool = False) -> bool:
        """Whether we may unmute ourselves."""
        return moderator or media not in self._enabled or media in self._approved

    def feed(self, data: Mapping[str, Any]) -> list[ModerationEvent]:
        """Take one message of the component; lists of approved participants (for moderators) say nothing of us."""
        media = data.get("mediaType")
        if media not in KINDS or "whitelists" in data:
            return []
        if isinstance(data.get("enabled"), bool):
            return self._switch(media, enabled=data["enabled"], actor=data.get("actor"))
        if data.get("removed") is True:
            self._approved.discard(media)
            return [UnmuteRejected(media)]
        if data.get("approved") is True:
            self._approved.add(media)
            return [UnmuteApproved(media)]
        return []

    def _switch(self, media: MediaKind, *, enabled: bool, actor: object) -> list[ModerationEvent]:
        if enabled == (media in self._enabled):
            return []
        (self._enabled.add if enabled else self._enabled.discard)(media)
        self._approved.discard(media)
        return [AvModerationChanged(media, enabled, _endpoint(actor))]


def av_moderation_message(component: str, media: MediaKind, **attributes: str) -> ET.Element:
    """A moderator's order: ``enable``, ``jidToWhitelist`` or ``jidToBlacklist`` (room addresses)."""
    message = ET.Element(f"{{{NS_CLIENT}}}message", {"to": component})
    ET.SubElement(message, f"{{{NS_CLIENT}}}av_moderation", {"mediaType": media, **attributes})
    return message


def mute_request(occupant_jid: str, media: MediaKind, *, muted: bool = True) -> ET.Element:
    """Ask the focus to mute somebody, or tell it our own state. ``occupant_jid`` is the room address."""
    mute = ET.Element(f"{{{NS_MUTE}{media}}}mute", {"jid": occupant_jid})
    mute.text = "true" if muted else "false"
    return mute


def read_mute(payload: ET.Element) -> MutedByModerator:
    """Read a mute request of the focus. Raises StanzaError: nobody is unmuted by others."""
    media = split_tag(payload.tag)[0].removeprefix(NS_MUTE)
    kind = next((item for item in KINDS if item == media), None)
    if kind is None or (payload.text or "").strip() != "true":
        raise StanzaError("bad-request", "only <mute>true</mute> is understood", kind="modify")
    return MutedByModerator(kind, _endpoint(payload.get("actor")))


def read_start_muted(metadata: Mapping[str, Any]) -> StartMuted | None:
    """The policy in the room's metadata."""
    policy = metadata.get("startMuted")
    if not isinstance(policy, dict):
        return None
    return StartMuted(audio=policy.get("audio") is True, video=policy.get("video") is True)


def _endpoint(jid: object) -> str | None:
    return jid.partition("/")[2] or None if isinstance(jid, str) else None
