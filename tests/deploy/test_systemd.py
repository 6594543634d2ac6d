"""``deploy/systemd``: units that systemd takes, and that need little power."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.dockerfile import ROOT
from tests.deploy.invocations import arguments
from tests.deploy.needed import run
from worker.errors import ExitCode
from worker.service.file_limit import needed_files
from worker.settings import FIELDS, SECRETS, Settings
from worker.source.names import Names

FOLDER: Final = ROOT / "deploy/systemd"
SERVICES: Final = ("tally", "tally-verify", "tally-reconcile")
TIMERS: Final = ("tally-verify", "tally-reconcile")
ANALYZE: Final = shutil.which("systemd-analyze") or ""
EXPOSED: Final = 11
"""Of 100, by systemd-analyze; a service without a word of hardening has 96."""
LATER: Final = {"RestartSteps": 254, "RestartMaxDelaySec": 254}
"""What an older systemd does not know, and passes over: since which version it does."""
REFUSED_EXECUTION: Final = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit(99)
os.execv(sys.executable, [sys.executable, "-m", "worker", "demo", "--seconds", "1"])
"""

Unit = dict[str, list[str]]


def unit(name: str) -> Unit:
    """Return a unit's settings, each with all its values."""
    found: Unit = {}
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def environment(service: Unit) -> dict[str, str]:
    """Return the environment of a service without the administrator's file."""
    return dict(pair.split("=", 1) for pair in service["Environment"])


def seconds(text: str) -> int:
    """Return the seconds of a duration such as 5min."""
    count, suffix = re.fullmatch(r"(\d+)(s|min|h)", text).groups()  # type: ignore[union-attr]
    return int(count) * {"s": 1, "min": 60, "h": 3600}[suffix]


@pytest.fixture(scope="module")
def systemd() -> int:
    """The version of systemd here."""
    if not ANALYZE:
        pytest.skip("no systemd-analyze on this machine")
    return int(re.findall(r"systemd (\d+)", run(ANALYZE, "--version").stdout)[0])


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with ``true`` as their program, which every machine has."""
    for path in FOLDER.glob("tally*.[st]*e*"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(
            text.replace("/opt/tally/bin/tally", shutil.which("true") or "")
        )
    return tmp_path


@pytest.mark.parametrize(
    "name", [*(f"{name}.service" for name in SERVICES), *(f"{name}.timer" for name in TIMERS)]
)
def test_systemd_accepts_a_unit(systemd: int, units: Path, name: str) -> None:
    """Without a warning, except about settings that its version does not know."""
    checked = run(ANALYZE, "verify", "--man=no", units / name)

    unknown = [setting for setting, since in LATER.items() if systemd < since]
    about_ours = [line for line in checked.stderr.splitlines() if "tally" in line]
    for line in about_ours:
        assert any(f"'{setting}'" in line for setting in unknown), line
    assert checked.returncode == 0


def test_a_slip_is_noticed(systemd: int, units: Path) -> None:
    """systemd-analyze warns of an unknown setting."""
    path = units / "tally.service"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("KillSignal=SIGTERM", "KillSignall=SIGTERM"))

    assert "KillSignall" in run(ANALYZE, "verify", "--man=no", path).stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardly_exposed(systemd: int, units: Path, name: str) -> None:
    """Only the network is left, which is its work."""
    options = ["--offline=true", f"--threshold={EXPOSED}", "--no-pager"]
    judged = run(ANALYZE, "security", *options, units / f"{name}.service")

    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


def test_all_services_are_hardened_alike() -> None:
    """By the same block of lines."""
    (block,) = {
        (FOLDER / f"{name}.service")
        .read_text(encoding="utf-8")
        .partition("# All that it may do")[2]
        .partition("\n\n")[0]
        .strip()
        for name in SERVICES
    }

    assert "ProtectSystem=strict" in block


def test_an_instance_is_the_same_unit() -> None:
    """But for its folders, so that two keysets share no file."""
    plain, template = unit("tally.service"), unit("tally@.service")
    expected = {
        setting: [text.replace("/etc/tally/", "/etc/tally/%i/") for text in texts]
        for setting, texts in plain.items()
    }
    expected["Description"] = [f"{plain['Description'][0]} (%i)"]
    expected["StateDirectory"] = ["tally/%i"]
    expected["WorkingDirectory"] = ["%S/tally/%i"]

    assert template == expected


def test_systemd_accepts_an_instance(systemd: int, units: Path) -> None:
    """Under the name of a keyset."""
    instance = units / "tally@chat.service"
    (units / "tally@.service").rename(instance)

    checked = run(ANALYZE, "verify", "--man=no", instance)

    assert (checked.returncode, systemd > 0) == (0, True), checked.stderr


def test_the_worker_needs_no_executable_memory() -> None:
    """The demo works with MemoryDenyWriteExecute=yes, here set by the process itself."""
    ended = run(sys.executable, "-c", REFUSED_EXECUTION)
    if ended.returncode == 99:
        pytest.skip("this kernel cannot refuse it: it is older than 6.3")

    assert ended.returncode == 0, ended.stderr
    assert "0 differences" in ended.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_commands_are_the_programs_own(name: str) -> None:
    """Read by the program's own parser."""
    (line,) = unit(f"{name}.service")["ExecStart"]
    program, *words = line.split()

    assert program == "/opt/tally/bin/tally"
    assert arguments(words)[0] == (name.removeprefix("tally-") if "-" in name else "run")


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_are_credentials(name: str) -> None:
    """Except the token, which is replaced while the worker runs; a credential never changes."""
    service = unit(f"{name}.service")
    given = environment(service)
    credentials = {line.partition(":")[0] for line in service["LoadCredential"]}
    files = {setting: path for setting, path in given.items() if setting.endswith("_FILE")}

    assert given.keys() <= FIELDS.keys()
    assert not given.keys() & set(SECRETS)
    assert {
        path.removeprefix("%d/") for path in files.values() if path.startswith("%d/")
    } == credentials
    assert [setting for setting, path in files.items() if not path.startswith("%d/")] == [
        "PUBNUB_AUTH_TOKEN_FILE"
    ]


def text_of_head() -> str:
    """Return the comment that the first unit begins with."""
    return (FOLDER / "tally.service").read_text(encoding="utf-8").partition("[Unit]")[0]


def test_installed_files_exist() -> None:
    """All that the head of the first unit names; every unit is among them."""
    head = text_of_head()
    named = {
        pattern: set(ROOT.glob(pattern))
        for pattern in re.findall(r"[\w.*/-]*deploy/[\w.*/-]*", head)
    }

    assert [pattern for pattern, found in named.items() if not found] == []
    assert set(FOLDER.iterdir()) <= set().union(*named.values())


def test_an_upgrade_copies_the_units_too() -> None:
    """By the line of the first install. A unit that stays behind lacks what a version changes."""
    (line,) = re.findall(r"^# {5}(install .*\.timer .*)$", text_of_head(), re.MULTILINE)
    upgrade = (ROOT / "deploy/install.md").read_text(encoding="utf-8").partition("\n## Upgrade")[2]

    assert f"\n    {line}\n    systemctl daemon-reload\n" in upgrade


def test_the_head_is_a_script(tmp_path: Path) -> None:
    """Only commands; afterwards every file exists that a unit reads."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("no bash on this machine")
    text = (FOLDER / "tally.service").read_text(encoding="utf-8")
    typed = re.findall(r"^# {5}(.*)$", text.partition("[Unit]")[0], re.MULTILINE)
    known = {"make", "install", "systemd-sysusers", "systemctl"}
    assert {line.split()[0] for line in typed} == known
    assert not set("…;&|") & set("".join(typed))
    assert typed[-1].startswith("systemctl enable --now ")

    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    steps = [
        re.sub(r" (/etc|/usr)/", rf" {tmp_path}\1/", line)
        for line in typed
        if line.startswith("install ")
    ]
    script = "\n".join(steps).replace(" -g tally ", " ")
    subprocess.run([bash, "-e", "-c", script], cwd=ROOT, check=True, capture_output=True)

    read = re.findall(r"/etc/tally/[\w.-]+", text.partition("[Unit]")[2])
    assert read
    assert [path for path in read if not (tmp_path / path[1:]).is_file()] == []
    assert {path.name for path in (tmp_path / "etc/systemd/system").iterdir()} == {
        *(f"{name}.service" for name in SERVICES),
        *(f"{name}.timer" for name in TIMERS),
        "tally@.service",
    }


def test_the_worker_has_time_to_drain() -> None:
    """By the signal that drains, sent to the main process alone."""
    service = unit("tally.service")
    (limit,) = service["TimeoutStopSec"]

    assert seconds(limit) >= Settings.model_validate({}).drain_seconds + 10
    assert (service["KillSignal"], service["KillMode"]) == (["SIGTERM"], ["mixed"])
    assert service["ExecReload"] == ["/bin/sh -c 'kill -HUP ${MAINPID}'"]


@pytest.mark.parametrize("unit", ["tally.service", "tally@.service"])
def test_a_worker_may_open_the_files_that_it_needs(unit: str) -> None:
    """The comment has what the worker itself computes."""
    text = (FOLDER / unit).read_text(encoding="utf-8")
    (said,) = re.findall(r"# ([0-9,]+) channels need ([0-9]+) files", text)
    (limit,) = re.findall("^LimitNOFILE=([0-9]+)$", text, re.MULTILINE)
    channels, files = (int(number.replace(",", "")) for number in said)
    names = Names(tuple(map(str, range(channels))))

    assert needed_files(names, Settings().channels_per_subscription) == files <= int(limit)


def test_a_failure_is_tried_again() -> None:
    """Later each time, and for ever; a wrong configuration is not."""
    service = unit("tally.service")

    assert service["Restart"] == ["on-failure"]
    assert service["RestartPreventExitStatus"] == [str(int(ExitCode.USAGE))]
    assert service["StartLimitIntervalSec"] == ["0"]
    assert seconds(service["RestartSec"][0]) < seconds(service["RestartMaxDelaySec"][0])


def test_verify_begins_after_reconcile() -> None:
    """Also if the first takes as long as it may; a late second one waits."""
    begins = {}
    for name in TIMERS:
        (moment,) = unit(f"{name}.timer")["OnCalendar"]
        hour, minute, second = re.fullmatch(r"\*-\*-\* (\d\d):(\d\d):(\d\d) UTC", moment).groups()  # type: ignore[union-attr]
        begins[name] = int(hour) * 3600 + int(minute) * 60 + int(second)
        assert (FOLDER / f"{name}.service").exists()

    (limit,) = unit("tally-reconcile.service")["TimeoutStartSec"]
    assert begins["tally-reconcile"] + seconds(limit) <= begins["tally-verify"]
    assert "tally-reconcile.service" in unit("tally-verify.service")["After"][0].split()


def test_the_user_is_created(tmp_path: Path) -> None:
    """By systemd-sysusers, here in a root folder of its own."""
    made = (FOLDER / "tally.sysusers.conf").read_text(encoding="utf-8")
    assert {unit(f"{name}.service")["User"][0] for name in SERVICES} == set(
        re.findall(r"^u (\S+) ", made, re.MULTILINE)
    )

    if not shutil.which("systemd-sysusers") or os.geteuid():
        pytest.skip("no systemd-sysusers on this machine, or not root")
    (tmp_path / "etc").mkdir()
    made_users = run("systemd-sysusers", f"--root={tmp_path}", FOLDER / "tally.sysusers.conf")
    assert made_users.returncode == 0, made_users.stderr
    users = (tmp_path / "etc/passwd").read_text(encoding="utf-8")
    assert re.search(r"^tally:.*:/var/lib/tally:", users, re.MULTILINE)
