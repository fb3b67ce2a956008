"""The object store on any S3 that has conditional create: MinIO, SeaweedFS >= 4.16, AWS.

Owns: time-outs, bounded retries, the meaning of S3's errors, the conditional create.
Does not know: what lies under a key.

minio-py has no public parameter for `If-None-Match`, and passing it as `metadata` silently overwrites (measured);
`create` sends the header through the client's request layer, and `start` refuses a server that ignores it.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError

from jupiter.blobs import ObjectInfo
from jupiter.blobs.files import FileWriter, digest_of_file
from jupiter.config.sections import S3Section
from jupiter.errors import ConfigError, NotFound, Unavailable

__all__ = ["S3Blobs"]

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 3.0
READ_S = 30.0
CONNECTIONS_MAX = 32
RETRY_S_MAX = 30.0
"""Time over which a request is repeated before the store counts as unavailable."""
RETRY_PAUSES_S = (0.1, 0.3, 1.0)
PART_BYTES = 16 << 20
READ_BYTES = 1 << 20
EXISTS = 412
"""What a server with conditional create answers to the second one."""
BUSY = frozenset({408, 409, 429})
"""Answers that ask for the same request again; 409: another create of the key is going on."""
NO_BUCKET = "NoSuchBucket"
"""The store came up without its volume, or was pointed elsewhere: an outage, for it says nothing of any object."""
_ABSENT = frozenset({"NoSuchKey", "NoSuchUpload", "ResourceNotFound"})
_CANARIES = ".canary"


class S3Blobs:
    """See `Blobs`."""

    def __init__(self, section: S3Section, *, retry_s: float = RETRY_S_MAX) -> None:
        """Raises ConfigError without a key: there is no default one, and nobody is anonymous."""
        if not (section.access_key and section.secret_key):
            raise ConfigError(
                "s3.access_key or s3.secret_key is empty: set JUPITER_S3__ACCESS_KEY and, with the secret's file, "
                "JUPITER_S3__SECRET_KEY_FILE (compose/make-secrets makes a key per service; `jupiter up` needs none)"
            )
        self._section, self._retry_s = section, retry_s
        self.bucket = section.bucket
        self._client = Minio(
            section.endpoint,
            access_key=section.access_key,
            secret_key=section.secret_key,
            secure=section.secure,
            region=section.region,
            # No retries below ours: a conditional create that is repeated unseen would deny its own success.
            http_client=urllib3.PoolManager(
                maxsize=CONNECTIONS_MAX,
                retries=False,
                timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
                cert_reqs="CERT_REQUIRED",
                ca_certs=section.ca_file or None,
            ),
        )
        self._canary = f"{_CANARIES}/{os.getpid()}-{secrets.token_hex(4)}"

    def start(self) -> None:
        def bucket() -> None:
            if not self._client.bucket_exists(self.bucket):
                try:
                    self._client.make_bucket(self.bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise

        self._insist(f"bucket {self.bucket}", bucket)
        probe = f"{_CANARIES}/conditional-create"
        self.create(probe, b"1")
        if self.create(probe, b"2"):
            raise Unavailable(
                f"the S3 server at {self._section.endpoint} ignores If-None-Match (it must answer 412 to a second "
                "create): two workers could commit the same work. Use MinIO, SeaweedFS >= 4.16 or AWS S3"
            )

    def put(self, key: str, data: bytes) -> None:
        self._insist(f"storing {key}", lambda: self._client.put_object(self.bucket, key, io.BytesIO(data), len(data)))

    def put_file(self, key: str, path: Path) -> str:
        sha256 = digest_of_file(path)
        self._insist(
            f"storing {key}", lambda: self._client.fput_object(self.bucket, key, str(path), part_size=PART_BYTES)
        )
        return sha256

    def create(self, key: str, data: bytes) -> bool:
        """See `Blobs.create`.

        A request that failed on the way may have been carried out. So after a failure, "it exists" is checked against
        our bytes: equal bytes mean that the first attempt was it (or someone's who wrote the very same).
        """
        doubtful = False

        def attempt() -> bool:
            nonlocal doubtful
            try:
                self._conditional_put(key, data)
            except S3Error as error:
                if _status(error) == EXISTS:
                    return False
                doubtful = True
                raise
            except Exception:
                doubtful = True
                raise
            return True

        won = self._insist(f"creating {key}", attempt)
        if won:
            return True
        return doubtful and self.get(key) == data

    def _conditional_put(self, key: str, data: bytes) -> None:
        headers: dict[str, str | list[str] | tuple[str]] = {
            "If-None-Match": "*",
            "Content-Type": "application/octet-stream",
        }
        self._client._execute("PUT", self.bucket, key, body=data, headers=headers)

    def get(self, key: str) -> bytes:
        return self._insist(f"reading {key}", lambda: b"".join(self._stream(key)))

    def get_file(self, key: str, path: Path, *, sha256: str, size: int) -> None:
        def attempt() -> None:
            with FileWriter(key=key, path=path, sha256=sha256, size=size) as target:
                for block in self._stream(key):
                    target.write(block)

        self._insist(f"fetching {key}", attempt)

    def _stream(self, key: str) -> Iterator[bytes]:
        response = self._client.get_object(self.bucket, key)
        try:
            yield from response.stream(READ_BYTES)
        finally:
            response.close()
            response.release_conn()

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            found = self._insist(f"looking for {key}", lambda: self._client.stat_object(self.bucket, key))
        except NotFound:
            self._insist(f"looking for {key}", self._find_bucket)  # a HEAD's 404 does not say which of them is missing
            return None
        return ObjectInfo(key=key, size=int(found.size or 0))

    def _find_bucket(self) -> None:
        """Raises S3Error where there is no bucket."""
        self._client._execute("HEAD", self.bucket)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        def attempt() -> list[ObjectInfo]:
            objects = self._client.list_objects(self.bucket, prefix=prefix, recursive=True)
            return [ObjectInfo(key=found.object_name, size=int(found.size or 0)) for found in objects]

        found = self._insist(f"listing {prefix}", attempt)
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, key: str) -> None:
        try:
            self._insist(f"deleting {key}", lambda: self._client.remove_object(self.bucket, key))
        except NotFound:
            return

    def ready(self) -> None:
        try:
            self._find_bucket()  # SeaweedFS would make it anew for a PUT, empty, and all that was in it would be absent
            self._client.put_object(self.bucket, self._canary, io.BytesIO(b"1"), 1)
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the object store at {self._section.endpoint} takes no PUT: {_say(error)}") from error

    def _insist(self, what: str, request: Callable[[], T]) -> T:
        """Repeat an idempotent request until it is answered. Raises NotFound, and Unavailable after `retry_s`."""
        deadline = time.monotonic() + self._retry_s
        attempts = 0
        while True:
            try:
                return request()
            except S3Error as error:
                if error.code in _ABSENT:
                    raise NotFound(f"{what}: there is no such object in bucket {self.bucket}") from error
                failure: Exception = error
                hopeless = 400 <= _status(error) < 500 and _status(error) not in BUSY and error.code != NO_BUCKET
            except (ServerError, InvalidResponseError, urllib3.exceptions.HTTPError, OSError) as error:
                failure, hopeless = error, isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
                if hopeless:
                    raise
            if hopeless or time.monotonic() > deadline:
                raise Unavailable(f"{what} on {self._section.endpoint}: {_say(failure)}") from failure
            log.debug("%s: %s; again", what, _say(failure))
            time.sleep(RETRY_PAUSES_S[min(attempts, len(RETRY_PAUSES_S) - 1)])
            attempts += 1


def _status(error: S3Error) -> int:
    response: Any = error.response
    return int(getattr(response, "status", 0) or 0)


def _say(error: Exception) -> str:
    """Describe an S3 or transport error in one line."""
    if isinstance(error, S3Error):
        hint = ""
        if _status(error) == 403:
            hint = "; check s3.access_key and s3.secret_key"
        elif error.code == NO_BUCKET:
            hint = f"; bucket {error.bucket_name} is gone: does the store run with its volume?"
        return f"{error.code} ({_status(error)}): {error.message}{hint}"
    return f"{type(error).__name__}: {error}"
