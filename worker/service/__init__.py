"""The running worker: how it is built, starts, stops, and reports."""
