"""Starts many tasks at once, and prints how often each result came.

``python report.py CHANNEL MESSAGE HOW_MANY``
"""

import json
import sys
from collections import Counter

from celery import group

from worker import total, total_in_a_loop  # type: ignore[attr-defined] # the file beside this one

channel, message, how_many = sys.argv[1:]
tasks = [total.s(channel, message), total_in_a_loop.s(channel, message)]
results = group(tasks * (int(how_many) // 2)).apply_async().get(timeout=60, propagate=False)
sys.stdout.write(json.dumps(Counter(map(str, results))))
