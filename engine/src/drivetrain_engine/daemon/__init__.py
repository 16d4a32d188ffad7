"""The daemon: its settings, what it is put together from, and its main loop."""
