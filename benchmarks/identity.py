"""Does anybody ever get an answer under somebody else's identity? Many users, many threads, a slow upstream.

    python -m benchmarks.identity            20,000 requests by 32 threads; exits 1 if a single answer is foreign

The upstream writes the `sub` of the token that reached it into every row, after 0 to 5 ms, so that calls overlap and
come back in another order than they left.
"""

import http.client
import json
import random
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks import lab, measuring, tokens
from benchmarks.contestants import CONTESTANTS, OURS, Contestant

REQUESTS = 20_000
THREADS = 32
USERS = 500
DELAY_MS = 5


@dataclass(frozen=True, slots=True)
class Tally:
    """How many answers were the asker's own, somebody else's, or none (another status than 200)."""

    own: int
    foreign: int
    refused: int


def tally_identities(running: measuring.Running, stub: lab.Stub, requests: int = REQUESTS) -> Tally:
    """Ask `requests` times by THREADS keep-alive connections, a random user each time, and look at every row."""
    user_tokens = measuring.mint_tokens(measuring.issuer_of(stub), USERS)
    stub.set(DELAY_MS, echo=True)
    host, _, path = running.url.removeprefix("http://").partition("/")

    def ask_many(thread: int) -> Counter[str]:
        source = random.Random(thread)
        connection = http.client.HTTPConnection(host, timeout=30)
        seen: Counter[str] = Counter()
        for _ in range(requests // THREADS):
            user = source.randrange(USERS)
            connection.request("GET", f"/{path}", headers={"Authorization": f"Bearer {user_tokens[user]}"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                seen["refused"] += 1
                continue
            names = {row["name"] for row in json.loads(body)["data"]}
            seen["own" if names == {tokens.subject(user)} else "foreign"] += 1
        connection.close()
        return seen

    with ThreadPoolExecutor(THREADS) as pool:
        total = sum(pool.map(ask_many, range(THREADS)), Counter[str]())
    return Tally(total["own"], total["foreign"], total["refused"])


def find_contestant(name: str) -> Contestant:
    """Return a contestant by name."""
    return next(contestant for contestant in CONTESTANTS if contestant.name == name)


def main() -> None:
    """Run it alone."""
    with lab.run_stub() as stub, measuring.run_contestant(find_contestant(OURS), stub) as ours:
        tally = tally_identities(ours, stub)
    print(f"own {tally.own}, foreign {tally.foreign}, refused {tally.refused}")
    sys.exit(tally.foreign > 0 or tally.refused > 0)


if __name__ == "__main__":
    main()
