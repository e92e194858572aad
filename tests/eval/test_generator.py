"""Greedy batched answers."""

from __future__ import annotations
