"""The bench of scheduling policies on virtual time."""
