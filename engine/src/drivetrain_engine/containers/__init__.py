"""Containers: requests, records, OCI specs, lifecycle, execs, files, and their repair."""
