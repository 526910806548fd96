"""The ledger's estimates of calls that died, held against what the simulated API billed for them.

Run: python benchmarks/ledger.py [--kills 20] [--jobs 60] [--speed 100] [--model MODEL]

Short-lived processes work on one database, one after another; each is killed by SIGKILL at a
random moment, with all its streams open. The last one finishes the rest. What the calls that died
cost by the ledger, in sum, is held against the simulator's bills for the same requests.

Prints one JSON object; the exit status is 1 if the two are more than 5 % apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.crash.died import die


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=60)
    parser.add_argument("--speed", type=float, default=100.0)
    parser.add_argument("--document-tokens", type=int, default=800)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--model", default="claude-haiku-4-5")
    parser.add_argument("--thinks", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            die(
                Path(folder),
                kills=options.kills,
                jobs=options.jobs,
                model=options.model,
                document_tokens=options.document_tokens,
                max_tokens=options.max_tokens,
                tokens_per_second=options.speed,
                thinks=options.thinks,
            )
        )
    apart = found["cost"] / found["cost_billed"] - 1
    print(json.dumps(found | {"apart": f"{apart:+.2%}"}, indent=2))
    return int(abs(apart) > 0.05)


if __name__ == "__main__":
    sys.exit(main())
