"""Recordings in an S3-compatible store: multipart uploads that go on where they were broken off."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot.errors import ConfigurationError
from bot.recording.delivery import (
    DeliveryState,
    NotDeliveredError,
    Stopped,
    TargetState,
    Upload,
    files_of,
    in_thread,
)

if TYPE_CHECKING:
    from pydantic import SecretStr

#: No upload has more parts (Amazon S3 User Guide, "Amazon S3 multipart upload limits").
MAX_PARTS = 10_000
#: Answers that stay the same until somebody changes a setting, or a right.
REFUSALS = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "InvalidBucketName",
        "NoSuchBucket",
        "PermanentRedirect",
        "SignatureDoesNotMatch",
        "403",
    }
)


class S3Target:
    """A bucket; each recording's files are ``PREFIX/FOLDER/FILE`` there, the manifest last.

    ``endpoint`` is the address of another store than Amazon's. Without keys, boto3's own places are looked in:
    ``AWS_ACCESS_KEY_ID``, ``~/.aws``, the role of the machine. Raises ConfigurationError without boto3.
    """

    name = "s3"
    stores = True

    def __init__(
        self,
        bucket: str,
        *,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: SecretStr | None = None,
        part_size: int,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._part_size = part_size
        self._client = _client(endpoint, region, access_key, secret_key.get_secret_value() if secret_key else None)

    def __repr__(self) -> str:
        return f"<S3Target {self._bucket}/{self._prefix}>"

    async def deliver(self, folder: Path, delivery: DeliveryState, save: Callable[[], None]) -> None:
        """Upload what is not there yet."""
        state = delivery.targets[self.name]
        state.place = f"s3://{self._bucket}/{self._prefix}{folder.name}/"
        with _told():
            await in_thread(lambda stopped: self._deliver(folder, state, save, stopped))

    def _deliver(self, folder: Path, state: TargetState, save: Callable[[], None], stopped: Stopped) -> None:
        for path in files_of(folder):
            size = path.stat().st_size
            if state.files.get(path.name) == size:
                continue
            stopped.check()
            key = f"{self._prefix}{folder.name}/{path.name}"
            if size <= self._part_size:
                self._put(path, key)
            else:
                upload, parts = self._begun(path.name, key, size, state, save)
                self._put_in_parts(path, upload, parts, stopped)
            there = self._client.head_object(Bucket=self._bucket, Key=key)["ContentLength"]
            if there != size:
                raise NotDeliveredError(f"{key} has {there} bytes in the store, and {size} here")
            state.files[path.name] = size
            state.uploads.pop(path.name, None)
            save()

    def _put(self, path: Path, key: str) -> None:
        data = path.read_bytes()
        self._client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentMD5=_md5(data))

    def _put_in_parts(self, path: Path, upload: Upload, there: dict[int, str], stopped: Stopped) -> None:
        parts = []
        with path.open("rb") as file:
            for number in range(1, ceil(upload.size / upload.part_size) + 1):
                data = file.read(upload.part_size)
                stopped.check()
                # The tag of a part is its MD5 (but with some kinds of encryption, where it is sent again).
                tag = there.get(number)
                if tag is None or tag.strip('"') != hashlib.md5(data, usedforsecurity=False).hexdigest():
                    tag = self._part(upload, number, data)
                parts.append({"PartNumber": number, "ETag": tag})
        self._client.complete_multipart_upload(
            Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id, MultipartUpload={"Parts": parts}
        )

    def _part(self, upload: Upload, number: int, data: bytes) -> str:
        """Upload one part: the store compares the digest, and refuses what came otherwise. Returns its tag."""
        done = self._client.upload_part(
            Bucket=self._bucket,
            Key=upload.key,
            UploadId=upload.upload_id,
            PartNumber=number,
            Body=data,
            ContentMD5=_md5(data),
        )
        return str(done["ETag"])

    def _begun(
        self, name: str, key: str, size: int, state: TargetState, save: Callable[[], None]
    ) -> tuple[Upload, dict[int, str]]:
        """The upload of a file and its parts that are there; a new one where there is none to go on with."""
        before = state.uploads.get(name)
        if before is not None and before.key == key and before.size == size:
            found = self._parts(before)
            if found is not None:
                return before, found
        begun = self._client.create_multipart_upload(Bucket=self._bucket, Key=key)
        part_size = max(self._part_size, ceil(size / MAX_PARTS))
        upload = Upload(key=key, upload_id=begun["UploadId"], size=size, part_size=part_size)
        state.uploads[name] = upload
        save()
        return upload, {}

    def _parts(self, upload: Upload) -> dict[int, str] | None:
        """Parts of an upload that the store has; None where it knows no such upload any more."""
        from botocore.exceptions import ClientError  # noqa: PLC0415 -- an extra

        pages = self._client.get_paginator("list_parts")
        try:
            return {
                part["PartNumber"]: part["ETag"]
                for page in pages.paginate(Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id)
                for part in page.get("Parts", ())
            }
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "NoSuchUpload":
                return None
            raise


def _md5(data: bytes) -> str:
    """RFC 1864's digest; all stores compare it, as not all do with newer ones."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _client(endpoint: str | None, region: str | None, access_key: str | None, secret_key: str | None) -> Any:
    try:
        import boto3  # noqa: PLC0415 -- an extra
        from botocore.config import Config  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("record s3_bucket needs boto3", hint="pip install 'jitsi-bot[s3]'") from error
    # Other stores than Amazon's know neither host names of buckets nor checksums that no header asks for.
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": "path" if endpoint else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            config=config,
        )
    except Exception as error:  # botocore's own tree, and ValueError of an address
        raise ConfigurationError(f"record s3: {error}") from error


@contextmanager
def _told() -> Iterator[None]:
    """Raise NotDeliveredError for what boto3 raises."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # noqa: PLC0415 -- an extra

    try:
        yield
    except ClientError as error:
        found = error.response.get("Error", {})
        code = found.get("Code", "")
        text = f"{code}: {found.get('Message', '')}"
        raise NotDeliveredError(text, retryable=code not in REFUSALS) from error
    except BotoCoreError as error:
        raise NotDeliveredError(str(error), retryable=not isinstance(error, NoCredentialsError)) from error
