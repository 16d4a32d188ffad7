"""Benchmarks against dockerd and podman on the same machine: ``make bench``, ``make bench T=run``.

Machines are noisy and shared, so nothing here compares with a number from elsewhere: our engine
and its peers take turns in the same run, and what counts is the ratio of the medians.

A family of benchmarks is a module in :mod:`benchmarks.families`; README.md says how to add one.
"""
