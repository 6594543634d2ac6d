"""Every setting: from the environment, from ``.env``, or from a secret's file. Only ``app`` and ``cli`` see them."""

from worker.settings.fields import FIELDS, READING, SECRETS, Settings, load, read, refusal

__all__ = ["FIELDS", "READING", "SECRETS", "Settings", "load", "read", "refusal"]
