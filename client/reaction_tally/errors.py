"""What a reader raises. The message of an error says what to do."""


class TallyReadError(Exception):
    """Tallies could not be read."""


class RedisUnavailableError(TallyReadError):
    """Redis does not answer, or cannot answer just now. Try again."""


class NotPermittedError(TallyReadError):
    """The user of Redis may not run a command that is needed."""


class NotTheseTalliesError(TallyReadError):
    """These are no tallies that this version can read.

    Examples: another server, database or namespace than the worker's; another schema.
    """


class InvalidNameError(TallyReadError, ValueError):
    """An address or a namespace is malformed."""


class MalformedEntryError(TallyReadError):
    """An entry of a journal is of a kind that this version does not know."""
