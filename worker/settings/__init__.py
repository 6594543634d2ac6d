"""Every setting: from the environment, ``.env``, or the file of a secret."""

from worker.settings.fields import FIELDS, SECRETS, Settings, sites_of
from worker.settings.sources import read

__all__ = ["FIELDS", "SECRETS", "Settings", "read", "sites_of"]
