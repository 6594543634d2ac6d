"""Forgotten users are known by a keyed hash."""

import pytest

from worker.domain.forgotten_users import NOBODY, ForgottenUsers, digest

KEY = b"k" * 32


@pytest.mark.parametrize("uuid", ["ana", "", "a:b", "😀", "\ud800", "new\nline", "\x00"])
def test_a_forgotten_user_is_known(uuid: str) -> None:
    """Whatever the name is made of. Another key knows another hash."""
    users = ForgottenUsers(KEY, frozenset([digest(KEY, uuid)]))

    assert uuid in users
    assert uuid + "x" not in users
    assert uuid not in ForgottenUsers(b"other", users.digests)


def test_nobody_is_false() -> None:
    """So nothing is hashed as long as nobody is forgotten."""
    assert not NOBODY
    assert ForgottenUsers(KEY, frozenset([b"x"]))
