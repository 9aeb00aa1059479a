"""Blinded rating of sentences by people, as FAME-Net's Table 6: coherence, fluency and relevance, each from 1 to 5.

``sheet`` draws clips that all systems answered and writes one CSV for each rater, in an order of his own, without a hint
at who wrote what; the key is a file apart. Where systems wrote the same words, they are rated once. ``score`` joins the
filled sheets with the key: mean of every system with an interval, and the raters' agreement.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import secrets
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.evaluation.predictions import read_predictions
from training.metrics.base import MetricError

CRITERIA: Final = ("coherence", "fluency", "relevance")
LOWEST, HIGHEST = 1, 5
#: What the raters are told; the paper's wording of the three.
GUIDE: Final = {
    "coherence": "internal consistency of logic, meaning and structure",
    "fluency": "grammatical and natural language",
    "relevance": "the exact reason for the emotion is in it",
}
FIELDS: Final = ("code", "context", "sentence", *CRITERIA)
#: Draws of the bootstrap over clips behind the 95 % intervals.
DRAWS: Final = 1000


class RatingError(ValueError):
    """Sheets that cannot be made or scored; the message names the file, the row and what was expected."""


@dataclass(frozen=True)
class Sentence:
    """What systems wrote about a clip. ``systems``: all that wrote these words."""

    code: str
    clip_id: str
    text: str
    systems: tuple[str, ...]


@dataclass(frozen=True)
class Rated:
    """Mean of a system in one criterion with its 95 % interval (bootstrap over clips)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Scores:
    """``systems``: name -> criterion -> mean; ``agreement``: criterion -> Krippendorff's alpha, NaN where undefined."""

    systems: Mapping[str, Mapping[str, Rated]]
    agreement: Mapping[str, float]
    raters: int
    clips: int


def draw(answers: Mapping[str, Mapping[str, str]], count: int, seed: int) -> list[Sentence]:
    """The sentences to rate of ``count`` clips that all systems answered. ``answers``: system -> clip -> text.

    The codes are random and tell nothing, whatever the seed. Raises :class:`RatingError` for fewer than one common clip.
    """
    if not answers:
        raise RatingError("no system to rate; name at least one as NAME=FILE")
    common = sorted(set.intersection(*(set(of) for of in answers.values())))
    if not common or count < 1:
        raise RatingError(f"expected clips that every system answered, found {len(common)}; asked for {count} of them")
    chosen = random.Random(seed).sample(common, min(count, len(common)))
    sentences = []
    for clip_id in chosen:
        writers: dict[str, list[str]] = defaultdict(list)
        for system in sorted(answers):
            writers[" ".join(answers[system][clip_id].split())].append(system)
        sentences += [Sentence(secrets.token_hex(4), clip_id, text, tuple(who)) for text, who in writers.items()]
    return sentences


def write_sheets(
    out: Path, sentences: Sequence[Sentence], contexts: Mapping[str, str], raters: Sequence[str], seed: int
) -> list[Path]:
    """``sheet_RATER.csv`` for each rater, ``key.json`` and ``guide.txt`` in ``out``; returns the sheets.

    Raises :class:`RatingError` where there are sheets already: filled ones must not be lost.
    """
    if len(set(raters)) != len(raters) or not raters:
        raise RatingError(f"expected a name of his own for each rater, got: {', '.join(raters) or 'none'}")
    out.mkdir(parents=True, exist_ok=True)
    if there := sorted([*out.glob("sheet_*.csv"), *out.glob("key.json")]):
        raise RatingError(f"{there[0]} is there already and may be filled in; name another folder")
    key = {s.code: {"clip_id": s.clip_id, "systems": list(s.systems), "text": s.text} for s in sentences}
    (out / "key.json").write_text(json.dumps(key, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rules = [f"{name}: {GUIDE[name]}" for name in CRITERIA]
    (out / "guide.txt").write_text(
        "\n".join([f"Give every sentence a whole number from {LOWEST} (worst) to {HIGHEST} (best) for", *rules]) + "\n",
        encoding="utf-8",
    )
    sheets = []
    for number, rater in enumerate(raters):
        order = list(sentences)
        random.Random(f"{seed} {number}").shuffle(order)
        sheet = out / f"sheet_{rater}.csv"
        with sheet.open("w", encoding="utf-8-sig", newline="") as file:  # the mark tells spreadsheets the encoding
            table = csv.writer(file)
            table.writerow(FIELDS)
            for s in order:
                table.writerow([s.code, _cell(contexts.get(s.clip_id, s.clip_id)), _cell(s.text), *([""] * 3)])
        sheets.append(sheet)
    return sheets


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f" {text}" if text.startswith(("=", "+", "-", "@")) else text


def read_sheet(sheet: Path, codes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Code -> criterion -> rating. Raises :class:`RatingError` for what is missing, unknown, double or out of range."""
    try:
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise RatingError(f"{sheet}: cannot be read as CSV in UTF-8: {error}") from None
    found: dict[str, dict[str, int]] = {}
    for number, row in enumerate(rows, 2):
        code = (row.get("code") or "").strip()
        if code not in codes or code in found:
            raise RatingError(
                f"{sheet}, line {number}: code {code!r} is {'twice there' if code in found else 'unknown'}"
            )
        found[code] = {name: _rating(sheet, number, name, row.get(name)) for name in CRITERIA}
    if left := [code for code in codes if code not in found]:
        raise RatingError(f"{sheet}: {len(left)} sentences are not rated, the first is {left[0]}")
    return found


def _rating(sheet: Path, line: int, name: str, value: str | None) -> int:
    text = (value or "").strip()
    if not text.isdecimal() or not LOWEST <= int(text) <= HIGHEST:
        raise RatingError(
            f"{sheet}, line {line}: {name} must be a whole number from {LOWEST} to {HIGHEST}, got {text!r}"
        )
    return int(text)


def score(key: Mapping[str, Mapping[str, Any]], sheets: Sequence[Mapping[str, Mapping[str, int]]]) -> Scores:
    """Means over raters and clips, and agreement. ``key``: as ``key.json``; ``sheets``: as :func:`read_sheet`."""
    if not sheets or not key:
        raise RatingError("expected a key and at least one filled sheet")
    codes = list(key)
    values = np.array(
        [[[sheet[code][name] for name in CRITERIA] for code in codes] for sheet in sheets], float
    )  # [R, S, 3]
    of_clip: dict[str, dict[str, np.ndarray[Any, Any]]] = defaultdict(dict)
    for place, code in enumerate(codes):
        for system in key[code]["systems"]:
            of_clip[system][key[code]["clip_id"]] = values[:, place].mean(0)
    systems = {}
    for system, clips in of_clip.items():
        table = np.stack(list(clips.values()))  # [clips, 3]
        draws = np.random.default_rng(0).integers(0, len(table), (DRAWS, len(table)))
        low, high = np.quantile(table[draws].mean(1), (0.025, 0.975), axis=0)
        mean = table.mean(0)
        systems[system] = {n: Rated(float(mean[i]), float(low[i]), float(high[i])) for i, n in enumerate(CRITERIA)}
    agreement = {name: krippendorff_alpha(values[:, :, i]) for i, name in enumerate(CRITERIA)}
    return Scores(systems, agreement, len(sheets), len({entry["clip_id"] for entry in key.values()}))


def krippendorff_alpha(ratings_RN: Any) -> float:  # noqa: N803 - the shape is in the name
    """Krippendorff's alpha for ordinal ratings ``[raters, items]``, NaN: not rated; NaN where it is not defined.

    Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011. 1: full agreement, 0: that of chance.
    """
    ratings = np.asarray(ratings_RN, float)
    categories = np.unique(ratings[~np.isnan(ratings)])
    if len(ratings) < 2 or len(categories) < 2:
        return float("nan")
    coincidence = np.zeros((len(categories), len(categories)))
    for item in ratings.T:
        given = np.searchsorted(categories, item[~np.isnan(item)])
        for a, b in permutations(range(len(given)), 2):
            coincidence[given[a], given[b]] += 1 / (len(given) - 1)
    margin = coincidence.sum(1)
    total = margin.sum()
    cumulative = np.cumsum(margin)
    # The distance of two ranks: everything that was given between them, half of the two themselves.
    middle = cumulative - margin / 2
    distance = (middle[:, None] - middle[None, :]) ** 2
    expected = (np.outer(margin, margin) * distance).sum()
    return float(1 - (total - 1) * (coincidence * distance).sum() / expected) if expected else float("nan")


def report(scores: Scores) -> str:
    """Markdown table of all systems, the best first."""
    head = ["system", *CRITERIA]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    order = sorted(scores.systems.items(), key=lambda item: -sum(r.mean for r in item[1].values()))
    for system, of in order:
        cells = [f"{of[n].mean:.2f} [{of[n].low:.2f}, {of[n].high:.2f}]" for n in CRITERIA]
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    alpha = ", ".join(f"{name} {value:.2f}" for name, value in scores.agreement.items())
    return "\n".join([*lines, "", f"{scores.raters} raters, {scores.clips} clips; Krippendorff's alpha: {alpha}", ""])


def main(argv: Sequence[str] | None = None) -> int:
    """``emo eval rate``; returns the exit code."""
    options = _parser().parse_args(argv)
    try:
        if options.action == "sheet":
            return _sheet(options)
        key = json.loads((options.folder / "key.json").read_text(encoding="utf-8"))
        sheets = options.sheets or sorted(options.folder.glob("sheet_*.csv"))
        print(report(score(key, [read_sheet(sheet, list(key)) for sheet in sheets])))
    except (RatingError, MetricError, OSError, json.JSONDecodeError) as error:
        print(f"emo eval rate: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emo eval rate", description=__doc__, formatter_class=_Raw)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    sheet = actions.add_parser("sheet", help="write the sheets and the key")
    sheet.add_argument(
        "systems", nargs="+", metavar="NAME=FILE", help="predictions of a system, as emo train writes them"
    )
    sheet.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    sheet.add_argument("--clips", type=int, default=100, help="how many clips (100, as the paper)")
    sheet.add_argument("--raters", nargs="+", default=["1", "2", "3"], help="names of the raters (1 2 3)")
    sheet.add_argument("--seed", type=int, default=0)
    counted = actions.add_parser("score", help="join the filled sheets with the key")
    counted.add_argument("folder", type=Path, help="folder of sheet")
    counted.add_argument("sheets", type=Path, nargs="*", help="filled sheets (those in the folder)")
    return parser


_Raw = argparse.RawDescriptionHelpFormatter


def _sheet(options: argparse.Namespace) -> int:
    answers: dict[str, dict[str, str]] = {}
    contexts: dict[str, str] = {}
    for entry in options.systems:
        name, equals, file = entry.partition("=")
        if not (name and equals and file) or name in answers:
            raise RatingError(f"expected NAME=FILE, each name once; got {entry!r}")
        found = read_predictions(Path(file))
        answers[name] = {clip: prediction.text for clip, prediction in found.items()}
        contexts.update({clip: prediction.context or clip for clip, prediction in found.items()})
    sentences = draw(answers, options.clips, options.seed)
    for sheet in write_sheets(options.out, sentences, contexts, options.raters, options.seed):
        print(sheet)
    print(f"{options.out / 'key.json'}: not for the raters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
