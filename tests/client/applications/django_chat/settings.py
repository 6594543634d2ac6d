"""Settings of Django."""

from typing import Final

SECRET_KEY: Final = "signs nothing"
ALLOWED_HOSTS: Final = ["127.0.0.1"]
ROOT_URLCONF: Final = "views"
