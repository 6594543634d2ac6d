"""Is this Redis, and what may take its place, as a worker needs it? A part of ``tally doctor``."""

import asyncio
import os
from typing import Final

from reaction_tally.addresses import Host
from reaction_tally.keys import Keys
from worker.errors import ExitCode, RedisUnavailableError, TallyError
from worker.service.doctor import Deadline, Finding, Note
from worker.store.connection import EMBEDDED_FOLDER, RedisClient
from worker.store.counted_types import acceptable_claim
from worker.store.kinds import describe, find_replicas
from worker.store.ownership import Claim, check_ownership
from worker.store.preflight import (
    check_fitness,
    check_keys,
    check_permissions,
    check_replica,
    lacks_publish,
)
from worker.store.refused_users import RefusedUsers

NEW_TYPES: Final = "so its types become those of TALLY_TYPES"


async def examine_redis(
    redis: RedisClient,
    keys: Keys,
    claim: Claim | None,
    deadline: Deadline,
    *,
    allow_eviction: bool,
    wait_replicas: int = 0,
) -> list[Finding]:
    """Check if Redis is fit, and the namespace ours or free."""

    async def check_server() -> str:
        fitness = await check_fitness(redis, allow_eviction=allow_eviction)
        found = await describe(redis)
        if not found.text:
            return f"answers, {fitness}"
        sentence = f"answers, {fitness}. {found.text}"
        return Note(f"{sentence} {found.worry}") if found.worry else sentence

    async def check_owner() -> str:
        await check_keys(redis, keys)
        await RefusedUsers(redis, keys).read()
        acceptable = claim and await acceptable_claim(redis, keys, claim)
        is_claimed = await check_ownership(redis, keys, acceptable)
        if acceptable != claim:
            return f"namespace {keys.namespace!r} is ours; it counts nothing yet, {NEW_TYPES}"
        return f"namespace {keys.namespace!r} is {'ours' if is_claimed else 'free'}"

    async def check_user() -> str:
        await check_permissions(redis, keys, wait_replicas)
        sentence = "takes writes, and permits every command of the worker"
        lack = await lacks_publish(redis, keys)
        return Note(f"{sentence}. {lack}") if lack else sentence

    server = await deadline.look("Redis", check_server)
    if server.exit_code is not ExitCode.DONE:
        return [server]
    return [
        server,
        await deadline.look("Redis", check_user),
        await deadline.look("Redis", check_owner),
    ]


def examine_folder(hints: str = "") -> Finding:
    """Say that Redis is our own, and whether its folder can be made.

    ``hints`` name variables that may be meant for REDIS_URL.
    """
    folder = EMBEDDED_FOLDER.absolute()
    place = folder if folder.exists() else folder.parent
    if not os.access(place, os.W_OK):
        text = f"REDIS_URL is not set, and {place} is not writable: set REDIS_URL."
        return Finding("Redis", text, ExitCode.REDIS_UNFIT)
    return Finding(
        "Redis",
        "REDIS_URL is not set: the worker uses its own embedded Valkey, "
        f"with its data in {folder}. For production set REDIS_URL.{hints}",
        verdict="note" if hints else "ok",
    )


async def examine_replicas(
    redis: RedisClient,
    keys: Keys,
    deadline: Deadline,
    *,
    allow_eviction: bool,
) -> list[Finding]:
    """Check each server that the next failover may make the primary.

    A replica that cannot be looked at in time is a note.
    """
    hosts: list[Host] = []

    async def find() -> str:
        hosts.extend(await find_replicas(redis))
        return ""

    search = await deadline.look("Redis", find)
    if search.exit_code is not ExitCode.DONE:
        return [_note(f"No replica was looked at: {search.text}")]
    findings = {host: _not_looked_at(host, "no answer in time.") for host in hosts}

    async def check(host: Host) -> None:
        try:
            lack = await check_replica(redis, keys, host, allow_eviction=allow_eviction)
        except RedisUnavailableError as error:
            findings[host] = _not_looked_at(host, str(error))
        except TallyError as error:
            findings[host] = Finding("Redis", f"{_subject(host)} {error}", error.exit_code)
        else:
            if lack is None:
                del findings[host]
            else:
                findings[host] = _note(f"{_subject(host)} {lack}" if lack else "")

    async def check_all() -> str:
        await asyncio.gather(*map(check, hosts))
        return ""

    await deadline.look("Redis", check_all)
    doubtful = [finding for finding in findings.values() if finding.text]
    if doubtful or not findings:
        return doubtful
    return [Finding("Redis", f"replicas that are as fit as their primary: {len(findings)}")]


def _subject(host: Host) -> str:
    address = ":".join(map(str, host))
    return f"{address} is a replica, and may become the primary."


def _not_looked_at(host: Host, reason: str) -> Finding:
    return _note(f"{_subject(host)} It cannot be looked at: {reason}")


def _note(text: str) -> Finding:
    return Finding("Redis", text, verdict="note")
