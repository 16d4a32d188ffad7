"""Helpers for drivers: mounts, namespaces, trees, netlink, the firewall."""
