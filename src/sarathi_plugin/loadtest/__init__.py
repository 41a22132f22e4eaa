"""Load tests on Locust: open-loop schedules over one or many workers, judged at the client, refused when invalid.

Needs the extra ``[load]``. ``master``, ``worker``, ``runner``, ``child`` and ``command`` import Locust, and so gevent's
patches; the rest is plain.
"""
