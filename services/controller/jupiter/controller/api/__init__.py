"""The controller's HTTP API.

Owns: assembling the app. Does not know: any rule of the cycle; each route asks the module that does.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI

from jupiter.controller.api import access, benchmark, documents, errors, flips, lineage, reading, withdrawals
from jupiter.controller.deps import Deps

__all__ = ["API_VERSION", "build_app"]

API_VERSION = "1"


def build_app(deps: Deps | None) -> FastAPI:
    """Return the app; `deps` None is enough to describe it (`openapi()`)."""
    app = FastAPI(
        title="Jupiter controller",
        version=API_VERSION,
        description="Progress, history and control of one self-improvement cycle.",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.deps = deps
    app.state.callers = access.read_keys(deps.config.controller.api_keys) if deps else ()
    errors.install(app)
    for module in (reading, flips, documents, withdrawals, lineage, benchmark):
        app.include_router(
            module.router, prefix="/v1", responses=errors.RESPONSES, dependencies=[Depends(access.allowed)]
        )
    return app
