"""The HTTP front door: the Docker Engine API over unix sockets and TCP."""
