"""Arguments of the command line: times, numbers, modes."""

from __future__ import annotations

import argparse
import re


def duration(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 30s, 15m, 1h, 2d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a mode such as 600 or 0640")
    return int(text, 8)
