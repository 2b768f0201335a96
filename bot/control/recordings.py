"""Operations on recordings."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bot.control.auth import Scope
from bot.control.downloads import download, file_views, operations_on
from bot.control.jobmodel import RecordingList, RecordingSpec, RecordingView
from bot.control.jobs import Job, JobState
from bot.control.model import Failure
from bot.control.openapi import PREFIX, Operation
from bot.control.participants import allowed_server
from bot.control.problems import RequestError, conflict
from bot.control.service import Call, Reply, Service
from bot.control.shelf import files_in
from bot.errors import BotError
from bot.events import Event
from bot.recording.manifest import Manifest, read_manifest
from bot.recording.options import load_options
from bot.recording.recorder import Recorder
from bot.recording.service import NAME, recorder_config

KIND = "recordings"


class Recording(Job):
    """One that is made now."""

    spec: RecordingSpec

    def __init__(self, name: str, spec: RecordingSpec, recorder: Recorder) -> None:
        super().__init__(name, spec)
        self.recorder = recorder

    async def work(self) -> None:
        """Record to the end."""
        await self.recorder.run()

    def halt(self) -> None:
        """Leave the room."""
        self.recorder.stop()


async def list_all(service: Service, _: Call[None, None]) -> Reply:
    """Those of now, and those of before that lie in the folder."""
    jobs = [view(service, item) for item in service.recordings.jobs]
    made = {item.folder for item in jobs}
    before = await asyncio.to_thread(_before, service, made)
    return Reply(200, RecordingList(items=[*before, *jobs]))


async def create(service: Service, call: Call[RecordingSpec, None]) -> Reply:
    """Begin one; again with the same body it changes nothing."""
    if (before := service.recordings.known(call.id, call.body)) is not None:
        return Reply(200, view(service, before))
    if call.id in service.recording_shelf.names():
        raise conflict("exists", f"a recording of before is called {call.id}")
    if any(not job.over and job.spec.room == call.body.room for job in service.recordings.jobs):
        raise conflict("busy", f"{call.body.room} is being recorded")
    seat = service.seats.take(1)
    try:
        recorder = _recorder(service, call.id, call.body)
    except BotError as error:
        seat.free()
        raise conflict(error.code, str(error)) from error
    except RequestError:
        seat.free()
        raise
    job = service.recordings.start(Recording(call.id, call.body, recorder), seat)
    return Reply(201, view(service, job), headers={"Location": f"{PREFIX}/{KIND}/{call.id}"})


def _recorder(service: Service, name: str, spec: RecordingSpec) -> Recorder:
    settings = service.settings
    # Where nobody gave a name it is the recorder's own: everybody sees what it does.
    changes = {"room": spec.room, "name": spec.name or NAME}
    if spec.server is not None:
        changes["ws_url"] = allowed_server(settings, service.api, spec.server)
    options = load_options(
        service.config,
        standby=False,
        out=service.recording_shelf.root,
        audio_only=spec.audio_only,
        max_height=spec.max_height,
        max_length=spec.max_length,
        alone=spec.alone,
    )

    def emit(event: Event) -> None:
        service.tell(name, event)

    return Recorder(recorder_config(settings.model_copy(update=changes)), options, emit=emit)


async def show(service: Service, call: Call[None, None]) -> Reply:
    """One recording."""
    if call.id in service.recordings:
        return Reply(200, view(service, service.recordings.get(call.id)))
    folder = await asyncio.to_thread(service.recording_shelf.folder, call.id)
    return Reply(200, await asyncio.to_thread(_of_folder, service, folder))


async def stop(service: Service, call: Call[None, None]) -> Reply:
    """End one, and keep it."""
    job = service.recordings.get(call.id)
    job.stop()
    return Reply(202, view(service, job))


async def forget(service: Service, call: Call[None, None]) -> Reply:
    """Free the id of one that has ended; its files stay."""
    service.recordings.forget(call.id)
    return Reply(204)


async def get_file(service: Service, call: Call[None, None]) -> Reply:
    """A file of one."""
    if call.id in service.recordings:
        return download(service.recordings.get(call.id).recorder.folder, call)
    return download(await asyncio.to_thread(service.recording_shelf.folder, call.id), call)


# --- what is shown -------------------------------------------------------------------------------------------


def view(service: Service, job: Recording) -> RecordingView:
    """A recording now."""
    recorder, manifest = job.recorder, job.recorder.session.manifest
    return RecordingView(
        id=job.id,
        state=job.state,
        began=job.began,
        ended=job.ended,
        error=Failure(code=job.error[0], message=job.error[1]) if job.error is not None else None,
        files=file_views(service, KIND, job.id, recorder.folder),
        room=job.spec.room,
        folder=recorder.folder.name,
        seconds=manifest.duration,
        end_cause=manifest.end_cause,
        participants=_people(manifest),
        spec=job.spec,
    )


def _before(service: Service, made: set[str]) -> list[RecordingView]:
    shelf = service.recording_shelf
    folders = [shelf.folder(name) for name in shelf.names() if name not in made]
    return [_of_folder(service, folder) for folder in folders if files_in(folder)]


def _of_folder(service: Service, folder: Path) -> RecordingView:
    """A recording of before; one whose manifest can't be read still has its files."""
    try:
        manifest = read_manifest(folder)
    except (OSError, ValueError):
        manifest = None
    began = manifest.started.timestamp() if manifest is not None else folder.stat().st_mtime
    return RecordingView(
        id=folder.name,
        state=JobState.DONE if manifest is not None and manifest.state != "recording" else JobState.FAILED,
        began=began,
        ended=began + manifest.duration if manifest is not None else None,
        error=None if manifest is not None else Failure(code="no_manifest", message="its manifest can't be read"),
        files=file_views(service, KIND, folder.name, folder),
        room=manifest.room if manifest is not None else "",
        folder=folder.name,
        seconds=manifest.duration if manifest is not None else 0.0,
        end_cause=manifest.end_cause if manifest is not None else None,
        participants=_people(manifest) if manifest is not None else [],
        spec=None,
    )


def _people(manifest: Manifest) -> list[str]:
    return [who.name or who.endpoint for who in manifest.participants]


OPERATIONS = (
    Operation(
        method="get",
        path=f"/{KIND}",
        name="listRecordings",
        summary="All recordings, those of before that lie in the folder, too",
        handler=list_all,
        answers={200: RecordingList},
    ),
    Operation(
        method="put",
        path=f"/{KIND}/{{id}}",
        name="createRecording",
        summary="Record a room; again with the same body it changes nothing",
        handler=create,
        scope=Scope.OPERATE,
        body=RecordingSpec,
        answers={200: RecordingView, 201: RecordingView},
        creates=True,
    ),
    *operations_on(KIND, noun="Recording", view=RecordingView, show=show, stop=stop, forget=forget, file=get_file),
)
