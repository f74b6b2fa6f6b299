"""Targets, heads and losses of the whole batch: the equalities that make the methods what their names say."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cosine_similarity, normalize

from collapse_lab.config import build
from collapse_lab.contrast import nt_xent, sinkhorn, swapped_prediction
from collapse_lab.directpred import direct_weight
from collapse_lab.errors import InputError
from collapse_lab.methods import METHODS, method
from collapse_lab.objective import Objective, build_objective
from collapse_lab.optimisation import optimizer, update
from collapse_lab.preflight import require_memory

IMAGES, BATCH = 48, 16


def config(name: str, **extra: object):
    overrides = {key.replace("__", "."): value for key, value in extra.items()}
    return build(name, method(name).settings, {"network.width": 4, "train.batch": BATCH}, overrides)


def made(name: str, **extra: object) -> Objective:
    return build_objective(config(name, **extra), torch.tensor([0.5]), torch.tensor([0.3]), 8, IMAGES).train()


def views(count: int, step: int) -> torch.Tensor:
    return torch.rand(count, BATCH, 1, 8, 8, generator=torch.Generator().manual_seed(step))


def index(step: int) -> torch.Tensor:
    return (torch.arange(BATCH) + BATCH * step) % IMAGES


def trained(objective: Objective, name: str, steps: int, **extra: object) -> Objective:
    settings = config(name, **extra).train
    descent = optimizer(objective, settings)
    for group in descent.param_groups:
        group["lr"] = 0.05 * group["factor"]
    for step in range(1, steps + 1):
        batch = views(objective.views, step)
        update(objective, descent, batch, index(step), step, predictor_steps=settings.predictor_steps)
    return objective


def weights(objective: Objective) -> torch.Tensor:
    parts = (objective.encoder, objective.predictor)
    return torch.cat([value.flatten().double() for part in parts for value in part.state_dict().values()])


def test_a_copy_that_follows_at_once_trains_as_the_encoder_itself():
    assert torch.equal(
        weights(trained(made("alternation-1"), "alternation-1", 6)), weights(trained(made("simsiam"), "simsiam", 6))
    )


def test_k_step_alternation_is_caching_the_targets_of_k_batches_and_taking_k_steps():
    lagged = trained(made("alternation-10", target__every=3), "alternation-10", 6, target__every=3)
    cached = made("simsiam")
    descent = optimizer(cached, config("simsiam").train)
    for group in descent.param_groups:
        group["lr"] = 0.05
    for first in (1, 4):
        # Targets of the next three batches, all under the weights of now.
        frozen = copy.deepcopy(cached)
        with torch.no_grad():
            eta = {
                step: torch.stack([frozen.encoder(view) for view in views(2, step)]) for step in range(first, first + 3)
            }
        for step, outputs in eta.items():
            descent.zero_grad()
            cached.compare(cached.encode(views(2, step)), outputs.flip(0)).backward()
            descent.step()
    assert torch.equal(weights(lagged), weights(cached))


def test_an_epoch_of_alternation_is_as_many_steps_as_an_epoch_has():
    assert made("alternation-epoch").target.network.every == IMAGES // BATCH


def test_momentum_weights_are_the_average_written_out():
    objective = made("byol", target__momentum=0.9)
    copied = [weight.clone() for weight in objective.target.network.copy.parameters()]
    trained(objective, "byol", 1)
    for before, lagged, weight in zip(
        copied, objective.target.network.copy.parameters(), objective.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(lagged, 0.9 * before + 0.1 * weight.detach(), rtol=1e-5, atol=1e-7)


def test_mean_output_is_the_mean_of_unit_outputs_and_leaves_the_running_statistics_alone():
    objective = made("mean-output", target__views=3)
    batch = views(5, 0)
    z = objective.encode(batch)
    buffers = {name: value.clone() for name, value in objective.encoder.named_buffers()}
    t = objective.match(batch, z, index(0))
    expected = torch.stack([normalize(objective.encoder(view), dim=1) for view in batch[2:]]).mean(0)
    torch.testing.assert_close(t, expected.expand(2, -1, -1).detach())
    assert not t.requires_grad
    fresh = made("mean-output", target__views=3)
    z = fresh.encode(batch)
    fresh.match(batch, z, index(0))
    assert all(torch.equal(value, buffers[name]) for name, value in fresh.encoder.named_buffers())


def test_watching_hooks_see_the_own_views_only():
    for name in METHODS:
        objective, seen = made(name), []
        objective.encoder.register_forward_hook(lambda module, inputs, output, seen=seen: seen.append(len(output)))
        trained(objective, name, 1)
        assert seen == [BATCH] * config(name).views, name


def test_mean_input_passes_the_gradient_to_the_weights_it_shares():
    objective = made("mean-input-none", target__views=4)
    batch = views(6, 0)
    loss = objective(batch, index(0))
    loss.backward()
    by_hand = made("mean-input-none", target__views=4)
    outputs = torch.stack([by_hand.encoder(view) for view in batch[:2]])
    mean = by_hand.encoder(batch[2:].mean(0))
    expected = (outputs - mean).square().sum(-1).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for one, other in zip(objective.encoder.parameters(), by_hand.encoder.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("start", ["first-visit", "random"])
def test_eta_is_the_moving_average_of_what_each_image_gave(normalised, start):
    extra = {"target__eta_start": start, "target__normalised": normalised, "target__eta_momentum": 0.7}
    objective = made("momentum-eta", **extra)
    old = {image: objective.target.eta[image].clone() for image in range(IMAGES) if start == "random"}
    for visit in range(6):
        batch, which = views(2, visit), index(visit)
        z = objective.encode(batch)
        t = objective.match(batch, z, which)
        for row, image in enumerate(which.tolist()):
            both = normalize(z[:, row], dim=1) if normalised else z[:, row]
            if image in old:
                torch.testing.assert_close(t[:, row], old[image].expand(2, -1), rtol=1e-4, atol=1e-6)
                new = 0.7 * old[image] + 0.3 * both.mean(0).detach()
            else:
                torch.testing.assert_close(t[:, row], both.flip(0).detach(), rtol=1e-4, atol=1e-6)
                new = both.mean(0).detach()
            old[image] = normalize(new, dim=0) if normalised else new
    for image, eta in old.items():
        torch.testing.assert_close(objective.target.eta[image], eta, rtol=1e-4, atol=1e-6)


def test_evaluation_does_not_count_as_a_visit():
    objective = made("momentum-eta").eval()
    objective(views(2, 0), index(0))
    assert not objective.target.seen.any()


def test_etas_that_do_not_fit_are_refused_with_their_size_and_the_choices():
    imagenet = config("momentum-eta", network__projector_dim=2048)
    with pytest.raises(
        InputError, match=r"1281167 images take 10.5 GB, and there are 8 GB free; choose .*float16.*2048"
    ):
        require_memory(imagenet, 1_281_167, 8_000_000_000)
    half = config("momentum-eta", network__projector_dim=2048, target__eta_dtype="float16")
    require_memory(half, 1_281_167, 8_000_000_000)
    require_memory(config("simsiam"), 10**12, 1)


def two_n_form(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """NT-Xent of Chen et al. (2020) as its matrix of 2N x 2N similarities."""
    rows = normalize(z.flatten(0, 1), dim=1)
    count = len(rows) // 2
    logits = rows @ rows.T / temperature
    logits.fill_diagonal_(-math.inf)
    partner = torch.cat([torch.arange(count, 2 * count), torch.arange(count)])
    return -(logits.log_softmax(1)[torch.arange(2 * count), partner]).mean()


def test_nt_xent_on_aligned_targets_is_the_matrix_of_all_views():
    z = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nt_xent(z, z.flip(0), temperature=0.3), two_n_form(z, 0.3))
    with pytest.raises(ValueError, match=r"\(3, 7, 5\).*needs \(2, N, D\)"):
        nt_xent(z[[0, 0, 1]], z[[0, 0, 1]], temperature=0.3)


def test_the_queue_holds_the_latest_targets_and_none_of_the_present_ones():
    objective = made("mocov2", objective__queue=3 * BATCH)
    queue = objective.loss.queue.clone()
    batch = views(2, 0)
    z = objective.encode(batch)
    t = objective.match(batch, z, index(0))
    loss = objective.compare(z, t)
    p = normalize(z[0], dim=1)
    keys = normalize(t[0], dim=1)
    logits = torch.cat([(p * keys).sum(1, keepdim=True), p @ queue.T], dim=1) / 0.2
    torch.testing.assert_close(loss, -logits.log_softmax(1)[:, 0].mean())
    loss.backward()
    torch.testing.assert_close(objective.loss.queue, torch.cat([keys, queue[: 2 * BATCH]]))
    objective.eval()(batch, index(0))
    torch.testing.assert_close(objective.loss.queue, torch.cat([keys, queue[: 2 * BATCH]]))


def test_codes_share_the_batch_evenly_and_agree_with_plain_scaling():
    scores = torch.randn(64, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 3
    codes = sinkhorn(scores, 0.5, 100)
    torch.testing.assert_close(codes.sum(1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 8.0, dtype=torch.float64))
    plain = (scores / 0.5).exp()
    for _ in range(3):
        plain = plain / plain.sum(0, keepdim=True)
        plain = plain / plain.sum(1, keepdim=True)
    torch.testing.assert_close(sinkhorn(scores, 0.5, 3), plain)
    # Logarithms keep what plain scaling loses.
    assert sinkhorn(1000 * scores, 0.5, 3).isfinite().all()


def test_equal_similarities_cost_the_logarithm_of_the_number_of_prototypes():
    loss = swapped_prediction(torch.zeros(2, 4, 8), torch.zeros(2, 4, 8), temperature=0.1, epsilon=0.05, iterations=3)
    assert loss.item() == pytest.approx(math.log(8), rel=1e-6)


@pytest.mark.parametrize("name", ["simclr", "swav", "mocov2", "simsiam", "centring"])
def test_losses_are_float32_under_autocast(name):
    """From bfloat16 outputs the loss is that of the same outputs in float32, to float32's rounding."""
    objective = made(name)
    with torch.autocast("cpu", torch.bfloat16):
        z = objective.encode(views(2, 0))
        t = objective.match(views(2, 0), z, index(0))
        objective.predictor = torch.nn.Identity()
        mixed = objective.eval().compare(z, t)
    torch.testing.assert_close(mixed, objective.compare(z.float(), t.float()), rtol=1e-6, atol=1e-6)
    assert mixed.dtype == torch.float32


def test_repeated_predictor_steps_see_the_weights_that_they_changed_under_autocast():
    losses = []
    for half in (False, True):
        objective = made("simsiam")
        descent = optimizer(objective, config("simsiam").train)
        for group in descent.param_groups:
            group["lr"] = 0.5
        losses.append(update(objective, descent, views(2, 1), index(1), 1, predictor_steps=10, half=half).item())
    assert losses[0] < -0.2
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


def test_prototypes_learn_and_their_length_does_not_matter():
    objective = made("swav")
    batch = views(2, 0)
    loss = objective(batch, index(0))
    loss.backward()
    assert objective.prototypes.weight.grad.norm() > 0
    with torch.no_grad():
        objective.prototypes.weight *= 3
    torch.testing.assert_close(objective(batch, index(0)), loss, rtol=1e-4, atol=1e-5)


def test_direct_predictor_has_the_eigenvectors_of_the_moment_and_the_stated_eigenvalues():
    rows = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    moment = rows.T @ rows / 100
    weight = direct_weight(moment, 0.1)
    values = torch.linalg.eigvalsh(moment)
    torch.testing.assert_close(weight @ moment, moment @ weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.linalg.eigvalsh(weight), values.sqrt() + 0.1 * values.max(), rtol=1e-4, atol=1e-5)
    # One zero eigenvalue is lifted to eps max s.
    flat = direct_weight(torch.diag(torch.tensor([4.0, 0.0])), 0.1)
    torch.testing.assert_close(flat, torch.diag(torch.tensor([2.4, 0.4])))


def test_the_direct_predictor_follows_the_running_moment_of_the_steps_outputs():
    objective = made("directpred", network__direct_every=2)
    moments = []
    for step in (1, 2, 3):
        z = objective.encode(views(2, step))
        objective.compare(z, z.flip(0)).backward()
        objective.after_step(step)
        moment = z.detach().flatten(0, 1)
        moment = moment.T @ moment / len(moment)
        moments.append(moment if step == 1 else 0.3 * moments[-1] + 0.7 * moment)
        torch.testing.assert_close(objective.predictor.moment, moments[-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(objective.predictor.weight, direct_weight(moments[1], 0.1), rtol=1e-3, atol=1e-4)


def test_the_bias_predictor_starts_as_the_unit_row():
    objective = made("bias-predictor")
    z = objective.encode(views(2, 0))[0]
    torch.testing.assert_close(objective.predictor(z), normalize(z, dim=1))


def test_centring_and_decorrelation_split_what_tells_the_target_from_the_prediction():
    """P + o and P + (e - o): together with P they make the target itself."""
    objective = made("centring")
    batch = views(2, 0)
    z = objective.encode(batch)
    t = objective.match(batch, z, index(0))
    p = torch.stack([objective.predictor(z_v) for z_v in z])
    prediction = normalize(p.flip(0), dim=-1)
    centred, decorrelated = objective.head(t, p), made("decorrelation").head(t, p)
    torch.testing.assert_close(centred + decorrelated - prediction, normalize(t, dim=-1))
    assert (centred - prediction).std(1).max() < 1e-6
    torch.testing.assert_close((decorrelated - prediction).mean(1), torch.zeros_like(t[:, 0]), rtol=0, atol=1e-6)


def test_the_inverse_predictor_learns_and_sends_no_gradient_to_the_encoder():
    objective = made("inverse-predictor")
    batch = views(2, 0)
    z = objective.encode(batch)
    t = objective.match(batch, z, index(0))
    loss = objective.compare(z, t)
    made_target = objective.head(t, torch.stack([objective.predictor(z_v) for z_v in z])).detach()
    p = torch.stack([objective.predictor(z_v) for z_v in z])
    torch.testing.assert_close(loss, -cosine_similarity(p, made_target, dim=-1).mean(), rtol=1e-4, atol=1e-5)
    objective.zero_grad()
    made_again = objective.head(t, p)
    objective.head.learning(made_again, t).backward()
    assert all(weight.grad is None for weight in objective.encoder.parameters())
    assert all(weight.grad is not None for weight in objective.head.parameters())


def test_the_symmetric_predictor_matches_predictions_with_predictions():
    objective = made("symmetric-predictor")
    z = objective.encode(views(2, 0))
    p = torch.stack([objective.predictor(z_v) for z_v in z])
    torch.testing.assert_close(objective.compare(z, z.flip(0)), -cosine_similarity(p[0], p[1]).mean())


def test_asymmetric_predicts_first_views_and_its_mirror_the_second():
    model, mirrored, both = made("asymmetric"), made("asymmetric"), made("simsiam")
    batch = views(2, 0)
    one, other = model(batch, index(0)), mirrored(batch.flip(0), index(0))
    torch.testing.assert_close((one + other) / 2, both(batch, index(0)))
    assert not made("asymmetric").encode(batch)[1].isnan().any()


def test_two_pairs_are_the_mean_of_two_asymmetric_losses():
    batch = views(4, 0)
    halves = [made("asymmetric")(batch[pair], index(0)) for pair in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(made("asymmetric-2x")(batch, index(0)), sum(halves) / 2)


def test_more_predictor_steps_are_updates_of_the_predictor_alone_before_the_common_one():
    many = trained(made("predictor-steps-3"), "predictor-steps-3", 1)
    by_hand = made("simsiam")
    settings = config("simsiam").train
    descent = optimizer(by_hand, settings)
    for group in descent.param_groups:
        group["lr"] = 0.05
    z = by_hand.encode(views(2, 1))
    for _ in range(2):
        encoder = weights(by_hand)
        descent.zero_grad()
        by_hand.compare(z.detach(), z.detach().flip(0)).backward()
        assert all(weight.grad is None for weight in by_hand.encoder.parameters())
        descent.step()
        assert not torch.equal(encoder, weights(by_hand))
    descent.zero_grad()
    by_hand.compare(z, z.flip(0)).backward()
    descent.step()
    assert torch.equal(weights(many), weights(by_hand))


@pytest.mark.parametrize("name", ["simsiam", "no-stop-gradient", "momentum-eta"])
def test_a_batch_in_parts_gives_the_gradient_of_the_batch(name):
    """Without BatchNorm, whose statistics are those of a part."""
    weights_after = []
    for parts in (1, 4):
        norms = {"network__projector_hidden_norm": False, "network__predictor_hidden_norm": False}
        objective = made(name, **norms)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            objective.encoder.backbone[1] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16))
        descent = optimizer(objective, config(name, **norms).train)
        for group in descent.param_groups:
            group["lr"] = 0.05
        update(objective, descent, views(objective.views, 1), index(1), 1, accumulate=parts)
        weights_after.append(objective.encoder.projector[0].weight.detach())
    torch.testing.assert_close(*weights_after, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_to_the_bit(name):
    whole = trained(made(name), name, 2)
    state = copy.deepcopy(whole.state_dict())
    settings = config(name).train
    descents = []
    for objective in (whole, made(name)):
        objective.load_state_dict(state)
        descents.append((objective, optimizer(objective, settings)))
    for objective, descent in descents:
        batch = views(objective.views, 3)
        update(objective, descent, batch, index(3), 3, predictor_steps=settings.predictor_steps)
    one, other = (objective.state_dict() for objective, _ in descents)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("name", "extra", "message"),
    [
        ("byol", {"objective.stop_gradient": "none"}, "no gradient passes through a lagged target"),
        ("momentum-eta", {"objective.stop_gradient": "none"}, "no gradient passes through a memory target"),
        ("momentum-eta", {"target.network": "lagged"}, "found 'lagged' with estimate 'memory'"),
        ("simsiam", {"target.head": "centring", "target.network": "lagged"}, "target.head: found 'centring'"),
        ("no-predictor", {"target.head": "predictor"}, "made with the predictor"),
        ("mean-output", {"objective.pairs": 2}, "does not distinguish views"),
        ("asymmetric", {"objective.loss": "nt-xent"}, "one symmetric pair"),
        ("no-stop-gradient", {"objective.loss": "info-nce"}, "queue holds no gradient"),
        ("no-predictor", {"train.predictor_steps": 3}, "needs a predictor that is trained"),
        ("directpred", {"network.predictor_frozen": True}, "no trained weights"),
        ("simclr", {"train.accumulate": 2}, "a loss that does not compare the images"),
        ("inverse-predictor", {"objective.stop_gradient": "none"}, "needs 'target'"),
        ("inverse-predictor", {"network.predictor_frozen": True}, "whose inverse would not be either"),
        ("swav-predictor", {"train.predictor_steps": 3}, "would move with every one of them"),
    ],
)
def test_impossible_combinations_are_refused_with_the_reason(name, extra, message):
    with pytest.raises(InputError, match=message):
        build(name, method(name).settings, extra)
