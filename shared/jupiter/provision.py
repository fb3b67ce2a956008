"""`python -m jupiter.provision`: what a cluster needs before its services start, made once and checked at every start.

Owns: the streams, the bucket, and one S3 identity per service, with proof that each may no more than it should.
Does not know: the services. The identities come from one file (compose/make-secrets writes it) in the form that
SeaweedFS reads itself; on MinIO they are created through its admin API.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin

from jupiter.blobs.s3 import S3Blobs
from jupiter.bus.jetstream import JetStreamBus
from jupiter.config import ClusterConfig
from jupiter.config.loading import config_from_arguments
from jupiter.config.sections import S3Section
from jupiter.errors import JupiterError, Unavailable
from jupiter.telemetry import configure_logging

__all__ = ["main", "provision"]

log = logging.getLogger(__name__)

IDENTITIES = "PROVISION_IDENTITIES"
"""Environment variable with the identities' file; empty where all services share one key."""
NO_ADMIN_API = frozenset({"404", "405", "501"})
LEDGER_WRITER = "jupiter-controller"
CONNECT_S = 3.0
READ_S = 30.0
TAKES_EFFECT_S = 30.0
PAUSE_S = 1.0
PROBE = "ledger/.provision"


def main() -> None:
    config = config_from_arguments("jupiter.provision")
    configure_logging(config.telemetry, service="provision", instance="provision", domain=config.domain)
    try:
        asyncio.run(provision(config, os.environ.get(IDENTITIES, "")))
    except JupiterError as error:
        log.error("%s", error)  # noqa: TRY400 — the message says it
        sys.exit(1)


async def provision(config: ClusterConfig, identities: str) -> None:
    """Make what is missing. Raises ConfigError, Unavailable; safe to repeat.

    The streams come last: services wait for them, so none starts the first time before the identities are proven.
    """
    await asyncio.to_thread(S3Blobs(config.s3).start)
    log.info("bucket %s is there and has conditional create", config.s3.bucket)
    if identities:
        await asyncio.to_thread(_provide_identities, config.s3, Path(identities))
    else:
        log.warning("all services share one S3 key: each of them can write and delete the ledger")
    bus = JetStreamBus(config.nats, source="jupiter/provision/provision")
    try:
        await bus.start()
    finally:
        await bus.close()
    log.info("the streams are there")


def _provide_identities(section: S3Section, path: Path) -> None:
    listed = json.loads(path.read_text(encoding="utf-8"))
    _create_identities(section, listed)
    of_services = _of_services(listed)
    for identity in of_services:
        _check(section, identity)
    log.info("%d S3 identities work, and only %s may write the ledger", len(of_services), LEDGER_WRITER)


def _of_services(listed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [identity for identity in listed["identities"] if identity.get("policyNames")]


def _create_identities(section: S3Section, listed: Mapping[str, Any]) -> None:
    """Create users and policies through MinIO's admin API; a server without one has to serve the same file itself."""
    admin = MinioAdmin(
        endpoint=section.endpoint,
        credentials=StaticProvider(section.access_key, section.secret_key),
        region=section.region,
        secure=section.secure,
        http_client=_pool(section),
    )
    try:
        admin.info()
    except MinioAdminException as error:
        if error._code not in NO_ADMIN_API:
            raise Unavailable(f"MinIO's admin API at {section.endpoint} refuses: {error}") from error
        log.info("no MinIO admin API at %s: its identities must have been made otherwise", section.endpoint)
        return
    try:
        for policy in listed["policies"]:
            admin.policy_add(policy["name"], policy=json.loads(policy["content"]))
        for identity in _of_services(listed):
            (credential,) = identity["credentials"]
            admin.user_add(credential["accessKey"], credential["secretKey"])
            admin.policy_set(",".join(identity["policyNames"]), user=credential["accessKey"])
    except MinioAdminException as error:
        raise Unavailable(f"MinIO at {section.endpoint} made no identity: {error}") from error


def _pool(section: S3Section) -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=CONNECT_S, read=READ_S),
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=section.ca_file or None,
    )


def _check(section: S3Section, identity: Mapping[str, Any]) -> None:
    """Raises Unavailable unless the identity works, and may touch the ledger no more than it should."""
    (credential,) = identity["credentials"]
    name = credential["accessKey"]
    client = Minio(
        section.endpoint,
        access_key=name,
        secret_key=credential["secretKey"],
        secure=section.secure,
        region=section.region,
        http_client=_pool(section),
    )
    _wait_until_known(client, section.bucket, name)
    may_write = name == LEDGER_WRITER
    if _permitted(lambda: client._execute("PUT", section.bucket, PROBE, body=b"")) != may_write:
        seen = "may not" if may_write else "may"
        raise Unavailable(f"S3 identity {name} {seen} write ledger/: its policy is not in force")
    if _permitted(lambda: client.remove_object(section.bucket, PROBE)):
        raise Unavailable(f"S3 identity {name} may take from ledger/: its policy is not in force")


def _wait_until_known(client: Minio, bucket: str, name: str) -> None:
    """A new identity is known a moment later. Raises Unavailable."""
    deadline = time.monotonic() + TAKES_EFFECT_S
    while not _permitted(lambda: client.bucket_exists(bucket)):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the S3 server does not know {name} after {TAKES_EFFECT_S:g} s: create the identities of {IDENTITIES} "
                "in it, or let all services share one key (docs/cluster.md)"
            )
        time.sleep(PAUSE_S)


def _permitted(request: Callable[[], object]) -> bool:
    try:
        request()
    except S3Error as error:
        if error.code in ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"):
            return False
        raise
    return True


if __name__ == "__main__":
    main()
