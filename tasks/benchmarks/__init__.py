"""Benchmark files as they are published, turned into folders that lm-evaluation-harness reads."""
