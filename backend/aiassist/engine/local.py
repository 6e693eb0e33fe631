"""The backend in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace

from aiassist.engine.backend import AnnotateRequest, Annotation
from aiassist.engine.job import Job
from aiassist.engine.studies import Studies
from aiassist.engine.worker import Worker
from aiassist.errors import DeviceMemoryError, ModelError
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step
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
    threaded : bool
        See `Worker`. When False, `annotate` still blocks until its answer is there, and jobs of
        `submit` advance only by `step`.
    """

    def __init__(
        self,
        registry: Registry | None = None,
        device: str = "cpu",
        default: str = DEFAULT,
        threaded: bool = True,
        studies: Studies | None = None,
        queue: int | None = None,
    ):
        self.registry = registry if registry is not None else bundled(device)
        #: Takes over where the device has too little memory.
        self.fallback = bundled("cpu") if device != "cpu" else None
        self.default = default
        self.studies = studies if studies is not None else Studies()
        self.worker = Worker(device, threaded, queue)
        self._latest: dict[tuple[str, str, str], Job] = {}
        self._lock = threading.Lock()

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
        Prompts(prior=patch).check(self.studies.geometry(study))
        return self.studies.remember(study, patch.over(None))

    def submit(self, request: AnnotateRequest, progress: Callable[[Step], None] | None = None) -> Job[Annotation]:
        """See `Backend.submit`; what is wrong with the request is raised here, not later."""
        job = self._job(request, progress)
        key = (request.client, request.study, request.structure)
        with self._lock:
            self.worker.add(job, instead_of=self._latest.get(key))
            self._latest = {k: j for k, j in self._latest.items() if not j.finished}
            self._latest[key] = job
        return job

    def annotate(self, request: AnnotateRequest, progress: Callable[[Step], None] | None = None) -> Annotation:
        """See `Backend.annotate`."""
        job = self.submit(request, progress)
        if self.worker.threaded:
            return job.result()
        while not job.finished:
            self.worker.step()
        return job.result()

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

    def _job(self, request: AnnotateRequest, progress) -> Job[Annotation]:
        segmenter = self.registry.get(request.model or self.default)
        card = segmenter.card
        if card.kind != "promptable":
            raise ModelError(f"The model {card.name!r} takes no prompts; run it with segment.")
        if self.worker.name not in card.devices:
            raise ModelError(f"The model {card.name!r} runs on {', '.join(card.devices)}, not on {self.worker.name}.")
        geometry = self.studies.geometry(request.study)
        prompts = request.prompts
        if request.base is not None:
            prompts = replace(prompts, prior=self.studies.mask(request.study, request.base))
        prompts.check(geometry)

        base = request.base or (prompts.prior.version if prompts.prior is not None else None)

        def work() -> Generator[Step, None, Annotation]:
            yield Step("open", 0.0)
            volume, device = self.studies.volume(request.study), self.worker.name
            try:
                patch = yield from segmenter.annotate(volume, prompts)
            except DeviceMemoryError:
                if self.fallback is None:
                    raise
                device = "cpu"
                yield Step("once more on the cpu", 0.0)
                patch = yield from self.fallback.get(card.name).annotate(volume, prompts)
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
                seconds=job.seconds,
            )

        job: Job[Annotation] = Job(work(), progress)
        return job
