"""The backend in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import numpy as np

from aiassist.engine.backend import AnnotateRequest, Annotation, Answer, Request, Segmentation, SegmentRequest
from aiassist.engine.job import Job, Result, Turn
from aiassist.engine.studies import Studies
from aiassist.engine.worker import Worker
from aiassist.errors import DeviceMemoryError, ModelError, PromptError
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Promptable, Segmenter, Step, Work
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import DEFAULT, Registry, bundled


class LocalBackend:
    """Runs segmenters in this process. Implements `aiassist.engine.backend.Backend`.

    Parameters
    ----------
    registry : Registry, optional
        The segmenters; the bundled ones when absent.
    device : str
        "cpu" or "cuda".
    default : str
        Name of the model for requests that name none.
    studies : Studies, optional
        What keeps the open studies; without a limit when absent.
    queue : int, optional
        Most requests that may wait.
    share : int, optional
        Most of them of one sharer; see `submit`.
    models : Path, optional
        Folder of trained models (see `ModelStore`); what is published there is offered, too.
    threaded : bool
        See `Worker`. When False, `annotate` and `segment` still block until their answer is there, and
        jobs of `submit` advance only by `step`.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        device: str = "cpu",
        default: str = DEFAULT,
        threaded: bool = True,
        studies: Studies | None = None,
        queue: int | None = None,
        share: int | None = None,
        models: Path | None = None,
    ):
        store = ModelStore(models) if models is not None else None
        self.registry = registry if registry is not None else bundled(device, models=store)
        #: Takes over where the device has too little memory.
        self.fallback = bundled("cpu", models=store) if device != "cpu" else None
        self.default = default
        self.studies = studies if studies is not None else Studies()
        self.worker = Worker(device, threaded, queue, share)

    def models(self) -> list[ModelCard]:
        """See `Backend.models`."""
        return sorted(self.registry.cards(), key=lambda card: card.name != self.default)

    def open_study(self, volume: Volume) -> str:
        """See `Backend.open_study`."""
        return self.studies.open(volume)

    def close_study(self, study: str) -> None:
        """See `Backend.close_study`."""
        self.studies.close(study)

    def put_mask(self, study: str, patch: MaskPatch) -> str:
        """See `Backend.put_mask`."""
        if patch.region.clip(self.studies.geometry(study).shape) != patch.region:
            raise PromptError(f"The mask reaches to {patch.region.stop[::-1]} (i, j, k), beyond the volume.")
        return self.studies.remember(study, patch.over(None))

    def submit(
        self,
        request: Request,
        progress: Callable[[Step], None] | None = None,
        then: Callable[[Answer], Result] | None = None,
        sharer: str = "",
    ) -> Job[Answer | Result]:
        """See `Backend.submit`; what is wrong with the request is raised here, not later.

        With `then` the job's result is what that makes of the answer, on the worker's thread. The requests of each
        `sharer` take turns with those of the others; annotations come before segmentations, and between their steps.
        """
        job = self.prepare(request, progress, then, sharer)
        self.worker.add(job)
        return job

    def prepare(
        self,
        request: Request,
        progress: Callable[[Step], None] | None = None,
        then: Callable[[Answer], Result] | None = None,
        sharer: str = "",
    ) -> Job[Answer | Result]:
        """The job of `submit`, not queued yet. Looks at the disk for models and studies."""
        seconds: dict[str, float] = {}
        if isinstance(request, SegmentRequest):
            work, turn = self._segmentation(request, seconds), Turn.LONG
        else:
            work, turn = self._annotation(request, seconds), self._turn(request)
        return Job(work if then is None else _finished(work, then), progress, request.slot, seconds, sharer, turn)

    def _turn(self, request: AnnotateRequest) -> Turn:
        """Who asks a model that has a quick one, but for a correction, can look at that one's answer meanwhile."""
        corrects = request.base is not None or request.prompts.prior is not None
        quick = self.registry.get(request.model or self.default).card.quick
        return Turn.CLOSER if quick and not corrects else Turn.FIRST

    def annotate(self, request: AnnotateRequest, progress: Callable[[Step], None] | None = None) -> Annotation:
        """See `Backend.annotate`."""
        return self._finish(self.submit(request, progress))

    def segment(self, request: SegmentRequest, progress: Callable[[Step], None] | None = None) -> Segmentation:
        """See `Backend.segment`."""
        return self._finish(self.submit(request, progress))

    def _finish(self, job: Job[Answer]) -> Answer:
        while not self.worker.threaded and not job.finished:
            self.worker.step()
        return job.result()

    def warm_up(self) -> Job[MaskPatch]:
        """Run the default model on a small ball, and correct that once, so that no person waits for its weights.

        What goes wrong stays in the job; whoever asks first is told it.
        """
        k, j, i = np.ogrid[-16:17, -16:17, -16:17]
        ball = Volume((100 * (k * k + j * j + i * i < 100)).astype(np.int16), Geometry.from_spacing((33, 33, 33)))
        ends = 16 + 10 * np.concatenate([np.eye(3), -np.eye(3)])

        def work() -> Work:
            yield Step("warm up", 0.0)
            segmenter: Promptable = self._segmenter(self.default, "promptable")
            found = yield from segmenter.annotate(ball, Prompts(extreme_points=ends))
            if not found.region.is_empty:  # corrections may have weights of their own
                yield from segmenter.annotate(ball, Prompts(prior=found, negative=[[16, 16, 16]]))
            return found

        job: Job[MaskPatch] = Job(work())
        self.worker.add(job)
        return job

    def step(self) -> bool:
        """Advance the queued jobs by one piece; for backends made with ``threaded=False``."""
        return self.worker.step()

    def close(self) -> None:
        """See `Backend.close`."""
        self.worker.stop()

    def __enter__(self) -> LocalBackend:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _annotation(self, request: AnnotateRequest, seconds: dict[str, float]) -> Generator[Step, None, Annotation]:
        """The work of a request, which is checked now and done later."""
        chosen = self._choose(request.model or self.default, "promptable")
        geometry = self.studies.geometry(request.study)
        prompts = request.prompts
        if request.base is not None:
            prompts = replace(prompts, prior=self.studies.mask(request.study, request.base))
        prompts.check(geometry)
        base = request.base or (prompts.prior.version if prompts.prior is not None else None)

        def work() -> Generator[Step, None, Annotation]:
            patch, card, device = yield from self._run(chosen, request.study, lambda s, v: s.annotate(v, prompts))
            yield Step("version", 1.0)
            whole = patch.over(prompts.prior)
            return Annotation(
                patch=whole if prompts.prior is None else patch,  # the same on empty ground, and smaller
                study=request.study,
                structure=request.structure,
                base=base,
                version=self.studies.remember(request.study, whole),
                model=card.name,
                model_version=card.version,
                device=device,
                seconds=seconds,
            )

        return work()

    def _segmentation(self, request: SegmentRequest, seconds: dict[str, float]) -> Generator[Step, None, Segmentation]:
        """The work of a request, which is checked now and done later."""
        chosen = self._choose(request.model, "automatic")
        self.studies.geometry(request.study)

        def work() -> Generator[Step, None, Segmentation]:
            patch, card, device = yield from self._run(chosen, request.study, lambda s, v: s.segment(v))
            yield Step("answer", 1.0)
            return Segmentation(patch, request.study, card.name, card.version, device, seconds)

        return work()

    def _segmenter(self, name: str, kind: str) -> Segmenter:
        """The segmenter of a name; `ModelError` unless it is of this kind and runs here."""
        segmenter = self.registry.get(name)
        card = segmenter.card
        if card.kind != kind:
            prompts = "takes no prompts; run it with segment" if kind == "promptable" else "needs prompts; run annotate"
            raise ModelError(f"The model {card.name!r} {prompts}.")
        if not {self.worker.name, "cpu"} & set(card.devices):
            raise ModelError(f"The model {card.name!r} runs on {', '.join(card.devices)}, not on {self.worker.name}.")
        return segmenter

    def _choose(self, name: str, kind: str) -> list[tuple[Segmenter, str]]:
        """The segmenter of a name and where it will run: on the CPU when it knows nothing else. After it comes what
        takes over when the device has too little memory, chosen now, so that it is of the same version."""
        segmenter = self._segmenter(name, kind)
        device = self.worker.name if self.worker.name in segmenter.card.devices else "cpu"
        if device == "cpu" or self.fallback is None or name not in self.fallback:
            return [(segmenter, device)]
        return [(segmenter, device), (self.fallback.get(name), "cpu")]

    def _run(
        self, chosen: list[tuple[Segmenter, str]], study: str, begin: Callable[[Segmenter, Volume], Work]
    ) -> Generator[Step, None, tuple[MaskPatch, ModelCard, str]]:
        """The work that `begin` starts, the card of what did it, and where it ran."""
        yield Step("open", 0.0)
        volume = self.studies.volume(study)
        (segmenter, device), *fallback = chosen
        try:
            return (yield from begin(segmenter, volume)), segmenter.card, device
        except DeviceMemoryError:
            if not fallback:
                raise
        yield Step("once more on the cpu", 0.0)
        ((segmenter, device),) = fallback
        return (yield from begin(segmenter, volume)), segmenter.card, device


def _finished(work: Generator[Step, None, Answer], then: Callable[[Answer], Result]) -> Generator[Step, None, Result]:
    answer = yield from work
    yield Step("answer", 1.0)
    return then(answer)
