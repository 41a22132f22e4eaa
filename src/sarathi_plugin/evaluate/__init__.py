"""Comparisons that can be checked: arms, interleaved runs, statistics, a checklist that is computed, a report."""
