"""A service for tests: commits a manifest for each shard and announces it as a checkpoint.

`python -m tests.integration.infra.echo_service`; a shard of 666 samples breaks its background task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from jupiter import keys, manifests
from jupiter.config.loading import config_from_arguments
from jupiter.events import CheckpointSaved, Event, ShardCurated
from jupiter.records import digest_of
from jupiter.service import Runtime, ServiceParts, Subscription, run_service

BREAK = 666


async def setup(runtime: Runtime) -> ServiceParts[Runtime]:
    broken = asyncio.Event()

    async def handle(event: ShardCurated, runtime: Runtime) -> Sequence[Event]:
        if event.samples == BREAK:
            broken.set()
            return []
        committed = await asyncio.to_thread(commit, runtime, event)
        return [announce(event, committed)]

    async def watch() -> None:
        await broken.wait()
        raise ValueError("the loss is not a number")

    await runtime.status("idle")
    subscription = Subscription(channel="shards", durable="echo", handlers={ShardCurated: handle})
    return ServiceParts(deps=runtime, subscriptions=[subscription], background=[watch])


def commit(runtime: Runtime, event: ShardCurated) -> manifests.Committed:
    prefix = keys.checkpoint_prefix(event.domain, "run", event.samples)
    found = manifests.find(runtime.blobs, prefix)
    if found is not None:
        return found
    data = manifests.upload_bytes(runtime.blobs, prefix=prefix, name="data", data=b"%d" % event.samples)
    return manifests.commit(
        runtime.blobs,
        prefix=prefix,
        kind="checkpoint",
        domain=event.domain,
        work_id=event.shard_id,
        files=(data,),
        details={"step": event.samples},
    )


def announce(event: ShardCurated, committed: manifests.Committed) -> CheckpointSaved:
    return CheckpointSaved(
        domain=event.domain,
        checkpoint_id=digest_of(event.domain, "run", event.samples),
        run="run",
        step=event.samples,
        tokens_seen=1,
        loss=1.0,
        shard_sequence=1,
        manifest_key=committed.key,
        manifest_sha256=committed.sha256,
    )


if __name__ == "__main__":
    asyncio.run(run_service(name="echo", config=config_from_arguments("echo"), setup=setup))
