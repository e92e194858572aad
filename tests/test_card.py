"""``slm.json`` and the fingerprint of a model folder."""

from __future__ import annotations

import pytest

from slm_plugin import card
from slm_plugin.errors import DataError


def test_a_card_reads_back_with_the_versions_in_force(tmp_path):
    card.write(tmp_path / "new", {"stage": "asr", "replay": {"text": 3}})
    found = card.read(tmp_path / "new")
    assert found["stage"] == "asr"
    assert found["replay"] == {"text": 3}
    assert found["versions"]["slm_plugin"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["slm.json"]


def test_a_folder_without_a_card_has_an_empty_one(tmp_path):
    assert card.read(tmp_path) == {}


def test_a_damaged_card_is_named(tmp_path):
    (tmp_path / "slm.json").write_text("{")
    with pytest.raises(DataError, match=r"slm\.json is damaged"):
        card.read(tmp_path)


def test_the_fingerprint_follows_content_and_not_place(tmp_path):
    for name, last in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"0" * 300_000 + last)
    a, b, c = (card.fingerprint(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
    assert len(a) == 12
    assert card.fingerprint(tmp_path / "nowhere") == ""
