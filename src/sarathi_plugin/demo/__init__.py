"""The demo: stock vLLM and ``--scheduler sarathi`` side by side, live, on this machine, in one command.

It brings its own models (no download), measures what the machine can do, serves each arm the same load over HTTP,
and shows where streams froze. A room on top of ``load/``: it imports load, workload and the core, nothing imports it
but the command line. One run decides nothing; ``evaluate`` is for that.
"""
