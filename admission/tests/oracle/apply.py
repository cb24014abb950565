#!/usr/bin/env python3
"""Applies JSON patches with python-jsonpatch: lines {"document": ..., "patch": [...]} in, patched documents out."""
import json
import sys

import jsonpatch

for line in sys.stdin:
    case = json.loads(line)
    print(json.dumps(jsonpatch.apply_patch(case["document"], case["patch"])), flush=True)
