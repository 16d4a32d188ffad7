"""The unpacker of layers: a program of its own, which the layer store runs.

It changes its root into the layer before it looks at the first name: whatever a hostile archive
holds, nothing outside can be reached. Only the standard library is imported, and nothing else of
the engine, so that it starts quickly.
"""
