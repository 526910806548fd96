"""What the store does most, behind a pooler that gives each transaction another connection."""

from __future__ import annotations

import pytest

from tests.store import test_calls, test_claims, test_settle

pytestmark = pytest.mark.anyio

for _module in (test_calls, test_claims, test_settle):
    for _name, _test in vars(_module).items():
        # Those with a mark of their own are of one kind of database alone.
        if _name.startswith("test_") and not getattr(_test, "pytestmark", None):
            globals()[f"{_name}__{_module.__name__.rpartition('.')[2]}"] = _test
