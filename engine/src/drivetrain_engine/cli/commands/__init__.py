"""The subcommands, one module per kind of work; imported when one of them is called for."""
