"""One module for each family; found by name, nothing has to be registered."""
