"""Load of language models under Locust's own command, with all that users of Locust know.

    locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 --workload sharegpt-like --rate 1 --duration 60s

opens Locust's web UI, with a tab "Fluidity"; --headless runs at once, --processes N sends from N processes, --master
and --worker from several machines. Exit codes are those of ``sarathi loadtest``. The key: OPENAI_API_KEY.
"""

from sarathi_plugin.loadtest.events import install
from sarathi_plugin.loadtest.worker import ScheduleUser

__all__ = ["ScheduleUser"]

install()
