"""The names that people give: which texts are names, as a pattern and in words."""

from __future__ import annotations

MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ALIAS = r"[a-z][a-z0-9_-]{0,39}"
POOL = r"[a-z0-9_-]{1,40}"
PROJECT = r"[a-z0-9][a-z0-9-]{0,39}"
MEMBER = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"
ID = r"[A-Za-z0-9_-]{1,80}"
SCHEDULE_PREFIX = "sched_"
SCHEDULE = MODEL
PURPOSE = r"[a-z0-9_-]{1,64}"
TAG = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
EVENT = r"\d{1,18}(-end)?"
PLAIN = r"[^\u0000-\u001f\u007f-\u009f]*"
EMAIL = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,189}"
DURATION = r"(?:\d{1,9}(?:\.\d{1,6})?[smhd])+"

IN_WORDS = {
    f"^{MODEL}$": "1 to 96 letters, digits, '.', '_' and '-', of which the first is a letter or a "
    "digit, such as news-2",
    f"^{ALIAS}$": "1 to 40 lower-case letters, digits, '_' and '-', of which the first is a "
    "letter, such as champion",
    f"^{POOL}$": "1 to 40 lower-case letters, digits, '_' and '-', such as gpu",
    f"^{PROJECT}$": "1 to 40 lower-case letters, digits and '-', of which the first is a letter or "
    "a digit, such as team-b",
    f"^{MEMBER}$": "1 to 40 letters, digits, '_' and '-', of which the first is a letter or a "
    "digit, such as train",
    f"^{ID}$": "an id: 1 to 80 letters, digits, '_' and '-'",
    f"^{PURPOSE}$": "1 to 64 lower-case letters, digits, '_' and '-', such as batch",
    f"^{EMAIL}$": "an address such as ops@example.com",
    f"^{TAG}$": "1 to 64 letters, digits, '.', '_' and '-', of which the first is a letter or a "
    "digit, such as nightly",
    f"^{EVENT}$": "the id of an event, such as 12 or 12-end",
    f"^{DURATION}$": "a duration such as 90s, 30m, 2h or 1d12h",
    f"^{PLAIN}$": "a text without control characters",
    r"^\d{1,18}$": "a whole number of at most 18 digits",
}
"""What a text must be that is checked by one of these patterns."""
