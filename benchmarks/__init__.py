"""Benchmarks: scripts, each a command, which import each other by their bare names. `neurt reproduce` runs some."""
