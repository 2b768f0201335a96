"""What the options say of finished recordings, as a deliverer that does it."""

from __future__ import annotations

from pathlib import Path

from bot import events
from bot.recording import voices
from bot.recording.delivery import Deliverer, Stopped, Target
from bot.recording.manifest import read_manifest
from bot.recording.options import MEBIBYTE, RecordOptions
from bot.recording.s3 import S3Target
from bot.recording.targets import CommandTarget, FolderTarget, WebHookTarget


def targets_of(options: RecordOptions) -> list[Target]:
    """Where recordings go to. Raises ConfigurationError."""
    found: list[Target] = []
    if options.deliver_folder is not None:
        found.append(FolderTarget(options.deliver_folder))
    if options.s3_bucket is not None:
        found.append(
            S3Target(
                options.s3_bucket,
                prefix=options.s3_prefix,
                endpoint=options.s3_endpoint,
                region=options.s3_region,
                access_key=options.s3_access_key,
                secret_key=options.s3_secret_key,
                part_size=options.s3_part_size * MEBIBYTE,
            )
        )
    if options.hook_command is not None:
        found.append(CommandTarget(options.hook_command))
    if options.webhook_url is not None:
        secret = options.webhook_secret
        found.append(WebHookTarget(options.webhook_url, secret.get_secret_value() if secret is not None else None))
    return found


def deliverer_of(options: RecordOptions, emit: events.EventSink) -> Deliverer:
    """A deliverer that does what the options say. Raises ConfigurationError."""

    def prepare(folder: Path, stopped: Stopped) -> None:
        if options.audio != "none" and not _has_voices(folder, options.audio):
            voices.add(folder, options.audio, check=stopped.check)

    return Deliverer(targets_of(options), emit=emit, prepare=prepare, remove=options.remove_delivered)


def _has_voices(folder: Path, format_: str) -> bool:
    sources = [source for who in read_manifest(folder).participants for source in who.sources]
    sounds = [source for source in sources if source.media == "audio" and source.segments]
    return all(source.audio is not None and source.audio.endswith(f".{format_}") for source in sounds)
