"""Ranks, work sharing, ledger, failures, signals, telemetry; knows nothing of biology."""
