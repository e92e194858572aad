"""Speech without interleaving for ``replica.py``: the same utterances, spoken as units with no words among them.

Writes a data folder like the tiny world's in which ``tiny_tts`` says only units.

    python benchmarks/units_only.py OUTPUT
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet

from slm_plugin.vocabulary import text_to_units, units_to_text

DATA = Path("examples/tiny/data")
FILE = "speech_units_only.parquet"


def main() -> None:
    """Copy the data and take the words out of the speech."""
    output = Path(sys.argv[1])
    output.mkdir(parents=True, exist_ok=True)
    for path in DATA.glob("*.parquet"):
        shutil.copy(path, output)
    table = parquet.read_table(DATA / "speech.parquet")
    spoken = [units_to_text(text_to_units(text)) for text in table["interleaf"].to_pylist()]
    column = table.schema.get_field_index("interleaf")
    parquet.write_table(table.set_column(column, "interleaf", arrow.array(spoken)), output / FILE)
    information = json.loads((DATA / "dataset_info.json").read_text(encoding="utf-8"))
    information["tiny_tts"]["file_name"] = FILE
    (output / "dataset_info.json").write_text(json.dumps(information, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
