"""One process of a small run, for test_processes.py.

python one_of_several.py OUT NUM_STEPS [NUM_PROCESSES PROCESS_ID PORT]
"""

import os
import sys
from pathlib import Path

import numpy as np
from helpers.small_model import DIMS, make_model

import jax  # isort: skip
import mmvae_jax as mm
from mmvae_jax import loggers


def main() -> None:
    out, num_steps, *rest = sys.argv[1:]
    num_processes, process_id, port = map(int, rest or (1, 0, 0))
    if num_processes > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{port}",
            num_processes,
            process_id,
            heartbeat_timeout_seconds=10,
            shutdown_timeout_seconds=10,
        )
    rng = np.random.default_rng(0)
    data = {name: rng.random((48, *dim), np.float32) for name, dim in DIMS.items()}
    data["c"] = np.eye(5, dtype=np.float32)[rng.integers(0, 5, (48, 3))]
    dataset = mm.MultimodalArrays(data, mask={name: rng.random(48) < 0.7 for name in data})
    state = mm.create_train_state(
        make_model(K=4),
        mm.make_optimizer(1e-3),
        key=jax.random.key(0),
        mesh=mm.make_mesh(particle=2),
        fsdp=True,
    )
    try:
        result = mm.fit(
            state,
            dataset,
            batch_size=16,
            num_steps=int(num_steps),
            eval_data=dataset,
            eval_every=20,
            checkpoint_dir=Path(out) / "checkpoints",
            save_every=10,
            resume=True,
            callbacks=[loggers.jsonl(Path(out) / "history.jsonl")],
            log_every=5,
            progress=False,
        )
    except mm.LostProcessError as error:
        print(error, flush=True)
        os._exit(3)
    model = result.state.model()  # gathered from all processes
    if process_id == 0:
        total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(model.encoders)))
        print(f"finished {total:.6f}", flush=True)


if __name__ == "__main__":
    main()
