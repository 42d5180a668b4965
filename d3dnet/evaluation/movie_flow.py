"""Velocity from the phase of filter responses.

Fleet and Jepson, "Computation of component image velocity from local phase information", IJCV 5(1),
1990, as the MOVIE index (`movie_index.py`) estimates the motion of the ground truth.
"""

import math

import torch
from torch import Tensor

from d3dnet.evaluation.movie_gabor import Scale, along

MINIMUM_AMPLITUDE = 0.05  # of the strongest response of the frame
FREQUENCY_TOLERANCE = 1.25  # bandwidths between a phase gradient and its filter's frequency
FLOW_RADIUS = 2
LARGEST_CONDITION, LARGEST_RESIDUAL, ZERO = 10.0, 0.5, 1e-6


def add_constraints(
    sums: Tensor, response: Tensor, power: Tensor, frequency: Tensor, scale: Scale, peak: float
) -> None:
    """Add, to the sums of `ChannelSums.constraints`, what the phase of one filter says.

    Args:
        sums: (7, h, w), changed.
        response: (4, h, w) complex: R, R^y, R^x, R^t.
        power: (h, w), |R|^2.
        frequency: (3,), (w_y, w_x, w_t) of the filter.
        scale, peak: of `channel_sums`.
    """
    place = (power > (MINIMUM_AMPLITUDE * peak) ** 2).flatten().nonzero()[:, 0]
    value, *gradient = response.flatten(1)[:, place]
    ratio = value.conj() * torch.stack(gradient) / power.flatten()[place]
    phase = ratio.imag
    distance = (ratio.real**2 + (phase - frequency[:, None]) ** 2).sum(0)
    near = distance < (FREQUENCY_TOLERANCE / scale.sigma) ** 2
    place, phase = place[near], phase[:, near]
    length = phase[:2].norm(dim=0)
    speed = phase[2].abs() / length
    moving = speed > ZERO
    place, speed = place[moving], speed[moving]
    n_y, n_x = (-phase[2].sign() * phase[:2] / length)[:, moving]
    sums.flatten(1)[:, place] += torch.stack(
        [n_y * n_y, n_y * n_x, n_x * n_x, speed * n_y, speed * n_x, speed**2, torch.ones_like(n_y)]
    )


def scale_flow(constraints: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """Velocity at each pixel from the constraints of the 5 x 5 pixels around it.

    Least squares for n_y (a0 + a1 p + a2 q) + n_x (b0 + b1 p + b2 q) = m at offsets p, q.

    Args:
        constraints: of `ChannelSums`.
        scale: of `SCALES`.

    Returns:
        velocity: (2, H, W), (v_y, v_x) = (a0, b0); 0 where there is none.
        residual: (H, W), relative; infinite where there is no velocity.
    """
    p = torch.arange(-FLOW_RADIUS, FLOW_RADIUS + 1, dtype=torch.float64)
    rows = [along(constraints, p**power, -2) for power in range(3)]
    moments = torch.stack(  # (6, 7, H, W): the sums weighted with 1, p, q, p p, p q, q q
        [along(rows[i], p**j, -1) for i, j in ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))]
    )
    velocity = torch.zeros_like(constraints[:2])
    residual = torch.full_like(constraints[0], math.inf)
    enough = torch.zeros_like(residual, dtype=torch.bool)
    valid = (slice(scale.half, -scale.half), slice(scale.half, -scale.half))
    enough[valid] = moments[0, 6][valid] > 6.5  # 7 and more: a count of constraints
    candidates = enough.flatten().nonzero()[:, 0]
    for place in candidates.split(2**16):
        own = moments.flatten(2)[:, :, place].permute(2, 1, 0)  # (n, 7, 6)
        normal_yy, normal_yx, normal_xx = (
            own[:, k, [0, 1, 2, 1, 3, 4, 2, 4, 5]].unflatten(1, (3, 3)) for k in range(3)
        )
        normal = torch.cat(
            [torch.cat([normal_yy, normal_yx], 2), torch.cat([normal_yx, normal_xx], 2)], 1
        )
        right = own[:, 3:5, :3].flatten(1)  # (n, 6)
        squared, count = own[:, 5, 0], own[:, 6, 0]
        eigenvalues, vectors = torch.linalg.eigh(normal)
        singular = eigenvalues.clamp(min=0).sqrt()
        regular = singular >= ZERO
        inverse = torch.where(regular, 1 / eigenvalues, 0.0)
        solution = (vectors @ (inverse * (right[:, None] @ vectors)[:, 0])[..., None])[..., 0]
        smallest = torch.where(regular, singular, math.inf).amin(1)
        missed = (squared - (solution * right).sum(1)).clamp(min=0)
        error = (missed / squared).sqrt()
        accepted = (
            (count - (~regular).sum(1) > 6)
            & (singular[:, 5] / smallest < LARGEST_CONDITION)
            & (error < LARGEST_RESIDUAL)
        )
        place = place[accepted]
        velocity.flatten(1)[:, place] = solution[accepted][:, [0, 3]].T
        residual.view(-1)[place] = error[accepted]
    return velocity, residual


def combine_flows(flows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """At each pixel the velocity of the scale with the smallest residual, as `scale_flow` has it.

    Nothing is filled in: where no scale has a velocity it is (0, 0).
    """
    velocity, residual = flows[0]
    for other, error in flows[1:]:
        better = error < residual
        velocity = torch.where(better, other, velocity)
        residual = torch.where(better, error, residual)
    return velocity, residual
