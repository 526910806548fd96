"""Errors as the API tells them: status, headers, body.

Source: Messages API documentation, errors; the SDK's error classes for `details.error_code`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(eq=False)  # not frozen: raising sets the traceback on it
class ApiProblem(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        type: the API's error type, such as `invalid_request_error`.
        error_code: what `error.details.error_code` says; None where there are no details.
        html: a body that is not the API's own, as proxies in between send it.
        retry_after_s: what `retry-after` asks for, in seconds of the simulator; None asks for none.
    """

    status: int
    type: str
    message: str
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    html: str | None = None
    retry_after_s: float | None = None

    def body(self, request_id: str) -> bytes:
        """The body of the answer."""
        if self.html is not None:
            return self.html.encode()
        return json.dumps(error_object(self, request_id), ensure_ascii=False).encode()


def error_object(problem: ApiProblem, request_id: str) -> dict[str, object]:
    """The outer object that error bodies and `error` events share."""
    error: dict[str, object] = {"type": problem.type, "message": problem.message}
    if problem.error_code is not None:
        error["details"] = {"error_code": problem.error_code}
    return {"type": "error", "error": error, "request_id": request_id}


def invalid(message: str) -> ApiProblem:
    """The API's 400 with this message."""
    return ApiProblem(400, "invalid_request_error", message)
