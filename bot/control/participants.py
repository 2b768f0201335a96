"""Operations on participants."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bot.control.auth import Scope
from bot.control.fleet import Member
from bot.control.model import (
    ChatText,
    Failure,
    LayoutChange,
    Media,
    OwnSource,
    ParticipantChange,
    ParticipantList,
    ParticipantSpec,
    ParticipantView,
    Stream,
)
from bot.control.openapi import PREFIX, Operation
from bot.control.options import ApiSettings
from bot.control.problems import RequestError, conflict, not_found, wrong
from bot.control.service import Call, Reply, Service
from bot.errors import BotError
from bot.participant.citizen import Citizen
from bot.participant.config import ParticipantConfig, expand
from bot.participant.own import check_media
from bot.service.report import Row
from bot.settings import FILE, Settings

_COPIED = ("room", "name", "audio", "video", "start_muted_audio", "start_muted_video", "layout", "receive_height")


async def list_all(service: Service, _: Call[None, None]) -> Reply:
    """All participants."""
    return Reply(200, ParticipantList(items=[view(item) for item in service.fleet.members]))


async def create(service: Service, call: Call[ParticipantSpec, None]) -> Reply:
    """Let one join; a second time with the same body it changes nothing."""
    before = service.fleet.get(call.id)
    if before is not None:
        _same(before, call.body)
        return Reply(200, view(before))
    config = config_of(service.settings, service.api, call.body)
    try:
        await asyncio.to_thread(check_media, [config])
    except BotError as error:
        raise conflict("media_unusable", error.message) from error
    if (meanwhile := service.fleet.get(call.id)) is not None:
        _same(meanwhile, call.body)
        return Reply(200, view(meanwhile))
    member = service.fleet.add(call.id, config, call.body, origin="api", cool_down=service.settings.cool_down)
    return Reply(201, view(member), headers={"Location": f"{PREFIX}/participants/{call.id}"})


async def show(service: Service, call: Call[None, None]) -> Reply:
    """One participant."""
    return Reply(200, view(_member(service, call.id)))


async def change(service: Service, call: Call[ParticipantChange, None]) -> Reply:
    """Change what it publishes, looks at, and is called."""
    member, wanted = _member(service, call.id), call.body
    media = {kind: _media(service.api, kind, word) for kind, word in _words(wanted).items()}
    citizen = _citizen(member) if wanted.name is not None or wanted.raised_hand is not None else None
    try:
        for kind, word in media.items():
            await member.publish("audio" if kind == "audio" else "video", word)
        _mute(member, wanted)
        if wanted.layout is not None:
            _look(member, wanted.layout)
        if citizen is not None:
            _present(citizen, wanted)
    except BotError as error:
        raise conflict(error.code, str(error)) from error
    return Reply(200, view(member))


async def remove(service: Service, call: Call[None, None]) -> Reply:
    """Let it leave."""
    service.fleet.remove(_member(service, call.id))
    return Reply(202)


async def say(service: Service, call: Call[ChatText, None]) -> Reply:
    """Write to the room."""
    try:
        _citizen(_member(service, call.id)).send_chat(call.body.text, call.body.to or "")
    except ValueError as error:
        raise wrong(("body.text", str(error))) from error
    except BotError as error:
        raise conflict(error.code, str(error)) from error
    return Reply(204)


# --- what a client's words mean ------------------------------------------------------------------------------


def config_of(settings: Settings, api: ApiSettings, spec: ParticipantSpec) -> ParticipantConfig:
    """The participant that is asked for. Raises RequestError for a server or a file that nobody allowed."""
    given = {name: value for name in _COPIED if (value := getattr(spec, name)) is not None}
    for kind in ("audio", "video"):
        if kind in given:
            given[kind] = _media(api, kind, given[kind])
    if spec.server is not None:
        given["ws_url"] = allowed_server(settings, api, spec.server)
    changes: dict[str, Any] = {"participants": (), "bots": 1, **given}
    return expand(settings.model_copy(update=changes))[0]


def allowed_server(settings: Settings, api: ApiSettings, url: str) -> str:
    """``url``, where the settings allow it to the letter. Raises RequestError."""
    if url != settings.ws_url and url not in api.servers:
        raise RequestError(403, "server_not_allowed", "server is not among those that api.servers allows")
    return url


def _media(api: ApiSettings, kind: str, word: str) -> str:
    """A setting's word of the client's: the path of a file is made here, of a name that the folder holds."""
    if not word.startswith(FILE):
        return word
    return f"{FILE}{file_in(api.media_dir, word.removeprefix(FILE), kind)}"


def file_in(folder: Path | None, name: str, where: str) -> Path:
    """The plain file ``name`` that ``folder`` itself holds: looked for in its listing. Raises RequestError."""
    try:
        found = {item.name: item for item in folder.iterdir()} if folder is not None else {}
    except OSError:
        found = {}
    if name not in found or found[name].is_symlink() or not found[name].is_file():
        raise conflict("no_such_file", f"{where}: api.media_dir has no such file")
    return found[name]


def _words(wanted: ParticipantChange) -> Mapping[str, str]:
    given = {"audio": wanted.audio, "video": wanted.video}
    return {kind: word for kind, word in given.items() if word is not None}


def _mute(member: Member, wanted: ParticipantChange) -> None:
    for kind, muted in (("audio", wanted.audio_muted), ("video", wanted.video_muted)):
        found = member.participant
        if muted is not None and found is not None:
            (found.own.mute if muted else found.own.unmute)(kind)


def _look(member: Member, wanted: LayoutChange) -> None:
    changes = wanted.model_dump(exclude_none=True)
    for name in ("stage", "selected"):
        if name in changes:
            changes[name] = tuple(changes[name])
    found = member.participant
    if found is not None:
        found.set_layout(**changes)
        member.layout = changes.get("mode", member.layout)


def _present(citizen: Citizen, wanted: ParticipantChange) -> None:
    if wanted.name is not None:
        citizen.set_name(wanted.name)
    if wanted.raised_hand is not None:
        citizen.raise_hand(raised=wanted.raised_hand)


def _member(service: Service, name: str) -> Member:
    member = service.fleet.get(name)
    if member is None:
        raise not_found(f"participant {name}")
    return member


def _citizen(member: Member) -> Citizen:
    found = member.participant
    conference = found.conference if found is not None else None
    if conference is None or not member.in_room:
        raise conflict("not_in_room", f"{member.id} is in no room now")
    return conference.citizen


def _same(member: Member, spec: ParticipantSpec) -> None:
    if member.leaving:
        raise conflict("leaving", f"{member.id} is leaving")
    if member.spec != spec:
        raise conflict("exists", f"{member.id} exists, and is another one")


# --- what is shown -------------------------------------------------------------------------------------------


def view(member: Member) -> ParticipantView:
    """A participant now."""
    found = member.participant
    return ParticipantView(
        id=member.id,
        origin=member.origin,
        room=member.config.room,
        name=member.config.name,
        state=member.state,
        since=member.since,
        in_room=member.in_room,
        leaving=member.leaving,
        endpoint=member.endpoint,
        others=member.others,
        attempt=member.attempt,
        phases=member.phases,
        sources=[
            OwnSource(source=item.label, media=item.kind, muted=item.muted)
            for item in (found.own.sources if found is not None else ())
        ],
        layout=member.layout,
        media=_traffic(member.row),
        error=Failure(code=member.error[0], message=member.error[1]) if member.error is not None else None,
        spec=member.spec,
    )


def _traffic(row: Row | None) -> Media | None:
    if row is None or row.traffic.session is None:
        return None
    due = row.interval.packets_received + row.interval.lost
    return Media(
        bitrate_sent=row.interval.bitrate_sent,
        bitrate_received=row.interval.bitrate_received,
        loss=row.interval.lost / due if due > 0 else 0.0,
        packets_sent=row.traffic.packets_sent,
        packets_received=row.traffic.packets_received,
        packets_lost=row.traffic.lost,
        bandwidth=row.traffic.bandwidth,
        streams=[
            Stream(
                source=item.source,
                owner=item.owner,
                media=item.media,
                codec=item.codec,
                packets=item.packets,
                lost=item.lost,
                repaired=item.repaired,
                jitter=item.jitter,
                bitrate=item.bitrate,
            )
            for item in row.streams
        ],
    )


OPERATIONS = (
    Operation(
        method="get",
        path="/participants",
        name="listParticipants",
        summary="All participants",
        handler=list_all,
        answers={200: ParticipantList},
    ),
    Operation(
        method="put",
        path="/participants/{id}",
        name="createParticipant",
        summary="Let a participant join; again with the same body it changes nothing",
        handler=create,
        scope=Scope.OPERATE,
        body=ParticipantSpec,
        answers={200: ParticipantView, 201: ParticipantView},
        creates=True,
    ),
    Operation(
        method="get",
        path="/participants/{id}",
        name="getParticipant",
        summary="One participant",
        handler=show,
        answers={200: ParticipantView},
    ),
    Operation(
        method="patch",
        path="/participants/{id}",
        name="changeParticipant",
        summary="Mute, exchange media, look elsewhere, raise the hand; what is left out stays",
        handler=change,
        scope=Scope.OPERATE,
        body=ParticipantChange,
        answers={200: ParticipantView},
        refusals=(409,),
    ),
    Operation(
        method="delete",
        path="/participants/{id}",
        name="removeParticipant",
        summary="Let it leave; it is forgotten when it has",
        handler=remove,
        scope=Scope.OPERATE,
        answers={202: None},
    ),
    Operation(
        method="post",
        path="/participants/{id}/messages",
        name="sendMessage",
        summary="Write to the room, or to one endpoint in it",
        handler=say,
        scope=Scope.OPERATE,
        body=ChatText,
        answers={204: None},
        refusals=(409,),
    ),
)
