"""The cost of a step on several devices: formulas against compiled programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.scaling import COLLECTIVES, ScalingConfig, collectives

ROOT = Path(__file__).parents[2]
# A process without the tests' type checks, which compiled programs do not pass.
PROGRAM = """
import sys
from pathlib import Path
from experiments import scaling

scaling.main(scaling.ScalingConfig(K=4, batch=8, devices=(1, 2), out=Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_formulas_agree_with_programs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": ""}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    meshes = [(row["data"], row["particle"], row["fsdp"]) for row in rows]
    assert meshes == [(1, 1, False), (2, 1, False), (2, 1, True), (1, 2, False)]
    printed = [line.split()[:3] for line in done.stdout.splitlines()]
    assert printed[-4:] == [[str(value) for value in mesh] for mesh in meshes]
    for expected, found in ((row["formula"], row["program"]) for row in rows):
        # The formula leaves out the densities and Adam, at least 3 N operations per device.
        assert expected["flops"] < 1.02 * found["flops"]
        assert found["flops"] < 1.6 * expected["flops"]
        assert found["state"] == pytest.approx(expected["state"], rel=1e-3)
        for name in COLLECTIVES[:3]:
            # The formula leaves out scalars and means of terms.
            assert expected[name] <= found[name] <= expected[name] + 4000
    assert any(row["program"]["reduce-scatter"] for row in rows)


def test_collectives_are_read_from_the_text_of_a_program():
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
        ({"case": "mnist"}, "case is 'mnist'"),
        ({"K": 6, "devices": (1, 4)}, "K is 6"),
        ({"batch": 12, "devices": (8,)}, "batch is 12"),
    ],
)
def test_wrong_sizes_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        ScalingConfig(**fields)
