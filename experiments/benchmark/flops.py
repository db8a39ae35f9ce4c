"""How many floating-point operations a task takes, by what its networks take.

A step decodes the K particles of M experts of every example into all modalities, and encodes every
modality once. A pass backward costs two forward. With E and D the forward operations of all
encoders and decoders over a batch, and s the share of particles that is back-propagated, a step is

    dense    3 E + 3 D
    others   3 E + D + 3 s D      forward over all, then forward and backward over the kept

and a joint likelihood, of K particles per example in all, is E + D. What a program does beyond its
networks, densities and Adam among it, is not counted.
"""


def forward_flops(
    task: str, *, encoders: float, decoders: float, num_experts: int, K: int, batch: int
) -> tuple[float, float]:
    """E and D of a batch.

    Args:
      task: step or nll.
      encoders: operations of all encoders for one example.
      decoders: operations of all decoders for one particle.
      num_experts: M.
      K: particles, per expert of a step and in all of a joint likelihood.
      batch: examples.
    """
    num_particles = K * batch * (num_experts if task == "step" else 1)
    return encoders * batch, decoders * num_particles


def model_flops(
    encode: float, decode: float, *, backward: str | None, share: float | None
) -> float | None:
    """Operations of one repetition; None where the share is not known.

    Args:
      encode: E.
      decode: D.
      backward: what the step back-propagates; None for a joint likelihood.
      share: part of the particles that is back-propagated.
    """
    if backward is None:
        return encode + decode
    if backward == "dense":
        return 3 * (encode + decode)
    return None if share is None else 3 * encode + (1 + 3 * share) * decode
