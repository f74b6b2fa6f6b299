"""What labels can be read from frozen features: a weighted kNN classifier and a linear probe.

Both are deterministic for a given number of threads, use every row, leave global state alone and may be called inside
``torch.no_grad``, ``torch.inference_mode`` or autocast. A chance-level accuracy alone is not collapse, and collapsed
outputs may still classify: compare with raw pixels and with the initial network, BatchNorm calibrated.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

SIMILARITIES_AT_ONCE = 2**25
ROWS_AT_ONCE = 2**14
PENALTIES = (1e-3, 1e-2, 1e-1)
HELD_OUT = 5
GRADIENT_TOLERANCE = 1e-6


@torch.no_grad()
def knn_predict(
    bank: Tensor, bank_labels: Tensor, queries: Tensor, *, k: int, temperature: float, classes: int
) -> Tensor:
    """Class of each query by a vote of its k most similar bank rows, weighted by exp(similarity / T).

    score(c) = sum over the k neighbours i with label c of exp(s_i / T), where s_i is the cosine similarity; the largest
    score wins. ``bank`` (M, D) and ``queries`` (N, D) have any floating dtype and share a device; rows are l2-normalised
    here (a row of norm below 1e-12 counts as zero), nothing is centred. ``bank_labels`` (M,) holds integers in
    [0, ``classes``). Returns int64 (N,) on the queries' device. Wu et al. (2018); k = 200 and T = 0.1 are common.

    The search is exact: faiss in float32 on the CPU, torch in float64 on a GPU or where faiss cannot be imported. Equal
    scores go to the lowest class. Which of equally similar rows is the k-th neighbour is left open, so with duplicate
    rows the two searches may differ; on untied data they agree, nearly collapsed rows included.

    Raises ``ValueError`` for k outside [1, M], T that is not positive, NaN or infinite features, labels out of range,
    and shapes, dtypes or devices that do not fit.

    >>> bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]])
    >>> labels, query = torch.tensor([0, 1, 1]), torch.tensor([[5.0, 0.0]])
    >>> [knn_predict(bank, labels, query, k=3, temperature=t, classes=2).item() for t in (0.1, 1.0)]
    [0, 1]
    """
    _require_rows("bank", bank)
    _require_labels("bank_labels", bank_labels, len(bank), classes)
    _require_rows("queries", queries)
    _require_match("bank", bank, "queries", queries)
    if not 1 <= k <= len(bank):
        raise ValueError(f"k: found {k}; the bank has {len(bank)} rows: choose k in 1..{len(bank)} or a larger bank")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature: found {temperature}; expected a positive number, such as 0.1")
    similarity, index = _nearest(bank, queries, k)
    weights = ((similarity - similarity.amax(1, keepdim=True)) / temperature).exp()
    votes = bank_labels.cpu().long()[index]
    scores = torch.zeros(len(queries), classes, dtype=torch.float64).scatter_add_(1, votes, weights)
    return scores.argmax(1).to(queries.device)


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    query_labels: Tensor,
    *,
    k: int,
    temperature: float,
    classes: int,
) -> float:
    """Fraction of ``queries`` that ``knn_predict`` gives their own label, in [0, 1]; every query counts.

    ``query_labels`` (N,) holds integers in [0, ``classes``); all else, and the errors, as in ``knn_predict``. Features
    of a complete collapse vote for whatever rounding makes their neighbours.
    """
    _require_labels("query_labels", query_labels, len(queries), classes)
    predicted = knn_predict(bank, bank_labels, queries, k=k, temperature=temperature, classes=classes)
    return _agreement(predicted, query_labels)


def linear_accuracy(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    penalty: float | None = None,
    iterations: int = 2000,
) -> float:
    """Fraction of ``test`` (N, D) classified by multinomial logistic regression fitted on ``train`` (M, D), in [0, 1].

    min over W, b of mean_m cross-entropy(W^T x_m + b, y_m) + penalty/2 * |W|^2, the bias not penalised. Channels are
    standardised with the mean and std (ddof 0) of ``train``; one that is constant there to 1e-7 of its mean is left out.
    Full batch from W = 0, L-BFGS with strong Wolfe steps in float64, until no component of the gradient exceeds 1e-6, at
    most ``iterations`` (500 while a penalty is chosen); the variables are scaled by a Cholesky factor of the Hessian at
    W = 0, which changes the path and not the optimum. So the value is deterministic and has no learning rate, batch size
    or epoch to choose.

    Without a given ``penalty`` the one of 0.001, 0.01 and 0.1 is used that, fitted on the others, classifies every fifth
    training row of each class best (the larger of equals): collapsed features are nearly collinear and need a small one,
    raw pixels a large one. No test row takes part in the choice.

    Labels are integers >= 0. A class without training rows is never predicted, so its test rows count as wrong. Constant
    features read the test share of the commonest training class. Warns with ``RuntimeWarning`` where the iterations did
    not suffice. Raises ``ValueError`` for NaN or infinite features, fewer than two classes, and input that does not fit.
    """
    _require_rows("train", train)
    _require_labels("train_labels", train_labels, len(train))
    _require_rows("test", test)
    _require_labels("test_labels", test_labels, len(test))
    _require_match("train", train, "test", test)
    if (penalty is not None and not (penalty > 0 and math.isfinite(penalty))) or iterations < 1:
        raise ValueError(f"penalty, iterations: found {penalty}, {iterations}; expected penalty > 0, iterations >= 1")
    with torch.inference_mode(False), torch.enable_grad():
        labels, targets = train_labels.to(train.device).unique(return_inverse=True)
        if len(labels) < 2:
            raise ValueError(f"train_labels: found only class {labels.item()}; a probe needs at least two classes")
        rows, queries = _standardise(train.detach().double(), test.detach().double())
        if penalty is None:
            penalty = _best_penalty(rows, targets, len(labels), iterations)
        weight, bias, steepest = _fit(rows, targets, len(labels), penalty, iterations)
    if not steepest <= GRADIENT_TOLERANCE:
        message = f"linear probe: gradient {steepest:.1e} > {GRADIENT_TOLERANCE} after {iterations} iterations"
        warnings.warn(f"{message}; raise iterations or penalty", RuntimeWarning, stacklevel=2)
    return _agreement(labels[(queries @ weight + bias).argmax(1)], test_labels)


def linear_penalty(train: Tensor, train_labels: Tensor, *, iterations: int = 2000) -> float:
    """The penalty that ``linear_accuracy`` chooses for these features (M, D) and labels (M,) where it is given none.

    With it ``linear_accuracy`` gives the same value, so that a record can name it. Raises as ``linear_accuracy`` does.
    """
    _require_rows("train", train)
    _require_labels("train_labels", train_labels, len(train))
    with torch.inference_mode(False), torch.enable_grad():
        labels, targets = train_labels.to(train.device).unique(return_inverse=True)
        if len(labels) < 2:
            raise ValueError(f"train_labels: found only class {labels.item()}; a probe needs at least two classes")
        rows, _ = _standardise(train.detach().double(), train[:1].detach().double())
        return _best_penalty(rows, targets, len(labels), iterations)


def _agreement(predicted: Tensor, labels: Tensor) -> float:
    return (predicted == labels.to(predicted.device)).double().mean().item()


def _nearest(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Similarities (float64) and bank rows of the k nearest of every query, (N, k) on the CPU, nearest first."""
    if bank.is_cuda:
        return _search_torch(bank, queries, k)
    try:
        import faiss  # noqa: F401
    except ImportError:
        return _search_torch(bank, queries, k)
    return _search_faiss(bank.cpu(), queries.cpu(), k)


def _search_torch(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Float64, because TF32 and autocast may be on around us and neither touches float64."""
    columns = _unit(bank).T
    parts = queries.split(max(1, SIMILARITIES_AT_ONCE // len(bank)))
    found = [(_unit(part) @ columns).topk(k, dim=1) for part in parts]
    return torch.cat([best.values.cpu() for best in found]), torch.cat([best.indices.cpu() for best in found])


def _search_faiss(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Euclidean search of unit rows from which the bank's mean is taken: s = 1 - |u - v|^2 / 2, whatever is subtracted.

    Rounding is then relative to the spread of the rows. A float32 inner product of nearly parallel rows drowns in it.
    One more channel, 1 for zero rows of the bank, puts them at |u - v|^2 = 2, so at cosine 0.
    """
    import faiss

    centre = torch.stack([_unit(part).sum(0) for part in bank.split(ROWS_AT_ONCE)]).sum(0) / len(bank)
    index = faiss.IndexFlatL2(bank.shape[1] + 1)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        for unit in map(_unit, bank.split(ROWS_AT_ONCE)):
            zero = unit.norm(dim=1, keepdim=True) < 0.5
            index.add(torch.cat([unit - centre, zero], 1).float().numpy())
        rows = (pad(_unit(part) - centre, (0, 1)).float().numpy() for part in queries.split(ROWS_AT_ONCE))
        found = [index.search(part, k) for part in rows]
    finally:
        faiss.omp_set_num_threads(threads)
    squared, nearest = (torch.cat([torch.from_numpy(array) for array in pair]) for pair in zip(*found, strict=True))
    return 1 - squared.double() / 2, nearest


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows.double(), dim=1)


def _standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    mean, std = train.mean(0), train.std(0, correction=0)
    scale = torch.where(std > 1e-7 * mean.abs(), 1 / std, 0)
    return (train - mean) * scale, (test - mean) * scale


def _best_penalty(rows: Tensor, targets: Tensor, classes: int, iterations: int) -> float:
    # The place of each row within its class.
    order = targets.argsort(stable=True)
    sizes = targets.bincount(minlength=classes)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(rows), device=rows.device) - (sizes.cumsum(0) - sizes)[targets[order]]
    held_out = place % HELD_OUT == HELD_OUT - 1
    if not held_out.any():
        return PENALTIES[-1]
    accuracies = {}
    for penalty in PENALTIES:
        weight, bias, _ = _fit(rows[~held_out], targets[~held_out], classes, penalty, min(iterations, 500))
        accuracies[penalty] = _agreement((rows[held_out] @ weight + bias).argmax(1), targets[held_out])
    return max(PENALTIES, key=lambda penalty: (accuracies[penalty], penalty))


def _fit(rows: Tensor, targets: Tensor, classes: int, penalty: float, iterations: int) -> tuple[Tensor, Tensor, float]:
    """Weights (D, classes) and bias (classes,) of the penalised regression, and the gradient's largest component."""
    hessian = rows.T @ rows / (len(rows) * classes)
    hessian.diagonal().add_(penalty)
    factor = torch.linalg.cholesky(hessian).T.contiguous()
    scaled = rows.new_zeros(rows.shape[1], classes, requires_grad=True)
    bias = rows.new_zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [scaled, bias],
        max_iter=iterations,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=0,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        weight = torch.linalg.solve_triangular(factor, scaled, upper=True)
        value: Tensor = cross_entropy(torch.addmm(bias, rows, weight), targets) + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    loss()
    steepest = max(v.grad.abs().max().item() for v in (scaled, bias) if v.grad is not None)
    return torch.linalg.solve_triangular(factor, scaled, upper=True).detach(), bias.detach(), steepest


def _require_rows(name: str, features: Tensor) -> None:
    if features.ndim != 2 or 0 in features.shape or not features.is_floating_point():
        raise ValueError(f"{name}: found shape {tuple(features.shape)}, {features.dtype}; expected floating (N, D)")
    bad = ~features.isfinite().all(1)
    if bad.any():
        row = int(bad.int().argmax())
        raise ValueError(f"{name}: row {row} holds NaN or infinity ({int(bad.sum())} such rows); has the run diverged?")


def _require_labels(name: str, labels: Tensor, count: int, classes: int | None = None) -> None:
    if labels.shape != (count,) or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{name}: found shape {tuple(labels.shape)}, {labels.dtype}; expected integers ({count},)")
    bad = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if bad.any():
        row = int(bad.int().argmax())
        allowed = "0 or more" if classes is None else f"0..{classes - 1}, as classes = {classes}"
        raise ValueError(f"{name}: row {row} is {int(labels[row])}; expected {allowed}; drop unlabelled rows first")


def _require_match(name: str, features: Tensor, other_name: str, other: Tensor) -> None:
    found, expected = (other.shape[1], other.device), (features.shape[1], features.device)
    if found != expected:
        raise ValueError(
            f"{other_name}: found {found[0]} channels on {found[1]}; expected those of {name}, {expected[0]} on "
            f"{expected[1]}: take both from the same layer and move them to one device"
        )
