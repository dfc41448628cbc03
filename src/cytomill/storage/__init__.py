"""Opening and writing volumes, tables and files that survive a crash."""
