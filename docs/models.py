"""Write `docs/models.md`: every causal architecture of the installed transformers, in its smallest configuration.

Each row is measured: a random model is saved, loaded as any folder is, and what it answers compared with transformers'
module over whole texts with nothing kept. Run by `make models`; `ARGS="llama mamba"` prints some architectures alone.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
sys.path.insert(0, str(Path(__file__).parent.parent))

TABLE = Path(__file__).parent / "models.md"
BEGIN, END = "<!-- architectures -->", "<!-- /architectures -->"
HEAD = """# Models

{begin}
## Architectures through safetensors

Every architecture that transformers {version} has as a causal language model, as a random model in its smallest
configuration, float32, compared with transformers' module over whole texts: greedy continuations, lanes of different
lengths, contrastive search (similarities, scores and choices), the score of every token of a text of 600, the next
token after 600, and a branch that leaves a lane. `yes` is equal to rounding. *Way* says what is slower than usual, and
why; a model that no way is safe for is refused with the sentence that stands there. *As a decoder* is with `is_decoder`
in its configuration.

{causal}

## Text parts of models that take pictures or sound

Folders as such models are published: with all their parts, compared with the whole model's module given text alone.
Not tried are those whose other parts have no small configuration.

{wholes}
{end}
"""


AS_DECODER = " as a decoder"


def row(name: str) -> list[str]:
    """One architecture's line: name, loads, way, then each check."""
    from tests.judged import CHECKS, judge
    from tests.tiny_models import save_model

    kind = name.removesuffix(AS_DECODER)
    changes = {"is_decoder": True} if name != kind else {}
    with tempfile.TemporaryDirectory(prefix="logitlab-models-") as folder:
        try:
            save_model(Path(folder) / kind, kind, **changes)
        except Exception as error:
            return [
                name,
                "not tried",
                f"no small configuration ({type(error).__name__})",
                *[""] * len(CHECKS),
            ]
        judged = judge(Path(folder) / kind, Path(folder) / "cache")
    if not judged.loads:
        return [name, "refused", judged.way.replace(f"{folder}/", ""), *[""] * len(CHECKS)]
    return [name, "yes", judged.way, *(judged.outcomes[check] or "yes" for check in CHECKS)]


def main(kinds: list[str]) -> int:
    import torch
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    from engine.networks.complete import CAUSAL_ANYWAY
    from tests.tiny_models import causal_architectures, more_than_text

    torch.set_num_threads(1)
    causal = sorted(causal_architectures())
    filling = MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys() & set(causal) - set(CAUSAL_ANYWAY)
    filling -= MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.keys()  # whose decoder stands there anyway
    causal = sorted([*causal, *(kind + AS_DECODER for kind in filling)])
    wholes = sorted(more_than_text().keys() - causal)
    rows: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as state:
        os.environ["LOGITLAB_STATE_DIR"] = state
        for kind in kinds or [*causal, *wholes]:
            rows[kind] = row(kind)
            print(" | ".join(rows[kind]), flush=True)
    if kinds:
        return 0
    table = HEAD.format(
        version=transformers.__version__,
        causal=_table([rows[kind] for kind in causal]),
        wholes=_table([rows[kind] for kind in wholes]),
        begin=BEGIN,
        end=END,
    )
    if TABLE.is_file() and BEGIN in (before := TABLE.read_text(encoding="utf-8")):
        part = table[table.index(BEGIN) : table.index(END) + len(END)]
        table = before[: before.index(BEGIN)] + part + before[before.index(END) + len(END) :]
    TABLE.write_text(table, encoding="utf-8")
    return any(cell not in ("", "yes") for cells in rows.values() for cell in cells[3:])


def _table(rows: list[list[str]]) -> str:
    from tests.judged import CHECKS

    lines = ["| architecture | loads | way | " + " | ".join(CHECKS) + " |", "|---" * (3 + len(CHECKS)) + "|"]
    return "\n".join(
        [*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in rows)]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
