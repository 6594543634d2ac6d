"""Started in this folder: ``uvicorn main:app``."""
