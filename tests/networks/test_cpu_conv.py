"""Our convolutions against Flax's, and against themselves on devices, chunks and platforms."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from mmvae_jax.networks import Conv, ConvTranspose
from mmvae_jax.networks.cpu_conv import chunks, trilinear
from mmvae_jax.networks.cpu_conv.matrix_products import Window

both = pytest.mark.parametrize(
    ("ours", "flax"),
    [(Conv, nnx.Conv), (ConvTranspose, nnx.ConvTranspose)],
    ids=["Conv", "ConvTranspose"],
)
each = pytest.mark.parametrize("layer", [Conv, ConvTranspose])

# The same products added up in another order: in double precision, in single precision, and in
# single precision over a batch of hundreds, where gradients in parameters reach the hundreds.
DOUBLE = {"rtol": 1e-10, "atol": 1e-11}
SINGLE = {"rtol": 1e-4, "atol": 1e-4}
SINGLE_BATCH = {"rtol": 1e-4, "atol": 1e-3}


def split_layer(cls, *args, **options):
    """Returns a layer's graph definition, and parameters of JAX's default type, with a bias."""
    graphdef, params = nnx.split(cls(*args, rngs=nnx.Rngs(0), **options))
    bias = 0.01 * jax.random.normal(jax.random.key(2), params["bias"].shape)
    params["bias"].set_value(bias)
    return graphdef, jax.tree.map(lambda p: p.astype(float), params)


def images(*shape, dtype=float):
    return jax.random.normal(jax.random.key(1), shape, dtype)


def pullback(graphdef):
    """Returns ``(params, x) -> (y, grads, dx)``: outputs, and gradients of the sum of sin(y)."""

    def run(params, x):
        y, vjp = jax.vjp(lambda params, x: nnx.merge(graphdef, params)(x), params, x)
        return y, *vjp(jnp.cos(y))

    return run


def assert_same(ours, flax, x, *args, **options):
    graphdef, params = split_layer(ours, *args, **options)
    flax_graphdef, _ = split_layer(flax, *args, **options)
    # Compiling is what takes the time here, half as much of it without optimisation.
    run = [
        jax.jit(pullback(g), compiler_options={"xla_backend_optimization_level": 0})
        for g in (graphdef, flax_graphdef)
    ]
    chex.assert_trees_all_close(run[0](params, x), run[1](params, x), **DOUBLE)


# Every pair of a kernel size, a stride and a kind of padding occurs once.
SETTINGS = [
    ((1, 4), 1, "SAME"),
    ((1, 4), 2, "VALID"),
    ((1, 4), 3, (1, (-1, 2))),
    ((5, 2), 1, "VALID"),
    ((5, 2), 2, ((1, 1), (1, 1))),
    ((5, 2), 3, "SAME"),
    ((3, 3), 1, ((0, 2), 1)),
    ((3, 3), 2, "SAME"),
    ((3, 3), 3, "VALID"),
]


@both
@pytest.mark.parametrize(("kernel_size", "strides", "padding"), SETTINGS)
def test_values_and_gradients_are_those_of_flax(ours, flax, kernel_size, strides, padding, x64):
    x = images(2, 7, 6, 2) if padding == "SAME" else images(2, 8, 9, 2)
    assert_same(ours, flax, x, 2, 3, kernel_size, strides, padding=padding)


@both
def test_unequal_strides(ours, flax, x64):
    args = (2, 3, (2, 4), (2, 3))
    graphdef, params = split_layer(ours, *args)
    reference, _ = split_layer(flax, *args)
    x = images(2, 8, 9, 2)
    chex.assert_trees_all_close(
        nnx.merge(graphdef, params)(x), nnx.merge(reference, params)(x), **DOUBLE
    )
    # Not Flax's gradients: XLA for CPU aborts on those of some convolutions with unequal strides.
    run = jax.jit(lambda params, x: nnx.merge(graphdef, params)(x))
    check_grads(run, (params, x), order=1, modes=["rev"])


@both
@pytest.mark.parametrize("num_examples", [101, 120])  # prime, which takes padding, and not
def test_a_batch_in_chunks_is_the_batch(ours, flax, num_examples, x64, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2**20)
    args, x = (8, 1, (4, 3), 2), images(num_examples, 16, 15, 8)
    assert_same(ours, flax, x, *args)
    assert "scan[" in str(jax.make_jaxpr(ours(*args, rngs=nnx.Rngs(0)))(x))


@both
def test_second_derivatives_are_those_of_flax(ours, flax, x64):
    args, x = (2, 3, (3, 3), 2), images(2, 5, 4, 2)

    def curvature(cls):
        graphdef, params = split_layer(cls, *args)

        def norm(params, x):
            _, grads, dx = pullback(graphdef)(params, x)
            return sum(jnp.sum(g**3) for g in jax.tree.leaves((grads, dx)))

        return jax.jit(jax.grad(norm, argnums=(0, 1)))(params, x)

    chex.assert_trees_all_close(curvature(ours), curvature(flax), **DOUBLE)


@both
def test_half_precision_is_that_of_flax(ours, flax):
    x = images(4, 6, 6, 8, dtype=jnp.bfloat16)
    graphdef, params = split_layer(ours, 8, 8, (4, 4), 2, dtype=jnp.bfloat16)
    flax_graphdef, _ = split_layer(flax, 8, 8, (4, 4), 2, dtype=jnp.bfloat16)
    y, grads, dx = jax.jit(pullback(graphdef))(params, x)
    flax_y, flax_grads, flax_dx = jax.jit(pullback(flax_graphdef))(params, x)
    assert (y.dtype, dx.dtype) == (jnp.bfloat16, jnp.bfloat16)
    # Two rounded numbers are a unit in the last place apart, 2**-7, and sums of them a few.
    close = partial(chex.assert_trees_all_close, rtol=2**-5, atol=2**-5)
    close((y, grads["kernel"], dx), (flax_y, flax_grads["kernel"], flax_dx))
    # Flax sums a bias's gradient over all pixels in half precision, where 256 + 1 is 256.
    _, single, _ = jax.jit(pullback(split_layer(ours, 8, 8, (4, 4), 2)[0]))(params, x.astype(float))
    close(grads["bias"], single["bias"])


@both
def test_parameters_go_either_way(ours, flax):
    args = (2, 3, (4, 3))
    mine, theirs = ours(*args, rngs=nnx.Rngs(0)), flax(*args, rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(
        nnx.to_pure_dict(nnx.state(mine)), nnx.to_pure_dict(nnx.state(theirs))
    )
    assert set(nnx.to_pure_dict(nnx.state(mine))) == {"kernel", "bias"}

    other, x = flax(*args, rngs=nnx.Rngs(1)), images(2, 5, 5, 2)
    nnx.update(mine, nnx.state(other))
    chex.assert_trees_all_close(mine(x), other(x), **SINGLE)
    nnx.update(theirs, nnx.state(mine))
    chex.assert_trees_all_equal(theirs(x), other(x))


@both
def test_without_bias(ours, flax):
    layer = ours(2, 3, (3, 3), use_bias=False, rngs=nnx.Rngs(0))
    reference = flax(2, 3, (3, 3), use_bias=False, rngs=nnx.Rngs(0))
    assert set(nnx.to_pure_dict(nnx.state(layer))) == {"kernel"}
    chex.assert_trees_all_close(layer(images(2, 5, 5, 2)), reference(images(2, 5, 5, 2)), **SINGLE)


@both
def test_any_number_of_batch_axes(ours, flax):
    layer, reference = (cls(2, 3, (3, 3), 2, rngs=nnx.Rngs(0)) for cls in (ours, flax))
    for batch in ((), (2, 3)):
        x = images(*batch, 5, 4, 2)
        chex.assert_trees_all_close(layer(x), reference(x), **SINGLE)


@each
def test_an_empty_batch_gives_an_empty_batch(layer):
    graphdef, params = split_layer(layer, 2, 3, (3, 3), 2)
    y, grads, _ = pullback(graphdef)(params, images(0, 5, 4, 2))
    assert y.shape[0] == 0
    chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, grads))


@each
@pytest.mark.parametrize("num_examples", [3, 200])  # whole, and in chunks
def test_stacked_parameters_equal_one_by_one(layer, num_examples):
    x = images(2, num_examples, 8, 8, 8)
    graphdef, first = split_layer(layer, 8, 8, (4, 4), 2)
    params = [first, jax.tree.map(lambda p: 1 - p, first)]
    stacked = jax.tree.map(lambda *p: jnp.stack(p), *params)
    run = jax.jit(pullback(graphdef))
    one_by_one = [run(p, x[m]) for m, p in enumerate(params)]
    together = jax.jit(jax.vmap(pullback(graphdef)))(stacked, x)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    chex.assert_trees_all_close(together, expected, **SINGLE_BATCH)


@each
def test_cpu_runs_no_convolution_and_others_nothing_else(layer):
    graphdef, params = split_layer(layer, 8, 8, (4, 4), 2)
    args = (params, images(200, 8, 8, 8))
    if jax.default_backend() == "cpu":
        compiled = jax.jit(pullback(graphdef)).lower(*args).compile().as_text()
        assert "dot(" in compiled
        assert "convolution(" not in compiled
    for platform in ("cuda", "tpu"):
        exported = jax.export.export(jax.jit(pullback(graphdef)), platforms=[platform])(*args)
        lowered = exported.mlir_module()
        assert lowered.count("stablehlo.convolution") == 3  # outputs and two gradients
        assert "dot_general" not in lowered
        assert "while" not in lowered


@pytest.mark.parametrize("name", ["x", "w", "y"])
def test_native_derivatives_equal_matrix_products(name, x64):
    window = Window((3, 2), (2, 2), ((1, 2), (0, -1)), (9, 8))
    arrays = {"x": images(3, 9, 8, 2), "w": images(3, 2, 2, 4), "y": images(3, *window.places, 4)}
    known = {n: array for n, array in arrays.items() if n != name}
    native = trilinear._native(name, window, known)
    chex.assert_trees_all_close(trilinear.derivative(name, window, known), native, **DOUBLE)


@pytest.fixture
def mesh(four_devices):
    return jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))


@each
def test_a_sharded_batch_stays_on_its_devices(layer, mesh, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 2**21)
    graphdef, params = split_layer(layer, 8, 8, (4, 4), 2)
    x = images(512, 8, 8, 8)
    expected = jax.jit(pullback(graphdef))(params, x)
    run = jax.jit(pullback(graphdef))
    sharded = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    compiled = run.lower(params, sharded).compile().as_text()
    if jax.default_backend() == "cpu":
        assert "while" in compiled
    assert "all-reduce" in compiled
    assert "all-gather" not in compiled
    chex.assert_trees_all_close(run(params, sharded), expected, **SINGLE_BATCH)


@each
def test_shard_map_adds_up_kernel_gradients(layer, mesh):
    graphdef, params = split_layer(layer, 8, 8, (4, 4), 2)
    x = images(8, 6, 6, 8)
    data, everywhere = PartitionSpec("data"), PartitionSpec()
    run = jax.shard_map(
        pullback(graphdef),
        mesh=mesh,
        in_specs=(everywhere, data),
        out_specs=(data, everywhere, data),
    )
    chex.assert_trees_all_close(
        jax.jit(run)(params, x), jax.jit(pullback(graphdef))(params, x), **SINGLE
    )


@pytest.mark.parametrize(
    ("kernel_size", "options", "message"),
    [
        ((3, 0), {}, r"kernel_size is \(3, 0\)"),
        ((3, 3, 3), {}, r"kernel_size is \(3, 3, 3\)"),
        ((3, 3), {"strides": (1, 1, 1)}, r"strides is \(1, 1, 1\)"),
        ((3, 3), {"strides": 0}, r"strides is \(0, 0\)"),
        ((3, 3), {"padding": "CIRCULAR"}, "padding is 'CIRCULAR'"),
        ((3, 3), {"padding": ((1, 1),)}, r"padding is \(\(1, 1\),\)"),
        ((3, 3), {"padding": ((1, 1, 1), 1)}, r"padding is \(\(1, 1, 1\), 1\)"),
    ],
)
def test_settings_of_another_form_are_refused(kernel_size, options, message):
    with pytest.raises(ValueError, match=message):
        Conv(2, 3, kernel_size, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize(
    ("layer", "padding", "shape", "message"),
    [
        (Conv, "SAME", (1, 5, 5, 3), r"inputs.shape is \(1, 5, 5, 3\)"),  # channels
        (Conv, "VALID", (1, 2, 5, 2), r"inputs.shape is \(1, 2, 5, 2\)"),  # smaller than the kernel
        (ConvTranspose, 0, (1, 2, 5, 2), r"padding is \(\(0, 0\), \(0, 0\)\)"),  # no output
    ],
)
def test_images_that_do_not_fit_are_refused(layer, padding, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(2, 3, (3, 3), padding=padding, rngs=nnx.Rngs(0))(images(*shape))
