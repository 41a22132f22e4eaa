"""The policies on real servers, under open-loop load."""
