"""What verifying an access token costs, beside PyJWT's own `PyJWKClient` and `jwt.decode`.

    python -m benchmarks.verification

Prints µs per check: the median of many short batches, all rows taking turns, so that a busy machine slows all alike.
Pin it to a core (`taskset -c 1`) for figures worth keeping. Ratios travel, absolute figures do not.
"""

import statistics
import time
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt

from server.data.jwks import JwksSnapshot, VerificationKey, fetch_jwks
from server.http.tokens import Claims, TokenPolicy, Verifier, bearer_token
from tests.http.minting import ISSUER, SECRET, es256_key, mint_hs256, rs256_key, serve_jwks, user_claims

ROUNDS = 60
COLD_CHECKS_PER_BATCH = 100
CACHED_CHECKS_PER_BATCH = 1000
POLICY = TokenPolicy(issuer=ISSUER, algorithms=("ES256", "RS256", "HS256"), hs256_secret=SECRET)


class ForgetfulVerifier(Verifier):
    """A verifier that remembers no token, so that each check is a cold one."""

    def _remember(self, digest: bytes, entry: tuple[Claims, VerificationKey | None]) -> None:
        pass


def decode_with_client(client: jwt.PyJWKClient, token: str, algorithm: str) -> Any:
    """Verify as PyJWT's documentation shows it: the client reads the header for the key, which it has cached."""
    return decode_with(client.get_signing_key_from_jwt(token), token, algorithm)


def decode_with(key: Any, token: str, algorithm: str) -> Any:
    """Verify with the key, and demand the claims that our verifier demands."""
    return jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        audience="authenticated",
        issuer=ISSUER,
        options={"require": ["exp", "iat", "sub", "aud", "iss"]},
    )


def measure(rows: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Return each row's median in µs per call; a row says what to call and how often in one batch."""
    batches: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, (call, times) in rows.items():
            batches[name].append(timeit.timeit(call, number=times) / times * 1e6)
    return {name: statistics.median(taken) for name, taken in batches.items()}


def print_table(ours: dict[str, float], peers: dict[str, float]) -> None:
    """Print ours beside the peer of the same algorithm."""
    print(f"{'one check':<34}{'µs':>8}{'PyJWT µs':>10}{'ratio':>8}")
    for name, microseconds in ours.items():
        peer = peers[name.split()[0]]
        print(f"{name:<34}{microseconds:>8.1f}{peer:>10.1f}{peer / microseconds:>7.1f}x")


def main() -> None:
    """Measure and print."""
    now = time.time()
    claims = user_claims(iat=int(now), exp=int(now) + 3600)
    es256, rs256 = es256_key(), rs256_key()
    tokens = {"ES256": es256.mint(claims), "RS256": rs256.mint(claims), "HS256": mint_hs256(claims)}
    header = [f"Bearer {tokens['ES256']}"]
    with serve_jwks([es256, rs256]) as server:
        snapshot = JwksSnapshot(partial(fetch_jwks, server.url), time.monotonic)
        cold, warm = ForgetfulVerifier(POLICY, snapshot), Verifier(POLICY, snapshot)
        client = jwt.PyJWKClient(server.url, cache_keys=True)
        rows: dict[str, tuple[Callable[[], object], int]] = {}
        for algorithm, token in tokens.items():
            rows[f"{algorithm} cold"] = partial(cold.verify, token, now), COLD_CHECKS_PER_BATCH
            peer = partial(decode_with, SECRET) if algorithm == "HS256" else partial(decode_with_client, client)
            rows[f"PyJWT {algorithm}"] = partial(peer, token, algorithm), COLD_CHECKS_PER_BATCH
            rows[f"{algorithm} cached"] = partial(warm.verify, token, now), CACHED_CHECKS_PER_BATCH
        rows["ES256 cached, header parsed"] = lambda: warm.verify(bearer_token(header), now), CACHED_CHECKS_PER_BATCH
        medians = measure(rows)
    peers = {name.split()[1]: taken for name, taken in medians.items() if name.startswith("PyJWT")}
    print_table({name: taken for name, taken in medians.items() if not name.startswith("PyJWT")}, peers)


if __name__ == "__main__":
    main()
