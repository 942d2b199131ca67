"""How much each token of the prompt surprised the model, asked while their colours tell of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual.widget import Widget

from engine.base.language import _
from engine.generation.config import GenerationConfig
from engine.generation.events import Failed
from engine.job import Job
from engine.lab import Lab
from engine.text.conversation import Conversation
from engine.text.token import Token
from tui.background import in_background
from tui.panes.tokens import TokensPane
from tui.style.colours import MODES, OPINIONS

if TYPE_CHECKING:
    from engine.generation.score import Scored

# Longer prompts are not scored: every position's scores over the vocabulary take a product of their own.
SCORED_TOKENS = 1_000


class PromptScores:
    """Scores what is shown, and hands the scores to the pane of the tokens.

    Args:
        owner: whose worker follows the scores.
        pane: of the tokens; it is there once the owner is mounted.
        failed: called with why there are none.

    Attributes:
        mode: how tokens are coloured, one of `tui.style.colours.MODES`.
    """

    def __init__(
        self, lab: Lab, owner: Widget, pane: Callable[[], TokensPane], failed: Callable[[Exception], object]
    ) -> None:
        self._lab = lab
        self._owner = owner
        self._pane = pane
        self._failed = failed
        self._job: Job[Scored] | None = None
        self.mode = MODES[0]

    def ask(self, tokens: Sequence[Token], config: GenerationConfig, conversation: Conversation | None) -> None:
        """Score tokens with a lane's model, where the colours tell of it.

        Args:
            conversation: that the tokens are of, where they are of one.
        """
        if self._job is not None:
            self._job.cancel()
        model = self._lab.model_of(config)
        if model is None or self.mode in ("tokens", *OPINIONS) or len(tokens) < 2:
            return
        if not model.capabilities.prompt_scores:
            self._pane().leave_unjudged(_("this server does not score prompts"))
        elif len(tokens) > SCORED_TOKENS:
            self._pane().leave_unjudged(_("over {most:,} tokens: not scored here", most=SCORED_TOKENS))
        else:
            self._job = self._lab.score(tokens, config)
            in_background(self._owner, "score", self._follow, self._job, conversation)

    async def _follow(self, job: "Job[Scored]", conversation: Conversation | None) -> None:
        scores: list[Scored] = []
        async for frame in job.frames():
            for event in frame:
                if isinstance(event, Failed):
                    self._failed(event.error)
                else:
                    scores.append(event)
        if not job.cancelled:
            self._pane().judge(scores, conversation)
