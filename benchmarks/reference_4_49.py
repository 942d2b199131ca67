"""Write tests/engine/contrastive_4_49.json: greedy and contrastive tokens by transformers 4.49.

transformers 5 has no contrastive search, so the oracle is the last release that had it, in an environment of its own;
in any other the last command says so and writes nothing:

    python -m venv /tmp/old && /tmp/old/bin/pip install 'transformers==4.49.0' 'torch' 'numpy'
    .venv/bin/python benchmarks/reference_4_49.py --export /tmp/old/model
    /tmp/old/bin/python benchmarks/reference_4_49.py /tmp/old/model
"""

import argparse
import json
from pathlib import Path

PROMPTS = [
    "The sky above the city looked calm, but",
    "Elixir is pleasant for interactive experiments because",
    "A robot entered the library and asked",
    "Write a short poem about rain and memory.",
    "In 1969, the first",
    "日本の首都は",
]
NEW_TOKENS = 24
RELEASE = "4.49.0"
ENVIRONMENT = f"run this with transformers {RELEASE} in an environment of its own, as written at its top"
TARGET = Path(__file__).parents[1] / "tests" / "engine" / "contrastive_4_49.json"


def export(name: str, folder: Path) -> None:
    """A model as float32 safetensors, with its tokenizer."""
    import torch

    from engine.models import catalog
    from engine.models.tokenizer_files import load_tokenizer
    from engine.networks.sources import open_source

    path = catalog.find(name).path
    if path is None:
        raise SystemExit(f"the model is not here; fetch it with: logitlab models get {name}")
    network = open_source(path).reference(torch.float32)
    network.model.save_pretrained(folder)  # type: ignore[attr-defined]
    load_tokenizer(catalog.find(name), path).backend.save(str(folder / "tokenizer.json"))


def generate(folder: Path) -> None:
    try:
        import torch
        import transformers
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SystemExit(f"{error}; {ENVIRONMENT}") from None
    if transformers.__version__ != RELEASE:
        raise SystemExit(f"this is transformers {transformers.__version__}; {ENVIRONMENT}")
    if not (folder / "config.json").is_file():
        raise SystemExit(f"{folder} holds no model; run this with --export first, as written at its top")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text())
    if "rope_parameters" in config:  # transformers 5 writes it under another name
        config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    model = transformers.LlamaForCausalLM.from_pretrained(
        folder, config=transformers.LlamaConfig(**config), torch_dtype=torch.float32
    )
    expected: dict[str, object] = {"transformers": transformers.__version__, "max_new_tokens": NEW_TOKENS}
    for name, options in (("greedy", {}), ("contrastive", {"penalty_alpha": 0.6, "top_k": 40})):
        tokens = {}
        for prompt in PROMPTS:
            ids = torch.tensor([tokenizer.encode(prompt).ids])
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=2,
                pad_token_id=2,
                **options,
            )
            tokens[prompt] = output[0, ids.shape[1] :].tolist()
        expected[name] = tokens
    TARGET.write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--export", action="store_true", help="write the model into FOLDER, with logitlab's environment"
    )
    parser.add_argument("--model", default="smollm2-135m")
    options = parser.parse_args()
    if options.export:
        export(options.model, options.folder)
    else:
        generate(options.folder)


if __name__ == "__main__":
    main()
