"""Tests that need a GPU are collected if there is one."""

import torch

collect_ignore = [] if torch.cuda.is_available() else ["test_service.py"]
