"""Training from a configuration to a checkpoint, top to bottom: setup → fit → validate → save."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_fabric as lf
import torch
from torch import Tensor, nn

from medgan.checkpoint import Origin, make_output, require_output, save_checkpoint
from medgan.config import Config, TrainingConfig
from medgan.data.cohort import Cohort, open_cohort
from medgan.data.loaders import Prepared, prepare, stack_images
from medgan.data.preprocess import Preprocessing
from medgan.data.split import Split, content_hash, split_cohort
from medgan.interrupts import saving
from medgan.measures.critic import fit_critic
from medgan.models.discriminator import Discriminator
from medgan.models.ema import MovingAverage
from medgan.models.fields import apply_on_grid
from medgan.models.generator import Generator
from medgan.models.posterior import PairEncoder
from medgan.pictures import save_figure, siblings_figure
from medgan.progress import progress_bar
from medgan.seeding import derive_seed, torch_generator
from medgan.tracking import Run, Tracker, open_tracker, recordable
from medgan.training.augmentation import adapted
from medgan.training.history import with_past
from medgan.training.memory import Work, fitting, rows_of
from medgan.training.pairs import PairBatch, PairSampler
from medgan.training.resume import require_free, require_same_run
from medgan.training.state import TrainingState, has_state, remove_states
from medgan.training.steps import StepBatch, discriminator_step, generator_step
from medgan.training.validation import Validator, interpolated_features
from medgan.training.watch import Watch

logger = logging.getLogger(__name__)

PICTURE_ROWS = 4
PICTURE_SIBLINGS = 4


def train(config: Config, output: Path, *, fresh: bool = False, tracker: Tracker | None = None) -> Path:
    """Train a generator and return the checkpoint folder.

    Args:
        config: data, preprocessing, networks, training.
        output: the checkpoint folder. Where it holds an unfinished run of the same configuration, that is resumed.
        fresh: start over, whatever the folder holds.
        tracker: where to record the run; by default the configured one.

    Raises:
        InputFault: the cohort or the folder is at fault.
        TrainingFailure: a loss became NaN, a network collapsed, or one pair of volumes is too much for the device's
            memory; the last good state is kept.
    """
    require_free(output, fresh)
    require_output(output)
    cohort = open_cohort(config.data)
    split = split_cohort(cohort, config.data)
    preprocessing = Preprocessing(config.preprocess)
    training = prepare(split.training, cohort, preprocessing, "reading training cases")
    held_out = prepare(split.validation, cohort, preprocessing, "reading validation cases")
    make_output(output)
    trainer = _Trainer(config, output, cohort, split, training, held_out)
    if fresh:
        remove_states(output)
    elif has_state(output):
        trainer.resume()
    tracker = tracker or open_tracker(config.tracking)
    with tracker.run(f"train {config.name}", recordable(config), {"medgan.kind": "training"}, nested=True) as run:
        trainer.fit(run)
    remove_states(output)
    return output


@dataclass(frozen=True, eq=False)
class _Volumes:
    """Training volumes on the device, and what pairs are drawn from."""

    images: Tensor
    class_index: Tensor
    pairs: PairSampler


class _Trainer:
    """Holds what one training works with; :meth:`fit` is the loop."""

    def __init__(
        self,
        config: Config,
        output: Path,
        cohort: Cohort,
        split: Split,
        training: Sequence[Prepared],
        held_out: Sequence[Prepared],
    ) -> None:
        self.config = config
        self.output = output
        self.training = training
        classes = len(cohort.class_names)
        self.fabric = lf.Fabric(accelerator="auto", devices=1, precision=config.training.precision)
        self.volumes = _Volumes(
            stack_images(training).to(self.fabric.device),
            torch.tensor([p.class_index if p.class_index >= 0 else classes for p in training]).to(self.fabric.device),
            PairSampler(training, cohort.class_names, str(cohort.source)),
        )
        self.validator = self._make_validator(held_out)
        features = interpolated_features(self.volumes.images, config.seed)
        self.critic = fit_critic(features, [p.case.patient_id for p in training])
        self.origin = Origin(
            cohort.class_names,
            cohort.label_names,
            training[0].image.shape[0],
            [
                {"case_id": c.case_id, "patient_id": c.patient_id, "content_sha256": content_hash(c)}
                for c in split.training
            ],
            split.digest,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "initialisation"))
            generator = Generator(config.model, self.origin.channels, classes, config.preprocess.shape)
            discriminator = Discriminator(config.model, self.origin.channels, classes)
            encoder = PairEncoder(config.model, self.origin.channels, config.preprocess.shape)
        rates = config.training
        networks: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator}
        trained_with_generator = [*generator.parameters()]
        self.encoder: PairEncoder | None = None
        if rates.pair > 0:
            networks["encoder"] = encoder
            trained_with_generator += encoder.parameters()
            self.encoder = self.fabric.setup_module(encoder)
        optimizer_g = torch.optim.Adam(trained_with_generator, rates.generator_rate, rates.betas)
        optimizer_d = torch.optim.Adam(discriminator.parameters(), rates.discriminator_rate, rates.betas)
        self.generator, self.optimizer_g = self.fabric.setup(generator, optimizer_g)
        self.discriminator, self.optimizer_d = self.fabric.setup(discriminator, optimizer_d)
        self.state = TrainingState(
            networks,
            MovingAverage(generator, config.training.ema_halflife),
            {"optimizer_g": optimizer_g, "optimizer_d": optimizer_d},
        )

    def _make_validator(self, held_out: Sequence[Prepared]) -> Validator | None:
        if not held_out:
            logger.warning("no validation cases: the last generator becomes the checkpoint, not the best")
            return None
        try:
            return Validator(self.volumes.images, self.volumes.class_index, stack_images(held_out), self.config.seed)
        except ValueError as error:
            logger.warning("no validation (%s): the last generator becomes the checkpoint, not the best", error)
            return None

    def _run_record(self) -> dict[str, Any]:
        """What makes this run that run: configuration and data."""
        hashes = sorted(case["content_sha256"] for case in self.origin.training_cases)
        return {"config": self.config.model_dump(mode="json"), "split": self.origin.split_digest, "data": hashes}

    def resume(self) -> None:
        """Continue the unfinished run in the output folder."""
        require_same_run(self.output, self._run_record())
        self.state.load(self.output)
        logger.info("resuming at step %d", self.state.step)

    def fit(self, run: Run) -> None:
        """Update both networks in turn until the budget is spent, or validation no longer improves."""
        config, state = self.config.training, self.state
        watch = Watch(self.output, varied=config.mode_seeking_shape > 0, seen=state.seen)
        due = False
        latest: dict[str, float] = {}
        if state.step == 0:
            # From here on the folder is known to hold an unfinished run.
            state.save(self.output, self._run_record())
        with progress_bar() as bar, saving() as interrupts:
            task = bar.add_task("training", total=config.steps, completed=state.step, note="")
            while state.step < config.steps and not self._budget_spent():
                started = time.monotonic()
                figures = self._step()
                state.step += 1
                state.seconds += time.monotonic() - started
                watch.look(state.step, figures)
                bar.update(task, advance=1, note=_note(figures))
                latest |= figures  # the lazy penalty is not due in the steps that are logged
                if state.step % config.log_every == 0:
                    run.log_metrics({**latest, "seconds": state.seconds}, state.step)
                if state.step % config.picture_every == 0:
                    self._picture(run)
                if state.step % config.validate_every == 0:
                    self._validate(run, watch)
                    if config.patience and state.stale >= config.patience:
                        logger.info("no better validation score in %d validations: stopping", state.stale)
                        break
                due = due or state.step % config.state_every == 0 or interrupts.asked()
                if due and not watch.suspicious:
                    state.save(self.output, self._run_record())
                    due = False
                interrupts.leave()
        if state.step % config.validate_every or state.best_score is None:
            self._validate(run, watch, last=True)
        self._picture(run)

    def _step(self) -> dict[str, float]:
        config, step = self._now(), self.state.step
        rng = torch_generator(self.config.seed, "step", step)
        penalise = step % config.penalty_every == 0
        batch, pairs = self._draw(rng)
        # From a stream of their own, so that the rest is drawn as without them.
        past_rng = torch_generator(self.config.seed, "past fakes", step)
        judged_pairs, past = with_past(pairs, self.state.past_fakes, self.volumes.pairs, past_rng)
        judged = batch
        if past is not None:
            judged = self._batch(judged_pairs, torch.stack([batch.z, batch.z_other, batch.z_pair]))

        def judge(rows: slice, share: float) -> dict[str, float]:
            return discriminator_step(
                self.discriminator,
                self.generator,
                rows_of(judged, rows),
                config,
                rng,
                lambda loss: self.fabric.backward(loss * share),
                penalised=self.state.networks["discriminator"] if penalise else None,  # type: ignore[arg-type]
                past=None if past is None else rows_of(past, rows),
            )

        figures = self._in_memory(judge, rng, self.optimizer_d.zero_grad)
        self.optimizer_d.step()
        fakes: list[Tensor] = []

        def make(rows: slice, share: float) -> dict[str, float]:
            values, made = generator_step(
                self.generator, self.discriminator, rows_of(batch, rows), config, rng,
                lambda loss: self.fabric.backward(loss * share), self.encoder,
            )  # fmt: skip
            fakes.append(made)
            return values

        def clear() -> None:
            self.optimizer_g.zero_grad()
            fakes.clear()

        # The discriminator only passes the gradient on: without its own, the step costs a third less.
        self.discriminator.requires_grad_(False)
        more = self._in_memory(make, rng, clear)
        self.discriminator.requires_grad_(True)
        self.optimizer_g.step()
        seen = (step + 1) * config.batch
        self.state.average.update(self.state.networks["generator"], config.batch, seen)
        if config.fake_buffer:
            self.state.past_fakes.admit(pairs.source.tolist(), torch.cat(fakes), config.fake_buffer, past_rng)
        if config.augment_target is not None:
            figures["discriminator/augment"] = config.augment
            leads = [*self.state.leads, 2 * figures["discriminator/accuracy"] - 1]
            self.state.augment, self.state.leads = adapted(
                config.augment, leads, config.augment_target, config.batch, config.augment_pairs
            )
        return figures | more

    def _in_memory(self, work: Work, rng: torch.Generator, start: Callable[[], None]) -> dict[str, float]:
        """Do one network's half of the step, in parts from where the device's memory was short."""
        batch = self.config.training.batch
        part = self.state.part or batch
        figures, fitted = fitting(work, batch, part, rng=rng, start=start, output=self.output)
        self.state.part = fitted if fitted < batch else None
        return figures

    def _now(self) -> TrainingConfig:
        """Return the settings of this step: the configured ones, but for an augmentation that adapts."""
        config, augment = self.config.training, self.state.augment
        return config if augment is None else config.model_copy(update={"augment": augment})

    def _draw(self, rng: torch.Generator) -> tuple[StepBatch, PairBatch]:
        pairs = self.volumes.pairs.draw(self.config.training.batch, rng)
        noise = torch.randn(3, self.config.training.batch, self.config.model.latent, generator=rng)
        return self._batch(pairs, noise), pairs

    def _batch(self, pairs: PairBatch, noise: Tensor) -> StepBatch:
        """Return the volumes of the pairs, with noise ``(3, B, latent)``."""
        images, classes = self.volumes.images, self.volumes.class_index
        return StepBatch(
            images[pairs.source],
            images[pairs.partner],
            images[pairs.stranger],
            pairs.has_stranger.to(images.device),
            classes[pairs.source],
            *noise.to(images),
        )

    def _validate(self, run: Run, watch: Watch, *, last: bool = False) -> None:
        """Score the moving average; save it as the checkpoint where it is the best so far and nothing looks wrong."""
        state = self.state
        average = state.average.average
        watch.require_finite(state.step, {"average": average})
        if self.validator is None:
            figures: dict[str, float] = {"score": 0.0}
        else:
            figures = self.validator(average)  # type: ignore[arg-type]
            run.log_metrics({f"validation/{k}": v for k, v in figures.items()}, state.step)
        best = state.best_score is None or self.validator is None or figures["score"] > state.best_score
        better = best and (not watch.suspicious or (last and state.best_score is None))
        state.stale = 0 if better else state.stale + 1
        if better:
            state.best_score = figures["score"]
            origin = Origin(**{**vars(self.origin), "steps": state.step, "metrics": figures})
            save_checkpoint(self.output, average.state_dict(), self.config, origin, self.critic)
        logger.info("step %d validation %s%s", state.step, _short(figures), " (best so far)" if better else "")

    @torch.no_grad()
    def _picture(self, run: Run) -> None:
        """Draw real volumes with siblings, the same sources and noise every time."""
        average = self.state.average.average
        rng = torch_generator(self.config.seed, "picture")
        count = min(PICTURE_ROWS, len(self.training))
        rows = []
        for index in torch.randperm(len(self.training), generator=rng)[:count].tolist():
            unit = self.volumes.images[index : index + 1].expand(PICTURE_SIBLINGS, -1, -1, -1, -1)
            z = torch.randn(PICTURE_SIBLINGS, self.config.model.latent, generator=rng).to(unit)
            label = self.volumes.class_index[index : index + 1].expand(PICTURE_SIBLINGS)
            siblings, _ = apply_on_grid(average(unit, z, label), unit)
            rows.append((unit[0, 0].cpu().numpy(), None, [(s[0].cpu().numpy(), None) for s in siblings]))
        path = self.output / "pictures" / f"step-{self.state.step:06d}.png"
        save_figure(siblings_figure(rows), path)
        run.log_picture(path, "siblings")

    def _budget_spent(self) -> bool:
        minutes = self.config.training.max_minutes
        return minutes is not None and self.state.seconds >= 60 * minutes


def _note(figures: dict[str, float]) -> str:
    return (
        f"D {figures['discriminator/loss']:.2f} G {figures['generator/adversarial']:.2f} "
        f"spread {figures['diversity/shape_voxels']:.2f} voxels"
    )


def _short(figures: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in figures.items())
