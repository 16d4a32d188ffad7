"""The body of ``POST /containers/create``: types, and what is accepted."""
