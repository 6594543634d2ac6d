"""Started in this folder: ``gunicorn wsgi``, or ``uvicorn asgi:application``."""
