"""The options and arguments of the commands, as ``--help`` shows them."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from typer import Argument, Option

from worker import __version__
from worker.domain.duration import parse_duration
from worker.domain.shards import Shard

LONGEST_DEMO_SECONDS: Final = 3_600


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"tally {__version__}")
        raise typer.Exit


def _demo_seconds(text: str | float) -> float:
    """Return the seconds of a demo, which has bounds."""
    try:
        seconds = parse_duration(str(text))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None
    if not 1 <= seconds <= LONGEST_DEMO_SECONDS:
        raise typer.BadParameter(f"{text} is not in the range from 1s to 1h.")
    return seconds


def _shard(text: str) -> Shard:
    try:
        return Shard.read(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None


Version = Annotated[
    bool,
    Option(
        "--version",
        is_eager=True,
        callback=_print_version,
        help="Print the version, and end.",
    ),
]
AllowEviction = Annotated[
    bool,
    Option("--allow-eviction", help="Accept a Redis that may delete counts when it is full."),
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object.")]
Channels = Annotated[
    list[str],
    Argument(
        metavar="CHANNEL",
        default_factory=list,
        show_default=False,
        help="Default: all configured and all ever seen.",
    ),
]
OneShard = Annotated[
    Shard | None,
    Option(
        "--shard",
        parser=_shard,
        metavar="I/N",
        help="Only the channels of one shard of so many, such as 0/3.",
    ),
]
NamedChannels = Annotated[
    list[str],
    Argument(metavar="CHANNEL", show_default=False, help="Which channels."),
]
Users = Annotated[
    list[str],
    Argument(
        metavar="UUID",
        show_default=False,
        help="Which users; - reads them from standard input, one a line.",
    ),
]
Undo = Annotated[
    bool,
    Option("--undo", help="Count these users again. tally reconcile gets their reactions back."),
]
Yes = Annotated[bool, Option("--yes", help="Do not ask.")]
Since = Annotated[
    str | None,
    Option(
        metavar="MOMENT",
        help="From here: a timetoken, a date, or an age such as 90 (seconds), 7d or 1h30m.",
    ),
]
Until = Annotated[
    str | None,
    Option(metavar="MOMENT", help="Up to here, exclusive: written like --since."),
]
Full = Annotated[
    bool,
    Option("--full", help="Everything PubNub keeps: the default without --since."),
]
DryRun = Annotated[
    bool,
    Option("--dry-run", help="Write nothing; say what would be done."),
]
Force = Annotated[bool, Option("--force", help="Ignore the prune limit.")]
SampleSize = Annotated[
    float,
    Option(
        min=0,
        max=1,
        help="Which part of each channel's past to look at, from 0 to 1.",
    ),
]
MetricsFile = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Write what was found there, for node_exporter's textfile collector.",
    ),
]
LivenessOnly = Annotated[
    bool,
    Option("--live", help="Only whether its loops turn (/livez), not whether it is ready."),
]
Port = Annotated[int, Option(min=0, max=65535, help="0 takes a free one.")]
Host = Annotated[str, Option(help="The address to listen on.")]
AccessManager = Annotated[
    bool,
    Option("--access-manager", help="Refuse requests without a signature or a token."),
]
FaultSeed = Annotated[int, Option(help="Makes the faults repeatable.")]
DemoSeed = Annotated[int, Option(help="Makes crowd and faults repeatable.")]
DemoSeconds = Annotated[
    float,
    Option(
        parser=_demo_seconds,
        metavar="TIME",
        help="How long the crowd reacts: 90, 90s, 15m or 1h.",
    ),
]
DemoRate = Annotated[
    float,
    Option(min=0.1, max=10_000, help="Reactions a second, all users together."),
]
DemoAccess = Annotated[
    Literal["open", "signatures", "tokens"],
    Option(help="How all requests pass Access Manager. It is off if open."),
]
FaultRates = Annotated[
    list[str] | None,
    Option(
        "--fault",
        metavar="NAME=RATE",
        help="A fault and its rate, 0 to 1; repeatable.",
    ),
]
Me = Annotated[
    str | None,
    Option(metavar="UUID", help="Mark what this user chose."),
]
FirstUsers = Annotated[
    int | None,
    Option(
        min=0,
        max=50,
        show_default=False,
        help="How many first users to name. Default: 3 on a terminal and with --json.",
    ),
]
WhoChose = Annotated[
    str | None,
    Option(
        "--who",
        metavar="VALUE",
        help="Print everybody who chose this value instead, oldest first.",
    ),
]
Channel = Annotated[str, Argument(metavar="CHANNEL", help="For example: room.")]
MessageTimetoken = Annotated[
    str,
    Argument(
        metavar="MESSAGE_TIMETOKEN",
        help="PubNub's number of the message, for example 17600000001728660.",
    ),
]
OneChannel = Annotated[
    str | None,
    Argument(
        metavar="CHANNEL",
        show_default=False,
        help="Default: the 50 channels that changed last.",
    ),
]
OfType = Annotated[
    str | None,
    Option(metavar="TYPE", help="Count reactions of this type only."),
]
OfValue = Annotated[
    str | None,
    Option(metavar="VALUE", help="Count this value only, for example 👍."),
]
TopLimit = Annotated[int, Option(min=1, max=1_000, help="How many messages.")]
Pattern = Annotated[
    str,
    Argument(
        metavar="PATTERN",
        help="Which channels, as a shell has it: 'news.*'. Quote it.",
    ),
]
OnlyOwed = Annotated[bool, Option("--owed", help="Only channels that are owed a repair.")]
ChannelLimit = Annotated[int, Option(min=1, max=1_000_000, help="How many channels.")]
TailedChannels = Annotated[
    list[str],
    Argument(
        metavar="CHANNEL",
        default_factory=list,
        show_default=False,
        help="Channels, and wildcards such as 'news.*'. Default: every channel, also new ones.",
    ),
]
TailSince = Annotated[
    str | None,
    Option(
        metavar="MOMENT",
        help="First what the journals hold from here on: begin, a date, an age such as 1h30m, "
        "a timetoken, or a position.",
    ),
]
ChangeCount = Annotated[
    int | None,
    Option("--count", min=1, show_default=False, help="End after so many changes."),
]
ExitAtEnd = Annotated[
    bool,
    Option("--exit-at-end", help="Print what the journals hold, and end."),
]
AsJsonLines = Annotated[
    bool,
    Option("--json", help="Print one JSON object a line, also on a terminal."),
]
ChangeFormat = Annotated[
    str | None,
    Option(
        "--format",
        metavar="TEMPLATE",
        help="A line for each change, for example '{channel} {value} {count}'.",
    ),
]
