"""Events gathered into what a run produced."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from engine.generation.config import GenerationConfig
from engine.generation.events import Beam, Beamed, Event, Failed, Finished, FinishReason, Prefilled, Started, Stepped
from engine.text.token import Token


@dataclass
class LaneResult:
    """One lane's whole run."""

    config: GenerationConfig
    steps: list[Stepped] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    prefill_seconds: float = 0.0
    beams: tuple[Beam, ...] = ()

    @property
    def text(self) -> str:
        return "".join(step.token.text for step in self.steps)


@dataclass
class RunResult:
    """Events gathered into what a run produced."""

    prompts: tuple[tuple[Token, ...], ...] = ()
    lanes: list[LaneResult] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Take in one event. Raises the error of a `Failed` one."""
        match event:
            case Started():
                self.prompts = event.prompts
                self.lanes = [LaneResult(config) for config in event.configs]
            case Prefilled():
                for lane in event.lanes:
                    self.lanes[lane].prefill_seconds = event.seconds
            case Beamed():
                self.lanes[event.lane].beams = event.beams
            case Stepped():
                self.lanes[event.lane].steps.append(event)
            case Finished():
                self.lanes[event.lane].finish_reason = event.reason
            case Failed():
                raise event.error

    def lane_dict(self, index: int, *, candidates: bool = False) -> dict[str, Any]:
        """A lane in the shape of `generate --json`."""
        lane = self.lanes[index]
        return (
            {
                "config": lane.config.to_dict(),
                "text": lane.text,
                "finish_reason": lane.finish_reason,
                "tokens": [step_dict(step, candidates) for step in lane.steps],
                "timing": timing(lane.prefill_seconds, lane.steps),
            }
            | ({} if lane.config.draft is None else {"draft": asdict(drafted(lane.steps))})
            | ({"beams": [asdict(beam) for beam in lane.beams]} if lane.config.strategy == "beam" else {})
        )


@dataclass(frozen=True, slots=True)
class Drafted:
    """What a lane's draft was good for.

    Attributes:
        drafted: tokens that it guessed.
        accepted: those of them that stayed.
        forwards: how often the lane's model ran; the prefill counts once.
        tokens_per_forward: tokens that were written, over these; 1 without a draft.
    """

    drafted: int
    accepted: int
    forwards: int
    tokens_per_forward: float

    @property
    def rate(self) -> float | None:
        """The part of the guesses that stayed; `None` before the first."""
        return self.accepted / self.drafted if self.drafted else None


def drafted(steps: Sequence[Stepped]) -> Drafted:
    """Over some steps of a lane; those that went on without a draft count as steps without a guess."""
    known = [step.draft for step in steps if step.draft is not None]
    forwards = len(steps) - len(known) + sum(one.forward for one in known)
    return Drafted(
        sum(one.drafted for one in known),
        sum(one.outcome == "accepted" for one in known),
        forwards,
        len(steps) / forwards if forwards else 0.0,
    )


def timing(prefill_seconds: float, steps: Sequence[Stepped]) -> dict[str, float]:
    """Seconds of a lane, and tokens per second from the first token to the last: as they passed, beside other lanes."""
    decode = sum(step.seconds for step in steps)
    first = steps[0].seconds if steps else 0.0
    after_first = decode - first
    return {
        "prefill_seconds": prefill_seconds,
        "decode_seconds": decode,
        "time_to_first_token_seconds": prefill_seconds + first,
        "tokens_per_second": (len(steps) - 1) / after_first if after_first > 0 else 0.0,
    }


def step_dict(step: Stepped, candidates: bool) -> dict[str, Any]:
    """A step in the shape of `generate --json`."""
    data: dict[str, Any] = {
        "id": step.token.id,
        "text": step.token.text,
        "piece": step.token.piece,
        "probability": step.probability,
        "raw_probability": step.raw_probability,
        "rank": step.rank,
        "entropy_bits": step.entropy_bits,
        "seconds": step.seconds,
    }
    if step.draft is not None:
        data["draft"] = asdict(step.draft) | {"acceptance": step.draft.acceptance}
    if step.by_grammar:
        data["by_grammar"] = True
    if candidates:
        data["final_entropy_bits"] = step.final_entropy_bits
        data["kept"] = step.kept
        data["cut_mass"] = step.cut_mass
        data["candidates"] = [asdict(candidate) for candidate in step.candidates]
    return data


def event_dict(event: Event) -> dict[str, Any]:
    """An event as one JSON object with its name under `event`."""
    if isinstance(event, Failed):
        return {"event": "Failed", "lane": event.lane, "error": str(event.error)}
    assert is_dataclass(event)
    data = asdict(replace(event, logits=None) if isinstance(event, Stepped) else event)
    data.pop("logits", None)
    return {"event": type(event).__name__} | data
