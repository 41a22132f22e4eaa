"""Load: a streaming client, an open-loop dispatcher, real server processes, and the numbers they give.

Needs the extra ``[load]``. Nothing here imports vLLM: servers are other processes, reached over HTTP.
"""
