"""Tables of trained models, from rows whose numbers are known."""

from experiments.results import model_tables
from experiments.results.records import Record


def cells(make, rows):
    """Returns the cells of the rows below the header of a table."""
    text = make(Record("name", [], "0123456", "2026-01-01", None, "CPU", {}, rows))
    return [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_scenes_stand_below_the_published_values_of_svhn():
    pairs = {"mnist": {"mnist": 0.9, "scene": 0.8}, "scene": {"mnist": 0.7, "scene": 0.6}}
    run = {
        "preset": "small",
        "steps": 3000,
        "conditional_coherence_pairs": pairs,
        "joint_coherence": 0.5,
        "latent_probe_modalities": {"mnist": 0.4, "scene": 0.3},
    }
    classifiers = {"accuracy": {"mnist": 0.99, "scene": 0.95}}
    shi, multivae, ours, real = cells(model_tables.scenes, [classifiers, run])
    assert shi[1:] == ["0.864", "0.691", "0.421", "0.913", "0.680"]
    assert multivae[1:] == ["0.880", "0.670", "0.410", "", ""]
    assert ours[0] == "MNIST and scenes: `small`, 3,000 steps"
    assert ours[1:] == ["0.800", "0.700", "0.500", "0.400", "0.300"]
    assert real[1:3] == ["0.950", "0.990"]


def test_weightings_stand_side_by_side_by_the_number_of_given_modalities():
    rows = [
        {
            "config": {"weighting": name, "missing": missing},
            "conditional_coherence_by_size": {"1": one, "2": two},
        }
        for name, missing, one, two in (
            ("mixture", 0.0, 0.9, 0.8),
            ("mixture", 0.5, 0.1, 0.1),
            ("importance", 0.0, 0.91, 0.95),
        )
    ]
    assert cells(model_tables.weightings, rows) == [
        ["1", "0.900", "0.910"],
        ["2", "0.800", "0.950"],
    ]


def test_seconds_are_those_of_the_first_run():
    rows = [{"seconds": {"total": 71.6}}, {"seconds": {"total": 9.0}}]
    record = Record("name", [], "0123456", "2026-01-01", None, "CPU", {}, rows)
    assert model_tables.run_seconds(record) == "72 s"


def run(latent_dim, private, clusters, seed, *, posterior="normal", **metrics):
    config = {
        "latent_dim": latent_dim,
        "modalities_specific_dim": private,
        "number_of_clusters": clusters,
        "aggregation": "moe",
        "posterior": posterior,
        "seed": seed,
    }
    return {"config": config, "conditional_coherence_by_size": {"2": 0.5, "10": 0.75}, **metrics}


def test_models_have_a_row_for_all_their_seeds():
    metrics = {"conditional_coherence": 0.5, "joint_coherence": 0.25}
    rows = [
        {"accuracy": {"m0": 1.0}},  # of the classifiers
        run(4, 0, 1, 0, **metrics),
        run(2, 2, 1, 0, **metrics),
        run(4, 0, 1, 1, conditional_coherence=0.7, joint_coherence=0.25),
        run(2, 2, 9, 0, **metrics, **{"prior_clusters/accuracy": 0.125}),
    ]
    mmvae, plus, clustered = cells(model_tables.models, rows)
    assert mmvae[:3] == ["MMVAE", "4, 0", "0.600 ± 0.141"]
    assert mmvae[3:5] == ["0.750 ± 0.000", "0.250 ± 0.000"]
    assert plus[:3] == ["MMVAE+", "2, 2", "0.500"]
    assert clustered[0] == "CMVAE"
    assert clustered[-1] == "0.125"
    assert len(mmvae) == 6  # no column of what was not measured


def test_runs_of_several_posteriors_are_told_apart():
    rows = [
        run(4, 0, 1, seed, posterior=posterior, joint_coherence=value)
        for posterior, seed, value in (
            ("normal", 0, 0.25),
            ("normal", 1, 0.25),
            ("laplace_with_softmax", 0, 0.75),
        )
    ]
    assert cells(model_tables.models, rows) == [
        ["MMVAE", "`normal`", "4, 0", "0.750 ± 0.000", "0.250 ± 0.000"],
        ["MMVAE", "`laplace_with_softmax`", "4, 0", "0.750", "0.750"],
    ]


def test_distances_are_of_the_prior_and_of_other_modalities():
    """Distances of a modality that generates itself are left out."""
    distances = {"prior": {"a": 1, "b": 3}, "a": {"a": 100, "b": 4}, "b": {"a": 6, "b": 100}}
    share = {"log_likelihood/joint/unreliable": 0.25}
    (row,) = cells(model_tables.pictures, [run(4, 0, 1, 0, frechet_classifier=distances, **share)])
    assert row == ["MMVAE", "4, 0", "2", "5", "0.25"]
