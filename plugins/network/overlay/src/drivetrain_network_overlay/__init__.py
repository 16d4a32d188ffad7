"""The overlay network driver."""
