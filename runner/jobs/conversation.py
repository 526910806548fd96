"""Checks the parts of a prompt, `messages` and `system`, as the Messages API would.

Source: Messages API documentation, create a message; the refusals of blank text and of a final
assistant message are its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.jobs.problems import Path, Report, nearest, quoted
from runner.jobs.spec import Json

_ROLES = ("user", "assistant")
_TOOL_BLOCKS = ("tool_use", "tool_result", "server_tool_use", "mcp_tool_use", "mcp_tool_result")
_BLOCKS = (
    "text",
    "image",
    "document",
    "search_result",
    "thinking",
    "redacted_thinking",
    "container_upload",
)


def check_messages(value: Json, report: Report, path: Path = ("messages",)) -> None:
    """Report whatever keeps `value` from being a conversation that asks for a document."""
    if not isinstance(value, list) or not value:
        report(
            path,
            f"this is {quoted(value)}" if value != [] else "the list is empty",
            'Write a list such as `[{role: user, content: "…"}]`.',
        )
        return
    for index, message in enumerate(value):
        here = (*path, index)
        if not isinstance(message, Mapping):
            report(here, f"this is {quoted(message)}", "A message is `{role: …, content: …}`.")
            continue
        role = message.get("role")
        if role not in _ROLES:
            fix = "The roles are user and assistant."
            if role == "system":
                fix = "Write it under the key `system` beside `messages`."
            what = f"the role is {quoted(role)}" if "role" in message else "the role is missing"
            report((*here, "role"), what, fix)
        if "content" not in message:
            report(here, "the content is missing", "Write `content: …`.")
        else:
            _check_content(message["content"], report, (*here, "content"))
        for key in message:
            if key not in ("role", "content"):
                report(
                    (*here, key),
                    f"a message has no key {quoted(key)}",
                    "Its keys are role and content.",
                    on_key=True,
                )
    last = value[-1]
    if isinstance(last, Mapping) and last.get("role") == "assistant":
        report(
            (*path, len(value) - 1),
            "the last message is the assistant's",
            "End with a user message: the beginning of the answer is runner's to write.",
        )


def check_system(value: Json, report: Report, path: Path = ("system",)) -> None:
    """Report whatever keeps `value` from being a system prompt: a text, or text blocks."""
    if isinstance(value, str):
        _check_text(value, report, path)
    elif not isinstance(value, list) or not value:
        report(path, f"this is {quoted(value)}", "Write a text, or leave the key out.")
    else:
        for index, block in enumerate(value):
            here = (*path, index)
            if not isinstance(block, Mapping) or block.get("type") != "text":
                report(here, "this is no text block", 'Write `{type: text, text: "…"}`.')
            else:
                _check_text(block.get("text"), report, (*here, "text"))


def _check_content(value: Json, report: Report, path: Path) -> None:
    if isinstance(value, str):
        _check_text(value, report, path)
        return
    if not isinstance(value, list) or not value:
        what = f"this is {quoted(value)}" if value != [] else "the list is empty"
        report(path, what, "Write a text, or a list of content blocks.")
        return
    for index, block in enumerate(value):
        here = (*path, index)
        kind = block.get("type") if isinstance(block, Mapping) else None
        if not isinstance(kind, str) or not kind:
            report(here, "this is no content block", 'Write `{type: text, text: "…"}`.')
        elif kind in _TOOL_BLOCKS:
            report(
                (*here, "type"),
                f"a {kind} block: runner writes documents and does not run tools",
                "Take it out, or use the Messages API directly for this job.",
            )
        elif kind == "text":
            _check_text(block.get("text"), report, (*here, "text"))
        elif kind not in _BLOCKS and (near := nearest(kind, _BLOCKS)):
            # Other unknown types pass: the API may know newer ones than we do.
            report((*here, "type"), f"the type is {quoted(kind)}", f"Did you mean `{near}`?")


def _check_text(value: Json, report: Report, path: Path) -> None:
    if not isinstance(value, str):
        report(path, f"this is {quoted(value)}", "Write a text, in quotes if need be.")
    elif not value or value.isspace():
        report(path, "the text is empty", "Write some text: the API refuses a blank one.")
