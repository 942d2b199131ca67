"""Whether a folder holds a whole model of a kind that continues text, with every weight and no other."""

import importlib.util
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from engine.base.errors import MachineError, ModelFileError
from engine.base.language import N_, _

NAMED = 3
# Computed anew by every implementation, and left in files of older versions.
COMPUTED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.bias$|\.masked_bias$|position_ids$")
# Parts of a model that reads more than text, and of prediction several tokens ahead; its text part runs without them.
OTHER_PARTS = re.compile(r"(^|\.)(vis\w*|audio\w*|embed_(vision|audio)|\w*projector|\w*connector|image\w*|mtp\w*)\.")


def refuse_other_kinds(config: Any, name: str) -> None:
    """Raise `ModelFileError` for a model that does not continue text, with what it is.

    Args:
        config: transformers' own, of the whole model.
    """
    from transformers.models.auto import modeling_auto as known

    kind = config.model_type
    continues = kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or reads_more_than_text(kind)
    filling = known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if kind in OTHERWISE:
        what = _(OTHERWISE[kind])
    elif kind in known.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES:
        what = _(SOUND)
    elif kind.endswith("_assistant"):
        what = _("a helper that guesses tokens for another model from that model's states")
    elif "reference_sliding_attention" in (getattr(config.get_text_config(), "layer_types", None) or ()):
        what = _("a model that reads a prompt in another way than what it has written")
    elif kind == "xmod" and config.is_decoder and config.default_language is None:
        what = _("a model of several languages whose configuration names none")
    elif "lsh" in getattr(config, "attn_layers", ()):
        what = _("a model that draws at random what it attends to")
    elif getattr(config, "is_encoder_decoder", False) or _decodes_apart(config):
        what = (
            _("an encoder-decoder, which turns speech into text")
            if kind in known.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES
            else _("an encoder-decoder, which turns pictures into text")
            if kind in known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            else _("an encoder-decoder, which turns one text into another")
        )
    elif kind in filling and not getattr(config, "is_decoder", False) and kind not in CAUSAL_ANYWAY:
        what = _("an encoder, which fills gaps in a text")
    elif not continues:
        what = _("no causal language model")
    else:
        return
    raise ModelFileError(
        _("{name} is {what} ({kind}); choose a model that continues text", name=name, what=what, kind=kind)
    )


def reads_more_than_text(kind: str) -> bool:
    """Whether transformers runs a kind of model with a class that takes pictures or sound beside text."""
    from transformers.models.auto import modeling_auto as known

    return kind in known.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES


def _decodes_apart(config: Any) -> bool:
    """Whether the part that reads text is an encoder-decoder."""
    text = config.get_text_config()
    return text is not config and bool(getattr(text, "is_encoder_decoder", False))


SOUND = N_("a model that writes sound")
OTHERWISE = {
    "diffusion_gemma": N_("a model that writes whole blocks of text at once"),
    "evolla": N_("a model that reads proteins"),
    "musicgen": SOUND,
    "musicgen_melody": SOUND,
    "pi0": N_("a model that moves a robot"),
    "shieldgemma2": N_("a classifier of pictures"),
}
# transformers lists them among those that fill gaps, too; whether they are causal is measured.
CAUSAL_ANYWAY = ("reformer", "xlm", "xlnet")


def refuse_unknown(config: Mapping[str, Any], name: str) -> None:
    """Raise `ModelFileError` for an architecture that the installed transformers does not have."""
    import transformers

    kind = config.get("model_type")
    if kind in transformers.CONFIG_MAPPING:
        return
    if not kind:
        raise ModelFileError(_("{name}: config.json names no architecture (model_type)", name=name))
    if config.get("auto_map"):
        raise ModelFileError(
            _("{name} needs code from its repository, which is never run; choose another model", name=name)
        )
    raise ModelFileError(
        _(
            "{name} has the architecture {kind}, which transformers {version} does not know; choose another model",
            name=name,
            kind=repr(kind),
            version=transformers.__version__,
        )
    )


def check_names(missing: Collection[str], unexpected: Collection[str], *, parts: bool = False) -> None:
    """Raise `ModelFileError` that names weights which a file lacks, and those that have no place in the model.

    Args:
        parts: whether the model has parts beside its text part, whose weights are left out.
    """
    if missing:
        raise ModelFileError(_("the weights lack {names}; the model is not complete", names=_named(missing)))
    strange = [name for name in unexpected if not COMPUTED.search(name) and not (parts and OTHER_PARTS.search(name))]
    if strange:
        raise ModelFileError(
            _("the weights hold {names}, which this kind of model does not have", names=_named(strange))
        )


def check_loaded(found: Mapping[str, Any], *, shallow: bool, parts: bool) -> None:
    """Raise `ModelFileError` where transformers has drawn weights at random, or left some out.

    Args:
        found: its loading information.
        shallow: whether only the first layers were wanted, so that those of the others are left over.
    """
    _check_shapes(found.get("mismatched_keys") or ())
    check_names(found["missing_keys"], [] if shallow else found["unexpected_keys"], parts=parts)


def _check_shapes(mismatched: Collection[tuple[str, Any, Any]]) -> None:
    """Raise `ModelFileError` for weights of another shape: name, that in the file, that in the model."""
    for name, here, wanted in sorted(mismatched)[:1]:
        raise ModelFileError(
            _(
                "{name} has the shape {here} and the configuration wants {wanted}",
                name=name,
                here=str(tuple(here)),
                wanted=str(tuple(wanted)),
            )
        )


def add_adapter(model: Any, folder: Path) -> None:
    """Put a PEFT adapter's weights into a module that transformers has loaded.

    Raises:
        MachineError: `peft` is not installed.
        ModelFileError: the adapter does not fit the model.
    """
    need_peft(folder.name)
    import peft

    config = peft.PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning:
        raise ModelFileError(
            _(
                "{name} puts learnt vectors before a text, which are no tokens; use an adapter of weights",
                name=folder.name,
            )
        )
    config.inference_mode = True
    adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
    weights = peft.load_peft_weights(str(folder), device="cpu", local_files_only=True)
    wanted = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    _check_shapes(
        [
            (name, weights[name].shape, wanted[name].shape)
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ]
    )
    check_names(wanted.keys() - weights.keys(), ())
    check_names((), peft.set_peft_model_state_dict(adapted, weights).unexpected_keys)
    model.eval()


def need_peft(name: str) -> None:
    """Raise `MachineError` where adapters cannot be used."""
    if importlib.util.find_spec("peft") is None:
        raise MachineError(_("{name} holds an adapter; to use it: pip install 'logitlab[adapters]' (peft)", name=name))


def _named(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED])
    more = len(names) - NAMED
    return shown if more <= 0 else _("{names} and {count:,} more", names=shown, count=more)
