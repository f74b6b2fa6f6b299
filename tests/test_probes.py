"""The kNN classifier and the linear probe against independent implementations, invariances and refusals."""

import functools
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from collapse_lab.monitors.probes import knn_accuracy, knn_predict, linear_accuracy, linear_penalty

PROTOCOLS = [(k, t) for k in (1, 20, 200) for t in (0.07, 0.1)]


def split(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    bank, queries = order[:1200], order[1200:]
    return features[bank], labels[bank], features[queries], labels[queries]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@functools.cache
def digit_pixels() -> tuple[torch.Tensor, ...]:
    images, labels = load_digits(return_X_y=True)
    return split(torch.from_numpy(images).float() / 16, torch.from_numpy(labels))


def random_network() -> tuple[torch.Tensor, ...]:
    bank, labels, queries, answers = digit_pixels()
    weight = gaussian(64, 128)
    return ((bank - 0.3) @ weight).relu(), labels, ((queries - 0.3) @ weight).relu(), answers


def noise() -> tuple[torch.Tensor, ...]:
    return split(gaussian(1797, 128), torch.arange(1797) % 10)


SETS = pytest.mark.parametrize("features", [digit_pixels, random_network, noise])


@pytest.fixture
def without_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)


@SETS
@pytest.mark.parametrize(("k", "temperature"), PROTOCOLS)
def test_predictions_are_those_of_scikit_learn(features, k, temperature):
    bank, labels, queries, _ = features()
    reference = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / temperature)
    ).fit(bank.double().numpy(), labels.numpy())
    found = knn_predict(bank, labels, queries, k=k, temperature=temperature, classes=10)
    assert found.dtype == torch.int64
    assert found.tolist() == reference.predict(queries.double().numpy()).tolist()


@SETS
@pytest.mark.parametrize(("k", "temperature"), PROTOCOLS)
def test_faiss_and_torch_predict_the_same(features, k, temperature, monkeypatch):
    bank, labels, queries, _ = features()
    with_faiss = knn_predict(bank, labels, queries, k=k, temperature=temperature, classes=10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert torch.equal(with_faiss, knn_predict(bank, labels, queries, k=k, temperature=temperature, classes=10))


@pytest.mark.parametrize("spread", [1e-3, 1e-5])
def test_faiss_and_torch_agree_on_nearly_collapsed_rows(spread, monkeypatch):
    # Here a float32 inner product gets 331 and 523 of the 597 wrong; at 1e-5 float32 rows that are not centred get 15.
    bank, labels, queries, _ = noise()
    point = gaussian(128, seed=6).double()
    bank, queries = (point + spread * (part - bank.mean(0)) / bank.std() for part in (bank, queries))
    with_faiss = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert torch.equal(with_faiss, knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10))


@pytest.mark.parametrize("search", ["faiss", "torch"])
def test_searching_in_chunks_changes_nothing(search, monkeypatch):
    if search == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)
    bank, labels, queries, _ = random_network()
    whole = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    monkeypatch.setattr("collapse_lab.monitors.probes.SIMILARITIES_AT_ONCE", 7 * len(bank))
    monkeypatch.setattr("collapse_lab.monitors.probes.ROWS_AT_ONCE", 7)
    assert torch.equal(whole, knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10))


def test_a_vote_by_hand():
    # Cosines 1, 0.8, 0.8, 0: at T = 0.1 the weights are 1 : exp(-2) : exp(-2) : exp(-10), at T = 1 they are
    # 1 : 0.819 : 0.819 : 0.368, so class 1 (two neighbours) overtakes class 0 where 2 exp(-0.2 / T) > 1: T > 0.2885.
    bank = torch.tensor([[2.0, 0.0], [0.8, 0.6], [8.0, -6.0], [0.0, 1.0]])
    labels, query = torch.tensor([0, 1, 1, 2]), torch.tensor([[3.0, 0.0]])
    predictions = [
        knn_predict(bank, labels, query, k=4, temperature=t, classes=3).item() for t in (0.1, 0.288, 0.289, 1.0)
    ]
    assert predictions == [0, 0, 1, 1]
    assert knn_predict(bank, labels, query, k=1, temperature=1.0, classes=3).item() == 0


@pytest.mark.parametrize("search", ["faiss", "torch"])
def test_a_cold_temperature_is_the_nearest_neighbour(search, monkeypatch):
    if search == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)
    bank, labels, queries, _ = noise()
    nearest = knn_predict(bank, labels, queries, k=1, temperature=1.0, classes=10)
    for temperature in (1e-5, 1e-300):
        cold = knn_predict(bank, labels, queries, k=200, temperature=temperature, classes=10)
        assert (cold == nearest).double().mean() > 0.99
    assert torch.equal(cold, nearest)


def test_a_hot_temperature_is_a_majority_vote():
    bank, labels, queries, _ = noise()
    neighbours = (torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(bank).T).topk(3).indices
    majority = labels[neighbours].mode(1).values
    decided = (labels[neighbours] == majority[:, None]).sum(1) >= 2
    hot = knn_predict(bank, labels, queries, k=3, temperature=1e6, classes=10)
    assert 0 < decided.sum() < len(queries)
    assert torch.equal(hot[decided], majority[decided])


def test_rotation_and_scale_of_rows_change_nothing():
    bank, labels, queries, _ = random_network()
    rotation = torch.linalg.qr(gaussian(128, 128, seed=1).double()).Q
    expected = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    sizes = gaussian(len(bank), 1, seed=2).exp()
    assert torch.equal(expected, knn_predict(bank * sizes, labels, 1e-3 * queries, k=20, temperature=0.1, classes=10))
    turned = knn_predict(
        bank.double() @ rotation, labels, queries.double() @ rotation, k=20, temperature=0.1, classes=10
    )
    assert torch.equal(expected, turned)


def test_the_order_of_the_bank_changes_nothing():
    bank, labels, queries, _ = random_network()
    order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(3))
    expected = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    assert torch.equal(expected, knn_predict(bank[order], labels[order], queries, k=20, temperature=0.1, classes=10))


def test_duplicating_the_bank_and_k_changes_nothing():
    bank, labels, queries, _ = random_network()
    once = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    twice = knn_predict(bank.repeat(2, 1), labels.repeat(2), queries, k=40, temperature=0.1, classes=10)
    assert torch.equal(once, twice)


def test_the_bank_finds_itself():
    bank, labels, _, _ = random_network()
    assert knn_accuracy(bank, labels, bank, labels, k=1, temperature=0.1, classes=10) == 1.0


@pytest.mark.parametrize("search", ["faiss", "torch"])
def test_zero_rows_have_cosine_zero(search, monkeypatch):
    if search == "torch":
        monkeypatch.setitem(sys.modules, "faiss", None)
    side = 0.99**0.5
    bank, labels = torch.tensor([[0.0, 0.0], [0.1, side], [-0.1, side]]), torch.tensor([2, 0, 1])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank[[0, 2]], labels[[0, 2]], query, k=1, temperature=0.1, classes=3).item() == 2
    assert knn_predict(bank[[0, 1]], labels[[0, 1]], query, k=1, temperature=0.1, classes=3).item() == 0
    # exp(0.1 / T) + exp(-0.1 / T) > 2 exp(0) at any T: class 0 has the outer two, class 2 the dead row twice.
    assert (
        knn_predict(bank[[0, 0, 1, 2]], torch.tensor([2, 2, 0, 0]), query, k=4, temperature=0.1, classes=3).item() == 0
    )


def test_equal_scores_go_to_the_lowest_class(without_faiss):
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 1.0]])
    assert knn_predict(bank, torch.tensor([2, 1]), query, k=2, temperature=0.1, classes=4).item() == 1


def test_accuracy_counts_every_query():
    bank, labels, queries, answers = random_network()
    predicted = knn_predict(bank, labels, queries, k=20, temperature=0.1, classes=10)
    accuracy = knn_accuracy(bank, labels, queries, answers, k=20, temperature=0.1, classes=10)
    assert accuracy == pytest.approx((predicted == answers).sum().item() / 597, abs=1e-15)
    assert 0.9 < accuracy < 1


def test_probes_leave_gradients_and_random_state_alone():
    bank, labels, queries, answers = random_network()
    bank.requires_grad_()
    state = torch.get_rng_state()
    knn_accuracy(bank, labels, queries, answers, k=20, temperature=0.1, classes=10)
    linear_accuracy(bank, labels, queries, answers)
    assert bank.grad is None
    assert torch.equal(state, torch.get_rng_state())


def test_the_search_leaves_the_thread_counts_alone():
    # Where faiss is imported before torch, each has its own OpenMP and so its own count.
    code = """
import faiss, torch
from collapse_lab.monitors.probes import knn_predict
torch.set_num_threads(1)
faiss.omp_set_num_threads(3)
knn_predict(torch.eye(4), torch.arange(4), torch.eye(4), k=1, temperature=0.1, classes=4)
print(faiss.omp_get_max_threads(), torch.get_num_threads())
"""
    assert python(code) == "3 1\n"


@pytest.mark.parametrize(
    "context", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
@pytest.mark.parametrize("hidden", [None, "faiss"])
def test_the_surrounding_mode_changes_nothing(context, hidden, monkeypatch):
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    data = random_network()
    protocol = {"k": 20, "temperature": 0.1, "classes": 10}
    expected = knn_accuracy(*data, **protocol), linear_accuracy(*data)
    with context():
        data = tuple(part.clone() for part in data)
        assert (knn_accuracy(*data, **protocol), linear_accuracy(*data)) == expected


def test_half_precision_features_are_read():
    bank, labels, queries, answers = random_network()
    half = bank.bfloat16(), labels, queries.bfloat16(), answers
    same = bank.bfloat16().float(), labels, queries.bfloat16().float(), answers
    protocol = {"k": 20, "temperature": 0.1, "classes": 10}
    assert knn_accuracy(*half, **protocol) == knn_accuracy(*same, **protocol)
    assert linear_accuracy(*half) == linear_accuracy(*same)


def clusters() -> tuple[torch.Tensor, ...]:
    labels = torch.arange(1797) % 10
    return split(torch.eye(64)[labels] + 0.02 * gaussian(1797, 64), labels)


def test_separated_clusters_are_classified_without_an_error():
    data = clusters()
    assert knn_accuracy(*data, k=20, temperature=0.1, classes=10) == 1.0
    assert linear_accuracy(*data) == 1.0


def test_labels_independent_of_the_features_are_at_chance():
    data = noise()
    assert 0.03 < knn_accuracy(*data, k=20, temperature=0.1, classes=10) < 0.17
    assert 0.03 < linear_accuracy(*data) < 0.17


def scikit_learn_probe(data: tuple[torch.Tensor, ...], penalty: float) -> float:
    train, labels, test, answers = (part.double().numpy() for part in data)
    scaler = StandardScaler().fit(train)
    model = LogisticRegression(C=1 / (penalty * len(train)), tol=1e-8, max_iter=5000)
    return model.fit(scaler.transform(train), labels).score(scaler.transform(test), answers)


@pytest.mark.parametrize("features", [digit_pixels, random_network])
@pytest.mark.parametrize("penalty", [1e-3, 1e-2, 1e-1])
def test_linear_accuracy_is_that_of_scikit_learn(features, penalty):
    accuracy = linear_accuracy(*features(), penalty=penalty)
    assert accuracy == pytest.approx(scikit_learn_probe(features(), penalty), abs=1e-12)
    assert 0.9 < accuracy < 1


def test_linear_accuracy_ignores_the_scale_and_offset_of_channels():
    train, labels, test, answers = random_network()
    scale, offset = 10 ** gaussian(128, seed=4).double(), 100 * gaussian(128, seed=5).double()
    moved = train * scale + offset, labels, test * scale + offset, answers
    assert linear_accuracy(*moved) == linear_accuracy(train, labels, test, answers)


def test_constant_channels_are_left_out():
    train, labels, test, answers = random_network()
    constant = torch.tensor([0.0, 0.1, 1e6])
    wider = [torch.cat([part, constant.expand(len(part), 3)], 1) for part in (train, test)]
    wider[1][:, -3:] += 5
    assert linear_accuracy(wider[0], labels, wider[1], answers) == linear_accuracy(train, labels, test, answers)


def test_a_channel_of_rounding_noise_is_left_out():
    train, labels, test, answers = random_network()
    constant = torch.tensor(0.1)
    rounded = torch.nextafter(constant, torch.tensor(1.0))
    told = torch.where(labels[:, None] < 5, constant, rounded), torch.where(answers[:, None] < 5, rounded, constant)
    wider = torch.cat([train, told[0]], 1), labels, torch.cat([test, told[1]], 1), answers
    assert linear_accuracy(*wider) == linear_accuracy(train, labels, test, answers)


def test_constant_features_read_the_commonest_class():
    labels, answers = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1, 1, 2, 2, 2])
    assert linear_accuracy(torch.full((4, 16), 0.1), labels, torch.full((8, 16), 0.1), answers) == 3 / 8


def test_a_class_without_training_rows_counts_as_wrong():
    train, labels, test, answers = random_network()
    known = labels != 3
    accuracy = linear_accuracy(train[known], labels[known], test, answers)
    on_known = linear_accuracy(train[known], labels[known], test[answers != 3], answers[answers != 3])
    assert accuracy == pytest.approx(on_known * (answers != 3).double().mean().item(), abs=1e-12)


def test_a_probe_that_did_not_converge_says_so():
    with pytest.warns(RuntimeWarning, match=r"gradient .* > 1e-06 after 3 iterations; raise iterations or penalty"):
        linear_accuracy(*random_network(), iterations=3)


def test_the_penalty_is_chosen_so_that_nearly_collinear_features_are_read():
    train, labels, test, answers = digit_pixels()
    generator = torch.Generator().manual_seed(0)
    common = [10 * torch.randn(len(rows), 1, generator=generator) for rows in (train, test)]
    collinear = (train + common[0], labels, test + common[1], answers)
    chosen = linear_accuracy(*collinear)
    assert chosen == linear_accuracy(*collinear, penalty=1e-3)
    assert chosen > linear_accuracy(*collinear, penalty=1e-1) + 0.05


def test_the_chosen_penalty_can_be_named_and_gives_the_same_value():
    train, labels, test, answers = random_network()
    chosen = linear_penalty(train, labels)
    assert linear_accuracy(train, labels, test, answers, penalty=chosen) == linear_accuracy(*random_network())
    with pytest.raises(ValueError, match="found only class 3"):
        linear_penalty(torch.ones(4, 2), torch.full((4,), 3))


@pytest.mark.parametrize("penalty", [1e-6, 1e-4, 1.0])
def test_the_default_iterations_converge(penalty):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear_accuracy(*random_network(), penalty=penalty)


def with_row(features: torch.Tensor, row: int, value: float) -> torch.Tensor:
    return features.index_fill(0, torch.tensor([row]), value)


BANK, LABELS, QUERIES, ANSWERS = noise()
KNN_REFUSALS = [
    ({"k": 1201}, "k: found 1201; the bank has 1200 rows: choose k in 1..1200 or a larger bank"),
    ({"k": 0}, "k: found 0; the bank has 1200 rows"),
    ({"temperature": 0.0}, "temperature: found 0.0; expected a positive number"),
    ({"temperature": -0.1}, "temperature: found -0.1"),
    ({"temperature": float("nan")}, "temperature: found nan"),
    ({"bank": with_row(BANK, 7, float("nan"))}, r"bank: row 7 holds NaN or infinity \(1 such rows\)"),
    ({"queries": with_row(QUERIES, 5, float("inf"))}, "queries: row 5 holds NaN or infinity"),
    ({"queries": QUERIES[:, :64]}, "queries: found 64 channels on cpu; expected those of bank, 128 on cpu"),
    ({"queries": QUERIES[:0], "query_labels": ANSWERS[:0]}, r"queries: found shape \(0, 128\)"),
    ({"bank": BANK[None]}, r"bank: found shape \(1, 1200, 128\), torch.float32; expected floating \(N, D\)"),
    ({"bank": BANK.long()}, r"bank: found shape \(1200, 128\), torch.int64"),
    ({"bank_labels": LABELS[1:]}, r"bank_labels: found shape \(1199,\), torch.int64; expected integers \(1200,\)"),
    ({"bank_labels": LABELS.float()}, "bank_labels: found shape .*, torch.float32; expected integers"),
    ({"bank_labels": LABELS + 1}, "bank_labels: row .* is 10; expected 0..9, as classes = 10"),
    ({"classes": 9}, "row .* is 9; expected 0..8, as classes = 9"),
    ({"bank_labels": LABELS - 1}, "bank_labels: row .* is -1; expected 0..9, as classes = 10; drop unlabelled rows"),
    ({"query_labels": ANSWERS + 1}, "query_labels: row .* is 10; expected 0..9"),
]


@pytest.mark.parametrize(("change", "message"), KNN_REFUSALS)
def test_knn_refuses(change, message):
    arguments = {"bank": BANK, "bank_labels": LABELS, "queries": QUERIES, "query_labels": ANSWERS}
    with pytest.raises(ValueError, match=message):
        knn_accuracy(**{**arguments, "k": 20, "temperature": 0.1, "classes": 10, **change})


LINEAR_REFUSALS = [
    ({"train": with_row(BANK, 2, float("nan"))}, "train: row 2 holds NaN or infinity"),
    ({"test": QUERIES[:, :3]}, "test: found 3 channels"),
    ({"test_labels": ANSWERS[:-1]}, "test_labels: found shape"),
    ({"train_labels": LABELS - 1}, "train_labels: row .* is -1; expected 0 or more"),
    ({"train_labels": LABELS * 0 + 4}, "train_labels: found only class 4; a probe needs at least two classes"),
    ({"penalty": 0.0}, "found 0.0, 2000; expected penalty > 0"),
    ({"iterations": 0}, "iterations >= 1"),
]


@pytest.mark.parametrize(("change", "message"), LINEAR_REFUSALS)
def test_linear_probe_refuses(change, message):
    arguments = {"train": BANK, "train_labels": LABELS, "test": QUERIES, "test_labels": ANSWERS}
    with pytest.raises(ValueError, match=message):
        linear_accuracy(**{**arguments, **change})


def test_importing_the_probes_stays_light():
    heavy = {"faiss", "sklearn", "scipy", "pandas", "matplotlib", "pydantic"}
    code = f"import sys, collapse_lab.monitors.probes; print(sorted({heavy!r} & set(sys.modules)))"
    assert python(code) == "[]\n"
