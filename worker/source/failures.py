"""PubNub's other answers, as errors that are safe to log.

A sentence says what was asked and what PubNub answered. It is short and
printable, and without keys, tokens, signatures and URLs.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from worker.errors import ForbiddenError, PubNubError, ThrottledError
from worker.source.answers import as_object, decode
from worker.source.route import NOT_PUBNUB
from worker.source.transport import Response

LONGEST_RETRY_SECONDS: Final = 600.0
"""The longest wait that a Retry-After can ask for."""
_RENEW: Final = "Put a new token into the file of PUBNUB_AUTH_TOKEN_FILE."
SWITCH_ON: Final = (
    "Message actions need Message Persistence: "
    "switch it on for the keyset in PubNub's admin portal."
)
_ADVICE: Final = {
    "token is expired": _RENEW,
    "token is revoked": _RENEW,
    "signature": "Check PUBNUB_PUBLISH_KEY and PUBNUB_SECRET_KEY.",
    "timestamp": "Check the clock of this machine.",
    "not enabled for this subscribe key": SWITCH_ON,
    "invalid subscribe key": "Check PUBNUB_SUBSCRIBE_KEY.",
}
"""Part of PubNub's words → what to do."""
_SHOWN: Final = 200  # characters of PubNub's own words in an error
_SECONDS: Final = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*", re.ASCII)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
GRANT: Final = (
    "Grant 'read' to this worker's token "
    "for every name in TALLY_CHANNELS "
    "and TALLY_CHANNEL_GROUPS, "
    "or set PUBNUB_AUTH_TOKEN."
)
_SECRET_LOOKING: Final = re.compile(r"\w+://\S*|\S*(?:auth|signature)=\S*|[\w.~%+/=-]{32,}")


def failure(
    request: str,
    response: Response,
    secrets: Iterable[str | None],
    if_foreign: str = NOT_PUBNUB,
    token_advice: str = "",
) -> PubNubError:
    """Return the error for an answer that is not a success.

    ``request`` names what was asked, for example ``time``.
    ``secrets`` are texts that the error must not contain.
    ``if_foreign`` is the advice for a web page that PubNub would not send.
    ``token_advice`` says what is wrong with the token, if that is known.
    """
    body = None
    try:
        body = decode(response.content)
        words = _without_secrets(_words(body), secrets)
        words = shortened(words).rstrip(". ")
    except ValueError:
        words = "not JSON"
    status = response.status_code
    reason = ", ".join(filter(None, [str(status), words]))
    sentence = f"PubNub, {request}: answered {reason}."
    if body is None and 300 <= status < 500:
        sentence = f"{sentence} {if_foreign}"
    if status == 429:
        return ThrottledError(sentence, retry_after=_retry_seconds(response))
    if status == 403:
        advice = _advice(words) or token_advice
        return _forbidden(sentence, body, advice)
    if status == 400:
        sentence = f"{sentence} {_advice(words)}".rstrip()
    return PubNubError(sentence, status=status)


def with_grant(error: PubNubError) -> str:
    """Return what an error says.

    A refusal says what to grant, too.
    """
    sentence = str(error)
    if not isinstance(error, ForbiddenError):
        return sentence
    if error.has_advice:
        return sentence
    return f"{sentence} {GRANT}"


def _advice(words: str) -> str:
    """Return what to do, if PubNub's words for a refusal tell the cause."""
    for cause, advice in _ADVICE.items():
        if cause in words.lower():
            return advice
    return ""


def _retry_seconds(response: Response) -> float | None:
    header = response.headers.get("Retry-After", "")
    seconds = _SECONDS.fullmatch(header)
    if seconds is None:
        return None
    return min(float(seconds[1]), LONGEST_RETRY_SECONDS)


def _forbidden(
    sentence: str,
    body: object,
    advice: str,
) -> ForbiddenError:
    payload = as_object(as_object(body).get("payload"))
    channels = _names(payload.get("channels"))
    groups = _names(payload.get("channel-groups"))
    return ForbiddenError(
        f"{sentence} {advice}".rstrip(),
        has_advice=bool(advice),
        channels=frozenset(channels),
        groups=frozenset(group.removeprefix(":") for group in groups),
    )


def _names(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [name for name in values if isinstance(name, str)]


def _words(body: object) -> str:
    fields = as_object(body)
    error = fields.get("error")
    explanations = (
        as_object(error).get("message"),
        fields.get("message"),
        fields.get("error_message"),
        error,
    )
    return next((text for text in explanations if isinstance(text, str)), "")


def _without_secrets(words: str, secrets: Iterable[str | None]) -> str:
    for secret in filter(None, secrets):
        words = words.replace(secret, "…")
        words = words.replace(quote(secret, safe=""), "…")
    return _SECRET_LOOKING.sub("…", words)


def shortened(text: str) -> str:
    """Return a text in one printable line of bounded length."""
    text = _UNPRINTABLE.sub(" ", text)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
