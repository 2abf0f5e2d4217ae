"""The generator: the sections ``model`` and ``training``."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from medgan.config.section import Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class ModelConfig(Section):
    """Generator and discriminator."""

    latent: int = Field(32, ge=2, le=512, description="length of the noise vector z")
    width: int = Field(
        16, ge=4, le=256, multiple_of=4, description="channels at half resolution; doubled at each level"
    )
    basis: int = Field(16, ge=0, le=256, description="learned constant fields at the coarsest level that z can weigh")
    linear: bool = Field(
        False,
        description="a volume's recipes are weighed sums of as many modes as z has numbers: each has a direction "
        "of its own, siblings lie about their source, and z = 0 leaves it as it is",
    )
    batch_diversity: bool = Field(
        False, description="the discriminator sees how much the pairs of its batch differ (against mode collapse)"
    )
    max_velocity: float = Field(
        0.08, ge=0, le=0.5, description="bound of the velocity field, as a share of each axis' length"
    )
    max_rotation: float = Field(0.25, ge=0, le=1, description="bound of the affine's rotation generators, rad")
    max_scale: float = Field(0.2, ge=0, le=1, description="bound of the affine's log-scale and shear generators")
    max_shift: float = Field(
        0.06, ge=0, le=0.5, description="bound of the affine's shift, as a share of each axis' length"
    )
    max_gain: float = Field(0.3, ge=0, le=2, description="bound of the log gain field")
    max_offset: float = Field(0.1, ge=0, le=0.25, description="bound of the offset field, which fades out at 0 and 1")
    max_texture: float = Field(
        0.0, ge=0, le=1, description="bound of the band-limited texture residual; 0 leaves it out"
    )

    @model_validator(mode="after")
    def _order_of_grey_values_is_kept(self) -> ModelConfig:
        limit = math.exp(-self.max_gain) / 4
        if self.max_offset >= limit:
            reason = (
                f"max_offset must be below exp(-max_gain) / 4 = {limit:.3f}, or dark could become brighter than bright"
            )
            raise ValueError(f"{reason}, got {self.max_offset}")
        return self


class TrainingConfig(Section):
    """The adversarial training of the generator."""

    steps: int = Field(2000, ge=1, description="updates of the generator")
    max_minutes: float | None = Field(None, gt=0, description="stop after this much training time, at the next step")
    batch: int = Field(6, ge=1, description="pairs in an update")
    generator_rate: float = Field(2e-4, gt=0, description="learning rate of the generator")
    discriminator_rate: float = Field(2e-4, gt=0, description="learning rate of the discriminator")
    betas: tuple[Beta, Beta] = Field((0.0, 0.99), description="Adam's betas, both networks")
    loss: Literal["relativistic", "nonsaturating", "hinge", "wgan-gp"] = Field(
        "relativistic", description="adversarial loss"
    )
    penalty: float = Field(1.0, ge=0, description="weight of R1 + R2 (of the gradient penalty for wgan-gp)")
    penalty_every: int = Field(4, ge=1, description="lazy penalty: every so many updates, weighted accordingly")
    mismatch: float = Field(0.5, ge=0, description="weight of pairs of two classes as further negatives")
    mode_seeking_shape: float = Field(
        1.0, ge=0, description="weight of the term that keeps deformations of two z apart"
    )
    mode_seeking_affine: bool = Field(
        True,
        description="mode seeking: whether turning, moving or stretching the whole volume counts as a distance; "
        "false asks for anatomy that varies",
    )
    mode_seeking_directions: float = Field(
        0.0, ge=0, description="weight of the term that keeps different noise from doing one and the same thing"
    )
    mode_seeking_appearance: float = Field(0.5, ge=0, description="weight of the same for appearance")
    shape_spread: float = Field(
        1.5, ge=0, description="mode seeking: wanted RMS distance of two z's displacements, voxels"
    )
    appearance_spread: float = Field(
        0.04, ge=0, description="mode seeking: wanted RMS distance of two z's appearance, 0 to 1 range"
    )
    pair: float = Field(
        0.0, ge=0, description="weight of rebuilding a patient from another by encoded noise (cVAE-GAN); 0: none"
    )
    pair_divergence: float = Field(
        0.02, ge=0, description="weight, within it, of the encoded noise's divergence from a standard normal"
    )
    smoothness: float = Field(1.0, ge=0, description="weight of the bending of the displacement field")
    appearance_smoothness: float = Field(1.0, ge=0, description="weight of the gradient of the gain and offset fields")
    magnitude: float = Field(0.02, ge=0, description="weight of the mean squared displacement and appearance change")
    ema_halflife: float = Field(500, gt=0, description="half-life of the generator's moving average, in pairs seen")
    augment: float = Field(
        0.8, ge=0, le=1, description="probability of the differentiable augmentation, alike on real and fake"
    )
    augment_target: float | None = Field(
        None,
        ge=0,
        le=1,
        description="adaptive augmentation: the discriminator's lead over chance (2 accuracy - 1) "
        "above which, in the mean of four steps, the probability rises from `augment`, and below which it falls; "
        "none: fixed",
    )
    augment_pairs: int = Field(3000, ge=1, description="adaptive augmentation: pairs seen while it goes from 0 to 1")
    instance_noise: float = Field(
        0.02, ge=0, description="SD of the noise added to every volume the discriminator sees"
    )
    fake_buffer: int = Field(
        0,
        ge=0,
        description="siblings of earlier steps kept; about half of the discriminator's batch is drawn of them; 0: none",
    )
    validate_every: int = Field(250, ge=1, description="steps between validations (and choices of the best generator)")
    picture_every: int = Field(250, ge=1, description="steps between pictures of siblings")
    state_every: int = Field(250, ge=1, description="steps between states to resume from; two are kept")
    log_every: int = Field(10, ge=1, description="steps between logged losses")
    patience: int = Field(0, ge=0, description="validations without a better score before stopping; 0: never")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Fabric's precision")
