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
    from multivae import models

    config = getattr(models, f"{case.model}Config")(
        n_modalities=len(case.config["input_dims"]), **case.config
    )
    networks = (make_networks(case, classes) for classes in (case.encoders, case.decoders))
    model = getattr(models, case.model)(config, *networks)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    params = {name: torch.from_numpy(x) for name, x in make_params(shapes).items()}
    model.load_state_dict(params)
    return model, shapes


def make_networks(case: Case, classes: dict | None) -> dict | None:
    """Returns MultiVae's networks of these classes."""
    from multivae.models.base.base_config import BaseAEConfig
    from multivae.models.nn import cub, default_architectures, mmnist, svhn

    modules = (cub, default_architectures, mmnist, svhn)
    known = {name: value for module in modules for name, value in vars(module).items()}
    shared, private = case.config["latent_dim"], case.config.get("modalities_specific_dim", 0)

    def make(name, of):
        if of == "EncoderResnetMMNIST":
            return known[of](private, shared)
        if of == "DecoderResnetMMNIST":
            return known[of](shared + private)
        size = shared + private if of.startswith("Decoder") else shared
        args = {"latent_dim": size, "style_dim": private}
        return known[of](BaseAEConfig(input_dim=case.config["input_dims"][name], **args))

    return classes and {name: make(name, of) for name, of in classes.items()}


def split_noise(case: Case, noise: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Returns the noise in MultiVae's order: of each expert u, its own w, and the other w."""
    shared, size = case.config["latent_dim"], case.config.get("modalities_specific_dim")
    if size is None:
        return list(noise.values())
    ordered = []
    for number, draws in enumerate(noise.values()):
        u, *private = np.split(draws, range(shared, draws.shape[-1], size), axis=-1)
        ordered += [u, private.pop(number), *private]
    return ordered


def feed(model, noise: list[np.ndarray]) -> list:
    """Makes the model draw its latents with this noise; the list returned collects the draws."""
    import torch

    tensors, drawn = itertools.cycle(torch.from_numpy(x) for x in noise), []
    names = [name for name in ("post_dist", "prior_dist", "latent_dist") if hasattr(model, name)]

    class Fed(getattr(model, names[0])):
        def rsample(self, sample_shape):
            drawn.append(self.loc + self.scale * next(tensors))
            return drawn[-1]

    for name in names:
        setattr(model, name, Fed)
    return drawn


def compute(case: Case, model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns MultiVae's posteriors, log weights, loss, and reconstructions of one draw."""
    import torch
    from multivae.data.datasets.base import DatasetOutput

    def group(prefix):
        return {k.removeprefix(prefix): v for k, v in inputs.items() if k.startswith(prefix)}

    tensors = {name: torch.from_numpy(x) for name, x in group("data/").items()}
    masks = {name: torch.from_numpy(x) for name, x in group("mask/").items()}
    batch = DatasetOutput(data=tensors, **({"masks": masks} if masks else {}))
    values = encode(case, model, DatasetOutput(data=tensors)) | priors(case, model)
    drawn = feed(model, split_noise(case, group("noise/")))
    by_case = weigh if case.model == "MMVAE" else weigh_private
    posteriors, decoded, log_w, loss = by_case(model, batch)
    values |= {"loss": loss, "z": torch.cat([x[0] for x in first_draws(case, drawn)], dim=-1)}
    first = next(iter(tensors))
    for name, (loc, scale) in posteriors.items():
        values |= {f"loc/{name}": loc, f"scale/{name}": scale, f"log_w/{name}": log_w[name]}
        values[f"decoded/{name}"] = decoded[first][name][0]
    return {name: x.detach().numpy() for name, x in values.items()}


def first_draws(case: Case, drawn: list) -> list:
    """Returns the first expert's draws of [u, w_1, ..., w_M]."""
    is_private = "modalities_specific_dim" in case.config
    return drawn[: 1 + is_private * len(case.config["input_dims"])]


def weigh(model, batch) -> tuple:
    """Returns an MMVAE's posteriors, reconstructions, log weights and loss."""
    output = model(batch, detailed_output=True)
    log_w, _ = model.compute_k_lws(output.qz_xs, output.zss, output.recon, batch)
    posteriors = {name: (q.loc, q.scale) for name, q in output.qz_xs.items()}
    return posteriors, output.recon, log_w, output.loss


def weigh_private(model, batch) -> tuple:
    """Returns an MMVAE+'s or CMVAE's posteriors of [u, w], and the rest as ``weigh`` does."""
    import torch

    loss = model(batch).loss
    *parts, decoded = model._compute_posteriors_and_embeddings(batch, detach=False)
    # MMVAEPlus returns the draws first.
    posteriors, draws = reversed(parts) if model.model_name == "MMVAEPlus" else parts
    log_w = model._compute_k_lws(posteriors, draws, decoded, batch)[0]
    joined = {
        name: [torch.cat([getattr(q[latent], a) for latent in "uw"], -1) for a in ("loc", "scale")]
        for name, q in posteriors.items()
    }
    return joined, decoded, log_w, loss


def encode(case: Case, model, batch) -> dict:
    """Returns mean latents given one modality, and given all where they are no random choice."""
    import torch

    values = {}
    for given in [*case.config["input_dims"], *(["all"] if case.model == "MMVAEPlus" else [])]:
        output = model.encode(batch, cond_mod=given, return_mean=True)
        private = output.modalities_z.values() if "modalities_z" in output else ()
        values[f"encoded/{given}"] = torch.cat([output.z, *private], dim=-1)
    return values


def priors(case: Case, model) -> dict:
    """Returns the parameters of the priors: scales, and weights and locations of clusters."""
    import torch

    def scale(raw):
        return model._log_var_to_std(raw)

    if case.model == "MMVAE":
        return {"prior/scale": model.pz_params[1][0]}
    if case.model == "MMVAEPlus":
        raws = dict(model.logvars_priors)
        values = {"prior/scale": scale(raws.pop("shared"))[0]}
    else:
        raws = dict(model.r_logvars_priors)
        values = {
            "prior/scale": scale(model.w_logvar_prior)[0],
            "prior/weights": model.pc_params,
            "prior/cluster_loc": torch.cat([*model.mean_clusters]),
            "prior/cluster_scale": scale(torch.cat([*model.logvar_clusters])),
        }
    return values | {f"private/{name}": scale(raw)[0] for name, raw in raws.items()}


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
        np.savez_compressed(out / f"{name}.npz", **inputs, **compute(case, model, inputs))
        described = {"config": json.loads(model.model_config.to_json_string()), "shapes": shapes}
        (out / f"{name}.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
