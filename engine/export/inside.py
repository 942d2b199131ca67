"""What was seen inside a model, as tables and as heat maps: the lens, attention, attribution, occlusion."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from engine.base import plain
from engine.base.language import N_, _
from engine.export.heat import Cell, Scale, bars_svg, flow_svg, grid_svg
from engine.export.sheet import Sheet
from engine.text.token import Token
from engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from engine.inside.attention import Attention, HeadLook
    from engine.inside.attribution import Attribution
    from engine.inside.lens import Lens, LensCell
    from engine.inside.occlusion import Occlusion

Measure = Literal["probability", "entropy", "rank"]
HeadMeasure = Literal["first", "previous", "entropy"]

# What must not be read into each of them.
CAUTIONS = {
    "lens": N_("a layer's row is what the output layer would say to it, not what the model thinks there"),
    "attention": N_("an attention weight is not a cause; what changes where a token is left out is"),
    "attribution": N_("shares are linear, with the final norm's scale held as it is, and of the direct way only"),
    "occlusion": N_("a token left out moves those behind it; of two that say the same, each alone changes little"),
    "patching": N_("where it suffices to put the clean prompt's vector in, not where alone the answer is made"),
}


def lens_sheet(lens: "Lens", tokens: Sequence[Token], tokenizer: Tokenizer) -> Sheet:
    """A row for each cell of the grid: what would be said, and the tokens that were asked for.

    Args:
        tokens: of the whole text.
    """
    shown = _cells(lens)
    tops = max((len(cell.top) for _row, cells in shown for cell in cells), default=0)
    tracked = shown[0][1][0].tracked if shown and shown[0][1] else ()
    columns = ["layer", "position", "token", "decided_at", "entropy_bits", "final_rank", "final_probability"]
    columns += [f"{name}_{place}" for place in range(1, tops + 1) for name in ("id", "text", "probability")]
    for one in tracked:
        label = tokenizer.label(one.id)
        columns += [_("rank of {token}", token=label), _("probability of {token}", token=label)]
    rows = []
    for row, cells in shown:
        for cell, decided in zip(cells, lens.decided_at):
            values: list[object] = [row, cell.position, tokens[cell.position].label, decided, cell.entropy_bits]
            values += [cell.final.rank, cell.final.probability]
            for one in cell.top:
                values += [one.id, tokenizer.label(one.id), one.probability]
            values += [value for one in cell.tracked for value in (one.rank, one.probability)]
            rows.append(tuple(values))
    return Sheet(
        _("Logit lens: what each layer would say"),
        tuple(columns),
        rows,
        (_("layer 0 is the embedding, layer n what the first n blocks leave"), _(CAUTIONS["lens"])),
        shaped(tokens, lens.to_dict(tokenizer)),
    )


def lens_svg(lens: "Lens", tokens: Sequence[Token], tokenizer: Tokenizer, measure: Measure = "probability") -> str:
    """The grid: layers upwards, positions to the right, a frame where a position is decided."""
    shown = _cells(lens)
    positions = [cell.position for cell in shown[0][1]]
    highest = max((cell.entropy_bits for _row, cells in shown for cell in cells), default=0.0)
    # Rank 1 is full, and each ten times as far down is a step less.
    scale = {
        "probability": Scale(_("probability of the token on top"), 1.0),
        "entropy": Scale(_("entropy in bits"), highest, lambda value: f"{value:.1f}"),
        "rank": Scale(_("rank of the final token: 1, 10, 100, …"), 5.0, lambda value: f"{10 ** (5 - value):,.0f}"),
    }[measure]
    rows = [
        (
            str(row),
            [
                Cell(_measured(cell, measure), tokenizer.label(cell.top[0].id), decided == row)
                for cell, decided in zip(cells, lens.decided_at)
            ],
        )
        for row, cells in reversed(shown)
    ]
    return grid_svg(
        _("Logit lens: what each layer would say after each token"),
        [tokens[position].label for position in positions],
        rows,
        scale,
        (_("framed: decided, the token on top stays from here on; layer 0 is the embedding"), _(CAUTIONS["lens"])),
        column_title=_("token"),
        row_title=_("layer"),
    )


def attention_title(attention: "Attention") -> str:
    """Which weights these are, and of which position."""
    which = {
        "head": _("layer {layer}, head {head}", layer=attention.layer, head=attention.head),
        "mean": _("layer {layer}, mean of its heads", layer=attention.layer),
        "all": _("mean of all layers' heads"),
        "rollout": _("rollout through all layers"),
    }[attention.kind]
    if attention.by_value:
        which = _("{which}, by value", which=which)
    return _("What position {at} looks at: {which}", at=attention.at, which=which)


def attention_sheet(attention: "Attention", tokens: Sequence[Token]) -> Sheet:
    """A row for each token of the text."""
    rows = [
        (position, token.id, token.label, weight)
        for position, (token, weight) in enumerate(zip(tokens, attention.weights, strict=True))
    ]
    return Sheet(
        attention_title(attention),
        ("position", "id", "token", "weight"),
        rows,
        (_(CAUTIONS["attention"]),),
        shaped(tokens, attention.to_dict()),
    )


def attention_svg(attention: "Attention", tokens: Sequence[Token]) -> str:
    """The text up to the position that looks, which is framed, coloured by weight."""
    cells = [
        Cell(weight, token.label, place == attention.at)
        for place, (token, weight) in enumerate(zip(tokens, attention.weights))
        if place <= attention.at
    ]
    most = max((weight for weight in attention.weights if weight is not None), default=0.0)
    scale = (
        Scale(_("length of what the weight moves"), most, plain_number)
        if attention.by_value
        else Scale(_("attention weight"), most)
    )
    return flow_svg(attention_title(attention), cells, scale, (_(CAUTIONS["attention"]),))


def heads_sheet(heads: "Sequence[Sequence[HeadLook]]", at: int) -> Sheet:
    """A row for each head: how much it looks at the first token and at the previous one, and how spread it is."""
    rows = [
        (layer, head, look.first, look.previous, look.entropy_bits)
        for layer, looks in enumerate(heads)
        for head, look in enumerate(looks)
    ]
    title = _("Where all heads look from position {at}", at=at)
    return Sheet(title, ("layer", "head", "first", "previous", "entropy_bits"), rows, (_(CAUTIONS["attention"]),))


def heads_svg(heads: "Sequence[Sequence[HeadLook]]", at: int, measure: HeadMeasure = "first") -> str:
    """The map of all heads: layers upwards, heads to the right."""
    highest = max((look.entropy_bits for looks in heads for look in looks), default=0.0)
    scale = {
        "first": Scale(_("weight on the first token"), 1.0),
        "previous": Scale(_("weight on the previous token"), 1.0),
        "entropy": Scale(_("entropy of the weights in bits"), highest, lambda value: f"{value:.1f}"),
    }[measure]

    def value(look: "HeadLook") -> float:
        return {"first": look.first, "previous": look.previous, "entropy": look.entropy_bits}[measure]

    rows = [(str(layer), [Cell(value(look)) for look in looks]) for layer, looks in enumerate(heads)]
    most = max((len(looks) for looks in heads), default=0)
    return grid_svg(
        _("Where all heads look from position {at}", at=at),
        [str(head) for head in range(most)],
        rows[::-1],
        scale,
        (_(CAUTIONS["attention"]),),
        column_title=_("head"),
        row_title=_("layer"),
    )


def attribution_title(attribution: "Attribution", tokenizer: Tokenizer) -> str:
    return _(
        "Why “{a}” and not “{b}”",
        a=plain.one_line(tokenizer.label(attribution.a.id)),
        b=plain.one_line(tokenizer.label(attribution.b.id)),
    )


def adds_up(attribution: "Attribution") -> str:
    """The sum, in words."""
    words = _(
        "logit {a:.3f} less {b:.3f} is {difference}; the shares add up to {sum}, remainder {remainder}",
        a=attribution.a.value,
        b=attribution.b.value,
        difference=signed(attribution.difference),
        sum=signed(attribution.sum),
        remainder=signed(attribution.remainder, "+.2g"),
    )
    if attribution.cap is not None:
        words += _(" (logits before the soft cap of {cap:g})", cap=attribution.cap)
    return words


def attribution_sheet(attribution: "Attribution", tokens: Sequence[Token], tokenizer: Tokenizer) -> Sheet:
    """A row for each part, in the order of layers."""
    rows = [(part.name, part.layer, part.head, part.share) for part in attribution.parts]
    return Sheet(
        attribution_title(attribution, tokenizer),
        ("part", "layer", "head", "share"),
        rows,
        (adds_up(attribution), _(CAUTIONS["attribution"])),
        shaped(tokens, attribution.to_dict(tokenizer)),
    )


def attribution_svg(attribution: "Attribution", tokenizer: Tokenizer) -> str:
    """Signed bars, the largest first."""
    bars = [(part.name, part.share) for part in largest_first(attribution)]
    scale = Scale(_("share"), max((abs(share) for _name, share in bars), default=0.0), signed, diverging=True)
    a, b = (plain.one_line(tokenizer.label(one.id)) for one in (attribution.a, attribution.b))
    sides = _("to the right: for “{a}”; to the left: for “{b}”", a=a, b=b)
    notes = (sides, adds_up(attribution), _(CAUTIONS["attribution"]))
    return bars_svg(attribution_title(attribution, tokenizer), bars, scale, notes)


def largest_first(attribution: "Attribution") -> list[Any]:
    """The parts by the size of their shares, whatever their sign."""
    return sorted(attribution.parts, key=lambda part: -abs(part.share))


def occlusion_title(occlusion: "Occlusion", tokenizer: Tokenizer) -> str:
    return _(
        "Which tokens mattered for “{token}” (log-probability {value})",
        token=plain.one_line(tokenizer.label(occlusion.token)),
        value=signed(occlusion.log_probability),
    )


def occlusion_sheet(occlusion: "Occlusion", tokens: Sequence[Token], tokenizer: Tokenizer) -> Sheet:
    """A row for each token of the text, left out."""
    rows = [
        (one.position, tokens[one.position].id, tokens[one.position].label, one.log_probability, one.change)
        for one in occlusion.without
    ]
    return Sheet(
        occlusion_title(occlusion, tokenizer),
        ("position", "id", "token", "log_probability", "change"),
        rows,
        (_(CAUTIONS["occlusion"]),),
        shaped(tokens, occlusion.to_dict(tokenizer)),
    )


def occlusion_svg(occlusion: "Occlusion", tokens: Sequence[Token], tokenizer: Tokenizer) -> str:
    """The text coloured by how much the log-probability falls without each token: blue where the token spoke for it."""
    cells = [Cell(-one.change, tokens[one.position].label) for one in occlusion.without]
    most = max((abs(one.change) for one in occlusion.without), default=0.0)
    scale = Scale(_("fall of the log-probability without the token, in nats"), most, signed, diverging=True)
    return flow_svg(occlusion_title(occlusion, tokenizer), cells, scale, (_(CAUTIONS["occlusion"]),))


def shaped(tokens: Sequence[Token], result: dict[str, Any]) -> dict[str, Any]:
    """A result as `--json` has it beside the model."""
    return {"tokens": [{"id": token.id, "text": token.text} for token in tokens], **result}


def signed(value: float, form: str = "+.3f") -> str:
    """A number with its sign.

    >>> signed(-0.5)
    '−0.500'
    """
    return format(value, form).replace("-", "−", 1) if value < 0 else format(value, form)


def plain_number(value: float) -> str:
    return f"{value:.3g}"


def _measured(cell: "LensCell", measure: Measure) -> float:
    if measure == "entropy":
        return cell.entropy_bits
    if measure == "rank":
        return 5 - math.log10(cell.final.rank)
    return cell.top[0].probability


def _cells(lens: "Lens") -> "list[tuple[int, tuple[LensCell, ...]]]":
    """Rows from the embedding up."""
    return [(number, row.cells) for number, row in sorted(lens.rows.items())]
