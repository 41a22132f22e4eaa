"""Prometheus rules and Grafana dashboards as code, checked against the catalogue of metrics.

What is generated from here lies in the top-level folder ``monitoring/`` and comes with the wheel.
"""
