"""Retries, a deadline, a breaker and an ejection, each at work."""

from __future__ import annotations

import meshlib
from meshlib.testing import Upstream


def attempts(response: object) -> list[str]:
    info = meshlib.call_info(response)
    assert info is not None
    return [f"{attempt.outcome} {attempt.status or ''}".strip() for attempt in info.attempts]


def main() -> None:
    with Upstream("good") as good, Upstream("bad") as bad, Upstream("slow") as slow:
        config = {
            "services": {
                "retried": {
                    "endpoints": [bad.address, good.address],
                    "balancer": "round_robin",
                    "retry": {"attempts": 3, "on": ["5xx", "connect-failure"]},
                    "outlier": {"consecutive_5xx": 3, "base_ejection": 30.0, "max_ejection_percent": 50},
                },
                "slow": {"endpoints": [slow.address]},
                "guarded": {
                    "endpoints": [bad.address],
                    "breaker": {"consecutive_failures": 2, "open_for": 30.0},
                },
            }
        }
        bad.fail(503)
        slow.hang()
        with meshlib.Mesh(config) as mesh, meshlib.Client(mesh=mesh) as client:
            while len(tried := attempts(client.get("http://retried/"))) == 1:
                pass  # the first call went to the good host at once
            print("retried at another host:", tried)
            while not any(e.health == "ejected" for e in mesh.status().clusters["retried"].endpoints):
                client.get("http://retried/")
            print("the bad host is ejected:", attempts(client.get("http://retried/")))

            try:
                with meshlib.deadline(0.2):
                    client.get("http://slow/")
            except meshlib.DeadlineExceeded as error:
                print("a deadline:", error)

            for _ in range(2):
                client.get("http://guarded/")
            try:
                client.get("http://guarded/")
            except meshlib.CircuitOpen as error:
                print("a breaker:", error)
            slow.release()


if __name__ == "__main__":
    main()
