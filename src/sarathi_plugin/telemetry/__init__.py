"""What happened, measured: deadline state of live requests, metrics, records."""
