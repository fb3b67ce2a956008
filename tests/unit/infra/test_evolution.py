"""Bodies of other schema versions: an old one is brought up to date, one that is a version ahead is read as it is."""

from __future__ import annotations

import json

import pytest

from jupiter.bus.codec import decode, encode
from jupiter.errors import Rejected
from jupiter.events import VerdictReached, event_types
from jupiter.evolution import AHEAD_MAX, Body, body_as
from jupiter.records import digest_of
from tests.integration.infra.bus_contract import shard


def test_an_old_body_goes_through_every_version_in_turn() -> None:
    def to_two(body: Body) -> Body:
        return {**body, "two": body["one"] + 1}

    def to_three(body: Body) -> Body:
        return {**body, "three": body["two"] + 1}

    upcasts = {1: to_two, 2: to_three}
    assert body_as(3, {"one": 1}, upcasts=upcasts, name="x") == {"schema_version": 3, "one": 1, "two": 2, "three": 3}
    made_by_two = {"schema_version": 2, "two": 7}
    assert body_as(3, made_by_two, upcasts=upcasts, name="x") == {"schema_version": 3, "two": 7, "three": 8}


@pytest.mark.parametrize("version", [0, -1, "1", None, True, 1.5])
def test_what_is_no_version_is_refused(version: object) -> None:
    with pytest.raises(Rejected, match="whole number"):
        body_as(1, {"schema_version": version}, upcasts={}, name="x")


def test_one_version_ahead_is_read_and_two_are_refused() -> None:
    event = shard("birds", 3)
    encoded = encode(event, source="test")

    def of_version(version: int) -> bytes:
        changed = b'{"schema_version":%d,"not_known_yet":[1],' % version
        return encoded.data.replace(b'{"schema_version":1,', changed)

    assert of_version(1) != encoded.data
    assert decode(of_version(1 + AHEAD_MAX), encoded.headers) == event
    with pytest.raises(Rejected, match="schema version 3; this service reads up to 2: upgrade it"):
        decode(of_version(2 + AHEAD_MAX), encoded.headers)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b'{"schema_version": 1}'])
def test_what_is_no_body_is_refused(data: bytes) -> None:
    headers = encode(shard("birds", 3), source="test").headers
    with pytest.raises(Rejected, match=r"not a valid jupiter\.ShardCurated"):
        decode(data, headers)


def test_every_event_can_be_read_from_its_first_version_on() -> None:
    for name, cls in event_types().items():
        assert set(cls.upcasts) == set(range(1, cls.current_version())), name


def test_a_verdict_of_version_one_is_read_without_the_digest_that_it_lacks() -> None:
    told = VerdictReached(
        domain="birds",
        evaluation_id=digest_of("evaluation"),
        decision="HOLD",
        reasons=("too few steps",),
        verdict_key="evaluations/birds/verdict.json",
        verdict_sha256=digest_of("verdict"),
        checkpoint_id=digest_of("checkpoint"),
    )
    encoded = encode(told, source="jupiter/controller/one")
    added = ("verdict_sha256", "checkpoint_id")
    body = {name: value for name, value in json.loads(encoded.data).items() if name not in added}
    older = decode(json.dumps({**body, "schema_version": 1}).encode(), encoded.headers)
    assert older == told.model_copy(update=dict.fromkeys(added))
    assert older.event_id == told.event_id
