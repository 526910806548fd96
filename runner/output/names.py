"""File names for documents: as the job is called where that is safe everywhere, altered where not."""

from __future__ import annotations

import hashlib
import re

from runner.jobs.ids import IdRegister
from runner.jobs.spec import ID_PATTERN

# Names that Windows gives to devices, whatever their ending.
_DEVICES = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


class Names:
    """Gives each id of one folder a name of its own, on file systems that ignore case too.

    All ids are added before the first name is asked for, so that which of them clash is settled,
    and a document keeps its name from one export to the next.
    """

    def __init__(self) -> None:
        # Hashes, not texts: there may be a million ids. Two that fall together by chance only get
        # longer names than they needed.
        self._seen = IdRegister()
        self._clashing: set[int] | None = None

    def add(self, id: str) -> None:
        """Make an id known."""
        self._seen.add(id.casefold())

    def name(self, id: str) -> str:
        """The file name of an id, without its ending: letters, digits, `_`, `-` and `~`."""
        if self._clashing is None:
            self._clashing = self._seen.repeated()
        plain = ID_PATTERN.fullmatch(id) and not _DEVICES.fullmatch(id)
        if plain and hash(id.casefold()) not in self._clashing:
            return id
        # No id holds a `~`, so an altered name cannot meet another's plain one.
        digest = hashlib.blake2b(id.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        return f"{re.sub(r'[^a-zA-Z0-9_-]', '_', id)[:64]}~{digest}"
