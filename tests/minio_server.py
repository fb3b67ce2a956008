"""A server that answers as MinIO does: its admin API with users and policies, enforced before a real S3 server.

Owns: signatures, the users, what their policies allow. Does not know: objects, which a SeaweedFS keeps that knows the
root alone. MinIO's own program is in no package index; paths, verbs and refusals here are those of its admin router.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import urllib3
from minio.credentials.credentials import Credentials
from minio.crypto import decrypt
from minio.helpers import sha256_hash
from minio.signer import sign_v4_s3

__all__ = ["Admin", "minio_server"]

REGION = "us-east-1"
ADMIN = "/minio/admin/v3/"
SECRET_CHARACTERS_MIN = 8
OF_THE_BUCKET = frozenset({"s3:GetBucketLocation", "s3:ListBucket"})
UNSIGNED = "UNSIGNED-PAYLOAD"
DIGEST, DATE, DATE_FORMAT = "x-amz-content-sha256", "x-amz-date", "%Y%m%dT%H%M%SZ"
PASSED_ON = frozenset({"content-type", "if-none-match", "content-md5"})
OURS = frozenset({"Content-Length", "Connection", "Transfer-Encoding", "Date", "Server"})


@dataclass
class Admin:
    """What the server has been told."""

    root: Credentials
    users: dict[str, str] = field(default_factory=dict)
    policies: dict[str, Any] = field(default_factory=dict)
    attached: dict[str, list[str]] = field(default_factory=dict)

    def secret_of(self, access_key: str) -> str | None:
        return self.root.secret_key if access_key == self.root.access_key else self.users.get(access_key)

    def allows(self, access_key: str, action: str, resource: str) -> bool:
        if access_key == self.root.access_key:
            return True
        return any(
            action in statement["Action"] and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
            for name in self.attached.get(access_key, [])
            for statement in self.policies[name]["Statement"]
            if statement["Effect"] == "Allow"
        )

    def command(self, verb: str, command: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        """Carry out a command of the root's. Returns status and answer."""
        match verb, command:
            case "GET", "info":
                return 200, {"mode": "online", "buckets": {"count": 0}}
            case "PUT", "add-canned-policy":
                return self._add_policy(query["name"], json.loads(body))
            case "PUT", "add-user":
                return self._add_user(query["accessKey"], body)
            case "PUT", "set-user-or-group-policy":
                return self._attach(query["userOrGroup"], query["policyName"], group=query["isGroup"])
        return 404, {"Code": "XMinioAdminNoSuchCommand", "Message": f"{verb} {command}"}

    def _add_policy(self, name: str, policy: Any) -> tuple[int, Any]:
        for statement in policy["Statement"]:
            whole = all("/" not in resource for resource in statement["Resource"])
            if policy["Version"] != "2012-10-17" or any(
                (action in OF_THE_BUCKET) != whole for action in statement["Action"]
            ):
                return 400, {"Code": "MalformedPolicy", "Message": f"unsupported resource in {name}"}
        self.policies[name] = policy
        return 200, {}

    def _add_user(self, access_key: str, body: bytes) -> tuple[int, Any]:
        told = urllib3.HTTPResponse(io.BytesIO(body), preload_content=False)
        request = json.loads(decrypt(told, self.root.secret_key))
        if access_key == self.root.access_key or len(request["secretKey"]) < SECRET_CHARACTERS_MIN:
            return 400, {"Code": "XMinioAdminInvalidSecretKey", "Message": access_key}
        assert request["status"] == "enabled"
        self.users[access_key] = request["secretKey"]
        return 200, {}

    def _attach(self, user: str, policies: str, *, group: str) -> tuple[int, Any]:
        names = policies.split(",")
        if group != "false" or user not in self.users or not all(name in self.policies for name in names):
            return 404, {"Code": "XMinioAdminNoSuchPolicy", "Message": policies}
        self.attached[user] = names
        return 200, {}


@contextmanager
def minio_server(root: Credentials, *, objects: str) -> Iterator[tuple[str, Admin]]:
    """Serve on a free port before the S3 server at `objects`, whose root it shares. Yields endpoint and state."""
    admin = Admin(root=root)
    store = urllib3.PoolManager(retries=False)

    class Handler(_Handler):
        pass

    Handler.admin, Handler.store, Handler.objects = admin, store, objects
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = Thread(target=server.serve_forever, name="minio")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", admin
        finally:
            server.shutdown()
            thread.join()
            store.clear()


class _Handler(BaseHTTPRequestHandler):
    """One request: who is it, may they, and then it is done or passed on in the root's name."""

    admin: Admin
    store: urllib3.PoolManager
    objects: str

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        caller, refusal = self._caller(body)
        parts = urlsplit(self.path)
        if refusal:
            self._refuse(refusal)
        elif parts.path.startswith(ADMIN):
            self._command(caller, parts.path.removeprefix(ADMIN), parts.query, body)
        elif self.admin.allows(caller, *_action(self.command, unquote(parts.path), parts.query)):
            self._pass_on(body)
        else:
            self._refuse("AccessDenied")

    do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 — names of http.server

    def _caller(self, body: bytes) -> tuple[str, str]:
        """Return the access key of a request, and why it is refused."""
        fields = dict(part.split("=", 1) for part in self.headers["Authorization"].split(" ", 1)[1].split(", "))
        access_key = fields["Credential"].split("/")[0]
        secret = self.admin.secret_of(access_key)
        if secret is None:
            return access_key, "InvalidAccessKeyId"
        signed = {name: self.headers[name] for name in fields["SignedHeaders"].split(";")}
        wanted = _signed(self.command, self.path, signed, Credentials(access_key, secret))
        if wanted != self.headers["Authorization"] or self.headers[DIGEST] not in (UNSIGNED, sha256_hash(body)):
            return access_key, "SignatureDoesNotMatch"
        return access_key, ""

    def _command(self, caller: str, command: str, query: str, body: bytes) -> None:
        if caller != self.admin.root.access_key:
            self._refuse("AccessDenied")
            return
        options = {name: values[0] for name, values in parse_qs(query).items()}
        status, answer = self.admin.command(self.command, command, options, body)
        self._answer(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _pass_on(self, body: bytes) -> None:
        kept = {name.lower(): value for name, value in self.headers.items() if name.lower() in PASSED_ON}
        kept |= {"host": self.objects, DIGEST: sha256_hash(body), DATE: datetime.now(UTC).strftime(DATE_FORMAT)}
        kept["authorization"] = _signed(self.command, self.path, kept, self.admin.root)
        got = self.store.request(self.command, f"http://{self.objects}{self.path}", body=body or None, headers=kept)
        self._answer(got.status, got.data, {name: got.headers[name] for name in got.headers if name not in OURS})

    def _refuse(self, code: str) -> None:
        if self.path.startswith(ADMIN):
            text = json.dumps({"Code": code, "Message": code})
            self._answer(403, text.encode(), {"Content-Type": "application/json"})
        else:
            text = f"<Error><Code>{code}</Code><Message>{code}</Message><Resource>{self.path}</Resource></Error>"
            self._answer(403, text.encode(), {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


def _signed(verb: str, path: str, headers: Mapping[str, str], credentials: Credentials) -> str:
    made: Any = sign_v4_s3(
        method=verb,
        url=urlsplit(path),
        region=REGION,
        headers=dict(headers),
        credentials=credentials,
        content_sha256=headers[DIGEST],
        date=datetime.strptime(headers[DATE], DATE_FORMAT).replace(tzinfo=UTC),
    )
    return str(made["Authorization"])


def _action(verb: str, path: str, query: str) -> tuple[str, str]:
    """Return what a request does to what, in the words of a policy."""
    bucket, _, key = path.lstrip("/").partition("/")
    if key:
        return {"PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}.get(
            verb, "s3:GetObject"
        ), f"arn:aws:s3:::{path[1:]}"
    if verb == "PUT":
        return "s3:CreateBucket", f"arn:aws:s3:::{bucket}"
    return ("s3:GetBucketLocation" if query.startswith("location") else "s3:ListBucket"), f"arn:aws:s3:::{bucket}"
