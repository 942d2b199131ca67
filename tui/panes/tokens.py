"""The prompt as the model sees it: coloured tokens, one of them in detail, and how full the context is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Static

from engine.base.language import _, counted
from engine.base.plain import number
from engine.text.conversation import Conversation
from engine.text.rendering import Rendered
from engine.text.sharing import shared_characters
from engine.text.token import Token, drawn
from tui.actions import bindings
from tui.sentences import sentence
from tui.style.colours import ink
from tui.widgets.token_flow import TokenFlow

if TYPE_CHECKING:
    from engine.generation.score import ConversationTotals, Scored

# A prompt of a megabyte has 250,000 tokens; more than this is counted but not drawn.
SHOWN_TOKENS = 4_000
GAUGE_CELLS = 10


class TokensPane(Vertical):
    """The breakdown, always visible.

    Attributes:
        rendered: what the chat template made of a conversation, where the tokens are those of one.
    """

    BINDINGS = bindings("tokens")

    class ColourWanted(Message):
        """Colour tokens by the next measure."""

    class RemarksWanted(Message):
        """All that is to be known of the conversation is to be listed."""

    @dataclass
    class Pointed(Message):
        """The cursor is on the prompt token at `position`."""

        position: int

    def __init__(self) -> None:
        super().__init__(id="tokens")
        self.rendered: Rendered | None = None
        self._totals: ConversationTotals | None = None
        self._tokens: Sequence[Token] = ()
        self._shared: dict[int, str] = {}  # the character that a token has a part of
        self._context_length: int | None = None
        self._title = _("Tokens")
        self.border_title = self._title

    def compose(self) -> ComposeResult:
        yield TokenFlow(moved=self._go, labels=True, whole=True, id="breakdown")
        yield Static(id="token-detail")

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._draw() if self._tokens else None)

    def _draw(self) -> None:
        """What has the theme's colours written into it."""
        self.border_subtitle = _gauge(self.app, len(self._tokens), self._context_length)
        self._describe()

    def show(
        self,
        tokens: Sequence[Token],
        text: str,
        context_length: int | None,
        *,
        uncut: bool = False,
        rendered: Rendered | None = None,
    ) -> None:
        """Show the tokens of `text`; the model's context holds `context_length`.

        Args:
            uncut: nobody here can cut it: what is shown is the text as a whole.
            rendered: what the chat template made of it.
        """
        self._tokens, self._context_length, self.rendered = tokens, context_length, rendered
        self.remove_class("waiting")
        self._shared = {
            place: one.character
            for one in shared_characters(tokens[:SHOWN_TOKENS])
            for place in range(one.first, one.last + 1)
        }
        flow = self.query_one(TokenFlow)
        flow.judged = ()
        self._totals = None
        flow.messages = () if rendered is None else rendered.messages
        flow.set_tokens(tokens[:SHOWN_TOKENS])
        counts = (
            counted("{count:,} token", "{count:,} tokens", len(tokens)),
            counted("{count:,} character", "{count:,} characters", len(text)),
        )
        self._title = " · ".join((_("Tokens"), *counts))
        if uncut:
            self._title = _("Tokens · this server has no tokenizer to ask: the prompt is shown whole")
        if len(tokens) > SHOWN_TOKENS:
            self._title += _(" · first {shown:,} shown", shown=SHOWN_TOKENS)
        self.border_title = self._title
        self._draw()

    def reveal(self, message: int) -> None:
        """Scroll to the tokens of a message, or to where they would be, unless the cursor holds another place."""
        flow = self.query_one(TokenFlow)
        if self.rendered is None or flow.cursor is not None or not flow.tokens:
            return
        places = enumerate(self.rendered.messages[:SHOWN_TOKENS])
        found = next((place for place, one in places if one is not None and one >= message), None)
        flow.reveal(len(flow.tokens) - 1 if found is None else found)

    def judge(self, scores: Sequence["Scored"], conversation: Conversation | None = None) -> None:
        """How much each token surprised the model, and the whole; of a conversation, each message and the answers."""
        from engine.generation.score import by_message, total

        flow = self.query_one(TokenFlow)
        flow.judged = scores
        flow.refresh()
        whole = total(scores)
        if whole.perplexity is not None:
            self.border_title = _(
                "{title} · {bits:.1f} bits · perplexity {perplexity:,.1f}",
                title=self._title,
                bits=whole.bits,
                perplexity=whole.perplexity,
            )
        if conversation is not None and self.rendered is not None and len(scores) == len(self.rendered.messages):
            self._totals = by_message(scores, self.rendered.messages, conversation)
            if self._totals.answers.perplexity is not None:
                answers = _("answers alone {perplexity:,.1f}", perplexity=self._totals.answers.perplexity)
                self.border_title = f"{self.border_title} · {answers}"
        self._describe()

    def leave_unjudged(self, why: str) -> None:
        """Say why the tokens have no scores."""
        self.border_title = f"{self._title} · {why}"

    def colour(self, mode: str) -> None:
        """Colour tokens by a mode of `tui.style.colours`."""
        self.query_one(TokenFlow).mode = mode
        if mode == "tokens":
            self.border_title = self._title

    def action_colour(self) -> None:
        self.post_message(self.ColourWanted())

    def action_remarks(self) -> None:
        self.post_message(self.RemarksWanted())

    def wait(self, why: str) -> None:
        """Say why there are no tokens to show."""
        self.add_class("waiting")
        self.border_title = _("Tokens")
        self.query_one("#token-detail", Static).update(Text(why, style="dim"))

    def point(self, position: int) -> None:
        """Put the cursor on a token without telling anybody."""
        self.query_one(TokenFlow).cursor = min(position, len(self._tokens) - 1) if self._tokens else None
        self._describe()

    def _go(self, index: int) -> None:
        self._describe()
        self.post_message(self.Pointed(index))

    def _of_message(self, place: int) -> str:
        """How much the message that a token comes from surprised the model, as far as that is known."""
        message = None if self.rendered is None else self.rendered.messages[place]
        if message is None or self._totals is None:
            return ""
        whole = self._totals.messages[message].total
        if whole.perplexity is None:
            return ""
        return _(" ({bits:.1f} bits, perplexity {perplexity:,.1f})", bits=whole.bits, perplexity=whole.perplexity)

    def _describe(self) -> None:
        flow = self.query_one(TokenFlow)
        token = flow.token_at(flow.cursor)
        detail = self.query_one("#token-detail", Static)
        if token is not None:
            text = describe(self.app, token)
            if flow.cursor is not None and (origin := origin_of(self.rendered, flow.cursor)):
                text.append("   " + origin + self._of_message(flow.cursor), style="italic")
            if flow.cursor in self._shared:
                text.append("   " + _("part of {character}", character=drawn(self._shared[flow.cursor])))
            judged = flow.judged[flow.cursor] if flow.cursor is not None and flow.cursor < len(flow.judged) else None
            surprisal, rank = getattr(judged, "surprisal_bits", None), getattr(judged, "rank", None)
            if surprisal is not None:
                text.append(_("   surprisal {surprisal:.1f} bits, rank {rank}", surprisal=surprisal, rank=number(rank)))
            detail.update(text, layout=False)
        elif self._tokens:
            words = (
                sentence(
                    _(
                        "Words are not tokens: {next_pane} here, then {token_flow.previous} {token_flow.next} to "
                        "look at one."
                    )
                )
                if len(self._tokens) > 1
                else ""
            )
            detail.update(Text(words, style="dim"), layout=False)
        else:
            detail.update(Text(_("Type a prompt above."), style="dim"), layout=False)


class TokenTable(DataTable[Text]):
    """The same tokens as rows: position, id, piece, bytes."""

    def __init__(self) -> None:
        super().__init__(id="token-table", cursor_type="row", zebra_stripes=True)
        self._following = False
        self._tokens: Sequence[Token] = ()
        self._rendered: Rendered | None = None
        self._stale = False

    def on_mount(self) -> None:
        texts = ((_("position"), 8), ("id", 7), (_("piece"), 20), (_("bytes"), 12), (_("special"), 8))
        for title, width in (*texts, (_("message"), 9)):
            self.add_column(title, width=width)

    def show(self, tokens: Sequence[Token], rendered: Rendered | None = None) -> None:
        """Show these tokens; built only once it can be seen, so that typing stays fluent."""
        self._tokens, self._rendered, self._stale = tokens, rendered, True
        if self.is_on_screen:
            self._build()

    def on_show(self) -> None:
        if self._stale:
            self._build()

    def _build(self) -> None:
        self._stale = False
        self.clear()
        self.add_rows(
            (
                Text(f"{token.position}", justify="right"),
                Text(f"{token.id}", justify="right"),
                Text(drawn(token.label)),
                Text(f"{token.start}–{token.end}"),
                Text(_("special") if token.special else ""),
                Text(self._message(place), style="dim", justify="right"),
            )
            for place, token in enumerate(self._tokens[:SHOWN_TOKENS])
        )

    def _message(self, place: int) -> str:
        """The number of the message that a token comes from."""
        if self._rendered is None or place >= len(self._rendered.messages):
            return ""
        message = self._rendered.messages[place]
        return _("template") if message is None else f"{message + 1}"

    def point(self, position: int) -> None:
        """Move to a row without telling anybody."""
        if self._stale:
            self._build()
        self._following = True
        self.move_cursor(row=position, animate=False)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        if self._following or not self.has_focus:
            self._following = False
            return
        self.post_message(TokensPane.Pointed(event.cursor_row))


def origin_of(rendered: Rendered | None, place: int) -> str:
    """What a token of a conversation comes from; empty where it is no conversation."""
    if rendered is None or place >= len(rendered.messages):
        return ""
    message = rendered.messages[place]
    return _("the template") if message is None else _("message {number}", number=message + 1)


def describe(app: App[Any], token: Token) -> Text:
    """`pos 4  id 2240  "·city"  5 bytes`."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(_("pos {position}", position=token.position), style="bold")
    text.append(_("   id {id}   ", id=token.id))
    text.append(f"“{drawn(token.label)}”", style=f"bold {ink(app, 'warning')}")
    size = token.end - token.start
    text.append("   " + counted("{count:,} byte", "{count:,} bytes", size) + f" ({token.start}–{token.end})")
    if token.special:
        text.append("   " + _("special"), style="italic")
    return text


def _gauge(app: App[Any], tokens: int, context_length: int | None) -> Text:
    if not context_length:
        return Text("")
    share = tokens / context_length
    filled = min(GAUGE_CELLS, round(share * GAUGE_CELLS)) or (1 if tokens else 0)
    style = f"bold {ink(app, 'wrong')}" if share > 1 else ink(app, "note")
    text = Text("▮" * filled, style=style)
    text.append("▯" * (GAUGE_CELLS - filled), style="dim")
    text.append(
        _(" {share:.1%} of {context_length:,}", share=share, context_length=context_length),
        style=style if share > 1 else "",
    )
    return text
