"""docs/openapi.json: the controller's HTTP API.

Owns: its layout. Does not know: any route. The only place in shared/ that looks at a service, for documentation alone.
"""

from __future__ import annotations

import json

__all__ = ["openapi_json"]


def openapi_json() -> str:
    """Return the whole file."""
    from jupiter.controller.api import build_app

    return json.dumps(build_app(None).openapi(), indent=2, ensure_ascii=False) + "\n"
