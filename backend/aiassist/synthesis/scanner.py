"""A virtual scanner: where its voxels lie, and what grey values it records."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from aiassist.evaluation.annotator import largest_component
from aiassist.synthesis.fields import Draw, grid_points, smooth_noise
from aiassist.synthesis.scene import Scene

#: Resolution at which a scene is first looked at, to find its target.
LOOK = 40
#: The largest piece of a target is at least this share of it.
WHOLE = 0.9
#: Share of scans that are plain: equal voxels, so many across, and no cut target. From those a network learns faster;
#: the others teach it the rest.
PLAIN, PLAIN_ACROSS = 0.3, (45, 80)
#: Most voxels of a scan.
MAX_VOXELS = 500_000


@dataclass
class Scan:
    """A synthetic volume.

    ``voxels`` float32 (k, j, i), ``truth`` bool of the same shape, ``spacing`` (k, j, i) in arbitrary mm,
    ``cut`` whether the volume's face cuts the target, ``family`` of the target.
    """

    voxels: torch.Tensor
    truth: torch.Tensor
    spacing: tuple[float, float, float]
    cut: bool
    family: str


def scan(draw: Draw) -> Scan | None:
    """Draw a scene and scan it; None when the target came out too small, too large, or in pieces."""
    scene, is_plain = Scene(draw), draw.chance(PLAIN)
    whole = torch.full((3,), 1.0, device=draw.device)
    look = grid_points(-whole, whole, (LOOK,) * 3)
    found = scene.is_target(scene.labels(look)).nonzero()
    if len(found) < 30 or len(found) > 0.5 * LOOK**3:
        return None
    low, high = _box(found)
    low, high, cut = _field_of_view(draw, low, high, is_plain)
    shape, spacing = _voxel_grid(draw, low, high, is_plain)
    thin = draw.choice((1, 3)) if shape[0] < 48 else 1  # odd, or ties would fall on one side of the half
    fine = (shape[0] * thin, *shape[1:])
    labels = scene.labels(grid_points(low, high, fine))
    share = scene.is_target(labels).float()
    grey = _tissue_greys(draw, scene, labels)
    grey, share = (_thick(x, shape) for x in (grey, share))
    inside = share > 0.5
    truth = torch.from_numpy(largest_component(inside.cpu().numpy())).to(inside.device)
    if int(truth.sum()) < max(25, WHOLE * int(inside.sum())):
        return None
    return Scan(_record(draw, grey), truth, spacing, cut, scene.target.shape.family)


def _box(found: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low = found.amin(0).float() / LOOK * 2 - 1
    high = (found.amax(0) + 1).float() / LOOK * 2 - 1
    return low, high


def _field_of_view(draw: Draw, low, high, is_plain: bool):
    """A box around the target, or cutting it: world coordinates."""
    side = high - low
    around = 0.15 + 0.35 * torch.rand(6, generator=draw.generator).to(low.device)
    longest = side.max()
    start = low - around[:3] * (0.5 * side + 0.5 * longest)
    stop = high + around[3:] * (0.5 * side + 0.5 * longest)
    cut = not is_plain and draw.chance(0.33)
    if cut:
        for _ in range(draw.choice((1, 1, 2))):
            axis, share = draw.integer(0, 2), draw.uniform(0.05, 0.45)
            if draw.chance(0.5):
                start[axis] = low[axis] + share * side[axis]
            else:
                stop[axis] = high[axis] - share * side[axis]
    return start, torch.maximum(stop, start + 0.1), cut


def _voxel_grid(draw: Draw, low, high, is_plain: bool):
    """Voxels along each axis and their size: 24 to 120 across, slices up to eight times thicker, unless it is plain."""
    across = draw.log_uniform(*(PLAIN_ACROSS if is_plain else (24, 120)))
    extent = (high - low).cpu()
    voxel = float(extent.max()) / across
    thick = draw.log_uniform(1.0, 8.0) if not is_plain and draw.chance(0.35) else 1.0
    sizes = [voxel, voxel, voxel]
    sizes[draw.choice((0, 0, 0, 1, 2))] *= thick
    shape = [max(5, round(float(extent[a]) / sizes[a])) for a in range(3)]
    while shape[0] * shape[1] * shape[2] > MAX_VOXELS:
        shape = [max(5, round(0.9 * n)) for n in shape]
    scale = draw.log_uniform(20, 300) / float(extent.max())
    return tuple(shape), tuple(float(extent[a]) / shape[a] * scale for a in range(3))


def _thick(fine: torch.Tensor, shape) -> torch.Tensor:
    """Average over the thickness of the slices."""
    return F.adaptive_avg_pool3d(fine[None, None], shape)[0, 0]


def _tissue_greys(draw: Draw, scene: Scene, labels: torch.Tensor) -> torch.Tensor:
    """Mean grey level and texture of each tissue.

    The target's level is 0 and the usual contrast is 1. Three tissues in ten come within a fraction of
    that; now and then one lies ten times off, as air and bone do. One target in four is the brightest or the darkest
    of all, as bones and vessels with contrast are. In a soft scene most tissues are alike, but for the first: fat.
    """
    levels = torch.empty(scene.count)
    below = draw.choice((0.5, 0.0, 1.0), (0.76, 0.12, 0.12))  # share of tissues darker than the target
    for number in range(scene.count):
        is_soft = scene.is_soft and number > 0
        kind = draw.choice(("usual", "close", "far"), (0.15, 0.75, 0.1) if is_soft else (0.55, 0.33, 0.12))
        close = draw.uniform(0.0 if is_soft else 0.1, 0.4)
        size = {"usual": draw.uniform(0.4, 2.0), "close": close, "far": draw.log_uniform(3, 20)}[kind]
        levels[number] = -size if draw.chance(below) else size
    targets = scene.target_labels
    levels[targets[0]] = 0.0
    mixed = (0.15, 0.2, 0.25, 0.4) if scene.target.shape.family == "coil" else (0.3, 0.3, 0.3, 0.1)  # gas in bowel
    for other in targets[1:]:
        levels[other] = draw.uniform(-1, 1) * draw.choice((0.0, 0.2, 1.0, 8.0), mixed)
    if draw.chance(0.5):
        levels[scene.air] = levels.min() - draw.log_uniform(1, 10)
    strength = torch.tensor([draw.choice((0.0, 0.1, 0.3)) * draw.uniform(0, 1) for _ in range(scene.count)])
    for twin, original in scene.alike:
        levels[twin] = levels[original] + (draw.uniform(-0.2, 0.2) if draw.chance(0.2) else 0.0)
        strength[twin] = strength[original]
    flat = levels.to(labels.device)[labels]
    texture = F.interpolate(
        draw.normal(1, 1, *[max(2, n // draw.integer(1, 4)) for n in labels.shape]), labels.shape, mode="trilinear"
    )[0, 0]
    return flat + strength.to(labels.device)[labels] * texture


def _record(draw: Draw, grey: torch.Tensor) -> torch.Tensor:
    """Blur, bias field, noise, a monotone remapping, and an arbitrary scale and offset."""
    grey = _blur(grey, [draw.uniform(0.0, 1.0) for _ in range(3)])
    shape, zero = grey.shape, draw.uniform(-4, -1)  # what the scanner calls nothing lies below the target
    if draw.chance(0.4):
        points = grid_points(torch.full((3,), -1.0), torch.full((3,), 1.0), shape).to(grey.device)
        bias = smooth_noise(draw, points, 3)[0]
        adds = draw.chance(0.5)
        grey = grey + draw.uniform(0, 0.6) * bias if adds else (grey - zero) * torch.exp(0.2 * bias) + zero
    noise = draw.normal(*shape)
    if draw.chance(0.3):
        noise = _blur(noise, [draw.uniform(0.3, 0.9)] * 3) * 1.8
    grey = grey + draw.choice((0.03, 0.1, 0.25, 0.5)) * draw.uniform(0.3, 1.2) * noise
    if draw.chance(0.3):
        bright = (grey - zero) / -zero
        grey = torch.sign(bright) * bright.abs().pow(draw.uniform(0.7, 1.4)) * -zero + zero
    if draw.chance(0.15):
        floor = draw.uniform(-3, -0.8)
        grey = (grey - floor).abs() + floor
    return (grey * draw.log_uniform(0.1, 300) + draw.uniform(-500, 500)).float()


def _blur(volume: torch.Tensor, sigmas) -> torch.Tensor:
    """Gaussian blur with one width per axis, in voxels."""
    out = volume[None, None]
    for axis, sigma in enumerate(sigmas):
        if sigma < 0.2:
            continue
        reach = 3
        offsets = torch.arange(-reach, reach + 1, device=volume.device)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[axis + 2] = len(kernel)
        pad = [0, 0, 0, 0, 0, 0]
        pad[4 - 2 * axis] = pad[5 - 2 * axis] = reach
        out = F.conv3d(F.pad(out, pad, mode="replicate"), (kernel / kernel.sum()).view(shape))
    return out[0, 0]
