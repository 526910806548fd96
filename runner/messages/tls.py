"""What a TLS connection holds that brings an answer, and has nothing more to send.

asyncio holds 256 kB for each, to read into: 1,000 streams would hold 256 MB. What it reads into is
emptied at once, so one buffer does for all connections of a loop, which are never read at the same
time. The attributes are private: where they are not found, as with uvloop, each connection keeps
what it holds.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import ssl
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

# A TLS record holds 16 kB.
_SMALL_BYTES: Final = 32 * 1024

_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = WeakKeyDictionary()


def read_small() -> None:
    """From now on every TLS connection of this process begins with a small buffer.

    It is for whoever owns the process: connections that are just being made, too, need 256 kB each
    otherwise, and what was needed once is not always given back.
    """
    protocol: Any = asyncio.sslproto.SSLProtocol
    if isinstance(getattr(protocol, "max_size", None), int):
        protocol.max_size = _SMALL_BYTES


def slim(transport: asyncio.Transport | None) -> None:
    """Have a connection let go of what it can do without; called once an answer's headers came."""
    tls: Any = getattr(transport, "_ssl_protocol", None)
    _share_buffer(tls)
    _empty_write_buffer(tls)
    extra: Any = getattr(tls, "_extra", None)
    if isinstance(extra, dict):
        extra.pop("peercert", None)  # was looked at long ago


def _share_buffer(tls: Any) -> None:
    """Have a connection read into the buffer that others read into."""
    if hasattr(tls, "_ssl_buffer") and hasattr(tls, "_ssl_buffer_view"):
        loop = asyncio.get_running_loop()
        mine = (tls._ssl_buffer, tls._ssl_buffer_view)  # noqa: SLF001  no public way
        tls._ssl_buffer, tls._ssl_buffer_view = _shared.setdefault(loop, mine)  # noqa: SLF001


def _empty_write_buffer(tls: Any) -> None:
    """OpenSSL makes room to write, 17 kB, when the server sends its session tickets, and lets go of it
    at the end of the next write only: of none at all, for nothing goes to the server here."""
    session: Any = getattr(tls, "_sslobj", None)
    if isinstance(session, ssl.SSLObject):
        with suppress(ssl.SSLError, ValueError):  # it is closing
            session.write(b"")
