"""Writes the MultiVae models that the tests compare with.

    python tests/helpers/make_multivae_models.py [FOLDER]

fills ``tests/helpers/multivae_models``, or FOLDER if it is given, and then with ``<case>/`` too,
the models as MultiVae saves them. It needs ``pip install torch multivae``, with MultiVae 1.0.3.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
from helpers.multivae_cases import CASES, STORED, Case, make_inputs, make_params


def make_model(case: Case):
    """Returns MultiVae's model with ``make_params``, and the shapes of its parameters."""
    import torch
    from multivae.models import MMVAE, MMVAEConfig
    from multivae.models.base.base_config import BaseAEConfig
    from multivae.models.nn import cub, default_architectures, mmnist, svhn

    known = {
        name: value
        for module in (cub, default_architectures, mmnist, svhn)
        for name, value in vars(module).items()
    }

    def build(classes):
        dims, latent_dim = case.config["input_dims"], case.config["latent_dim"]
        return classes and {
            name: known[of](BaseAEConfig(input_dim=dims[name], latent_dim=latent_dim))
            for name, of in classes.items()
        }

    config = MMVAEConfig(n_modalities=len(case.config["input_dims"]), **case.config)
    model = MMVAE(config, build(case.encoders), build(case.decoders))
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    params = {name: torch.from_numpy(x) for name, x in make_params(shapes).items()}
    model.load_state_dict(params)
    return model, shapes


def feed(model, noise) -> None:
    """Makes the model draw its latents with the noise of one modality after the other."""
    import torch

    tensors = itertools.cycle(torch.from_numpy(x) for x in noise)

    class Fed(model.post_dist):
        def rsample(self, sample_shape):
            return self.loc + self.scale * next(tensors)

    model.post_dist = Fed


def compute(model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns MultiVae's posteriors, log weights, loss, and reconstructions of one draw."""
    import torch
    from multivae.data.datasets.base import DatasetOutput

    def group(prefix):
        return {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}

    tensors = {name: torch.from_numpy(x) for name, x in group("data/").items()}
    masks = {name: torch.from_numpy(x) for name, x in group("mask/").items()}
    batch = DatasetOutput(data=tensors, **({"masks": masks} if masks else {}))
    feed(model, group("noise/").values())
    output = model(batch, detailed_output=True)
    log_w, _ = model.compute_k_lws(output.qz_xs, output.zss, output.recon, batch)
    first = next(iter(tensors))
    values = {"loss": output.loss, "z": output.zss[first][0]}
    for name, posterior in output.qz_xs.items():
        values |= {f"loc/{name}": posterior.loc, f"scale/{name}": posterior.scale}
        values |= {f"log_w/{name}": log_w[name], f"decoded/{name}": output.recon[first][name][0]}
    return {name: x.detach().numpy() for name, x in values.items()}


def main(folder: Path | None) -> None:
    """Writes every case."""
    from experiments.benchmark.standin import stand_in_for_torchvision

    stand_in_for_torchvision()
    out = folder or STORED
    out.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        model, shapes = make_model(case)
        inputs = make_inputs(case)
        if folder:
            model.save(str(out / name))
        np.savez_compressed(out / f"{name}.npz", **inputs, **compute(model, inputs))
        described = {"config": json.loads(model.model_config.to_json_string()), "shapes": shapes}
        (out / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
