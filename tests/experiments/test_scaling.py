"""What a step should cost on several devices is what its program says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.scaling import Config, collectives, meshes

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_formulas_agree_with_programs():
    args = "--K 4 --batch 8 --devices 1 2 --json"
    command = [sys.executable, "-m", "experiments.scaling", *args.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["data"], row["particle"], row["fsdp"]) for row in rows] == meshes((1, 2))
    for row in rows:
        said, found = row["predicted"], row["found"]
        # Densities and Adam are not in the formula: 3 N operations and more, on every device.
        assert said["flops"] < 1.02 * found["flops"]
        assert found["flops"] < 1.6 * said["flops"]
        assert found["kept"] == pytest.approx(said["kept"], rel=1e-3)
        for name in ("all-reduce", "all-gather", "reduce-scatter"):
            assert said[name] <= found[name] <= said[name] + 4000  # scalars, means of terms
    assert any(row["found"]["reduce-scatter"] for row in rows)


def test_exchanges_are_read_from_a_program():
    text = """
      %a = (f32[4,2]{1,0}, f32[]) all-reduce(%x, %y), replica_groups={}
      %b = f32[8]{0} all-gather(%z), dimensions={0}
      %c = u32[2]{0} collective-permute(%w)
      %d = f32[4]{0} add(%x, %all-reduce)
    """
    assert collectives(text) == {"all-reduce": 36, "all-gather": 32, "collective-permute": 8}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"case": "mnist"}, "case is 'mnist': choose one of"),
        ({"K": 6, "devices": (1, 4)}, "K is 6: give a multiple of each"),
        ({"batch": 12, "devices": (8,)}, "batch is 12: give a multiple"),
    ],
)
def test_wrong_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Config(**fields)
