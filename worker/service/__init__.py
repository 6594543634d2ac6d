"""The running worker: how it is put together, how it starts and stops, how it feels."""
