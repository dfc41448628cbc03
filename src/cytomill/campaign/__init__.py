"""What a campaign is: configuration, plan, run, status, verification, provenance."""
