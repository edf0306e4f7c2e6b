"""Tests that need a program which no Python package brings are collected where it is installed."""

import shutil

collect_ignore = [] if shutil.which("prometheus") else ["test_prometheus.py"]
