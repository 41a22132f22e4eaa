"""A worker process of ``sarathi loadtest --processes``: ``python -m sarathi_plugin.loadtest.child PORT``."""

from __future__ import annotations

import sys

from locust.env import Environment

from sarathi_plugin.loadtest.worker import ScheduleUser, Worker


def main(port: int) -> None:
    """Serve the master on this machine until it quits."""
    environment = Environment(user_classes=[ScheduleUser])
    runner = environment.create_worker_runner("127.0.0.1", port)
    Worker(environment).attach()
    runner.greenlet.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
