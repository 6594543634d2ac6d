"""Started in this folder: ``celery -A worker worker``, then ``python report.py``."""
