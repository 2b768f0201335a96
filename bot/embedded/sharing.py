"""Which participant should know which sources, and what he has yet to be told. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bot.embedded.offer import Features, ssrcs, strip_simulcast, subtract, with_owner
from bot.embedded.orders import Member
from bot.jingle.model import Action, Jingle, MediaSources, SourceMap

Members = Mapping[str, Member]


def wanted(members: Members, member: Member) -> dict[str, SourceMap]:
    """What ``member`` should know, by owner: nothing with SSRC rewriting, as the bridge tells him then."""
    if member.features is None or member.features.rewriting:
        return {}
    all_of_them = {
        other.nick: _supported(member.features, strip_simulcast(other.sources))
        for other in members.values()
        if other is not member
    }
    return {owner: sources for owner, sources in all_of_them.items() if sources}


def _supported(features: Features, sources: SourceMap) -> SourceMap:
    """Less the kinds of media that a participant does not advertise (Jicofo's ``SourceSignaling``)."""
    return SourceMap(
        sources.audio if features.audio else MediaSources(), sources.video if features.video else MediaSources()
    )


def initial(members: Members, member: Member, bridge_sources: SourceMap) -> SourceMap:
    """The sources of an offer, the bridge's own ones first; they count as told."""
    total = SourceMap() if member.features is None else _supported(member.features, bridge_sources)
    member.told = wanted(members, member)
    for owner, sources in member.told.items():
        total = total.merged(with_owner(sources, owner))
    return total


def left(members: Members, nick: str) -> None:
    """Tell nobody that the sources of ``nick`` are gone: his leaving the room says it, as with Jicofo."""
    for member in members.values():
        member.told.pop(nick, None)


def news(members: Members) -> list[tuple[Member, Jingle]]:
    """What each participant with an accepted session has yet to be told; it counts as told."""
    found: list[tuple[Member, Jingle]] = []
    for member in members.values():
        if member.active and member.sid is not None:
            found += [(member, jingle) for jingle in _news_for(members, member, member.sid)]
    return found


def _news_for(members: Members, member: Member, sid: str) -> list[Jingle]:
    now = wanted(members, member)
    told, member.told = member.told, now
    found = []
    for owner in {**told, **now}:
        old, new = told.get(owner, SourceMap()), now.get(owner, SourceMap())
        changes = ((Action.SOURCE_REMOVE, subtract(old, new)), (Action.SOURCE_ADD, subtract(new, old)))
        found += [
            Jingle(
                action=action,
                sid=sid,
                sources=with_owner(sources, owner),
                json_sources=member.features is not None and member.features.json_sources,
            )
            for action, sources in changes
            if sources
        ]
    return found


def problem(members: Members, member: Member, added: SourceMap, limit: int) -> str | None:
    """Why ``member`` may not add these sources, None if he may (Jicofo's rules, there too a bad request)."""
    new, own = ssrcs(added), ssrcs(member.sources)
    for other in members.values():
        if taken := new & ssrcs(other.sources):
            return f"SSRC {min(taken)} is used by {other.nick}"
    total = member.sources.merged(added)
    parts = (total.audio, total.video)
    if sum(len(part.sources) for part in parts) > limit or sum(len(part.groups) for part in parts) > limit:
        return f"More than {limit} SSRCs or groups of them"
    for group in added.audio.groups + added.video.groups:
        if not set(group.ssrcs) <= new | own:
            return f"A {group.semantics} group has SSRCs without a source"
        if group.semantics == "FID" and len(group.ssrcs) != 2:
            return f"A FID group has {len(group.ssrcs)} SSRCs"
    return None


def unknown(member: Member, removed: SourceMap) -> str | None:
    """Which source to remove is none of ``member``'s, None if all are."""
    missing = ssrcs(removed) - ssrcs(member.sources)
    return f"SSRC {min(missing)} is not one of yours" if missing else None
