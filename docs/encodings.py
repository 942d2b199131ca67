"""Write the GGUF part of `docs/models.md`: encodings of the weights, and tokenizers, each beside llama.cpp.

    make models                                                         # with `make test-remote` before it
    LOGITLAB_LLAMA_PYTHON=… LOGITLAB_VOCABULARIES=… .venv/bin/python docs/encodings.py [--repeats 3]

The embedded model's weights are encoded again by llama.cpp's own quantiser; our operators in C++ are made first. Runs
of the two alternate, medians are written. Nothing is written where there is no Python with llama-cpp-python, or no
vocabulary file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
TABLE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- gguf -->", "<!-- /gguf -->"
KINDS = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_NL", "Q3_K_M", "Q2_K")
HEAD = """## GGUF encodings

SmolLM2-135M in llama.cpp's encodings, one thread of a processor with {processor}. *KL* is the mean divergence of the
next-token distributions from those of the same file in float32, in nats, over {tokens} tokens: of the weights as they
run (`native`), and of the file unpacked to bfloat16. *Memory* is what the process grows by, from the imports to the end
of {steps} steps; *speed* is llama.cpp's milliseconds a token divided by ours, higher is faster.

"""
TEXT = (
    "The history of the city begins in the ninth century, when merchants from the north settled beside the river and "
    "built a small wooden fortress. Over the following decades, trade in salt, fur and amber brought wealth to its "
    "inhabitants. def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)"
)
STEPS = 24
RSS = "int(next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1]) / 1000"

ENCODE = """
import ctypes, sys, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
parameters.allow_requantize = True
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(parameters)))
"""
THEIRS = f"""
import json, sys, time
from llama_cpp import Llama
before = {RSS}
model = Llama(sys.argv[1], n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
model.eval(list(range(300, 310)))
seconds = []
for step in range({STEPS}):
    began = time.perf_counter()
    model.eval([100 + step])
    seconds.append(time.perf_counter() - began)
print(json.dumps({{"step": sorted(seconds)[len(seconds) // 2], "memory": {RSS} - before}}))
"""
OURS = f"""
import json, sys, time
from pathlib import Path
import torch
from engine.loading import load_local
import engine.networks.sources, engine.networks.traced
torch.set_num_threads(1)
before = {RSS}
network = load_local(sys.argv[1], threads=1).network
cache = network.cache(256, [0])
network.forward(torch.arange(300, 310)[None], cache).logits()
seconds = []
for step in range({STEPS}):
    began = time.perf_counter()
    network.forward(torch.tensor([[100 + step]]), cache).logits()
    seconds.append(time.perf_counter() - began)
print(json.dumps({{"step": sorted(seconds)[len(seconds) // 2], "memory": {RSS} - before}}))
"""


def measured(python: str, code: str, file: Path) -> dict[str, float]:
    """What a process prints of a model's file."""
    process = subprocess.run([python, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return figures


def divergences(file: Path) -> tuple[float, float, int]:
    """KL to float32 of the weights as they run and of bfloat16, in nats, and the number of tokens."""
    import torch

    from engine.models.gguf_tokenizer import gguf_tokenizer
    from engine.networks import operators
    from engine.networks.agreement import divergence
    from engine.networks.sources import open_source

    ids = torch.tensor([gguf_tokenizer(file).encode_ids(TEXT)])
    logits = []
    operators.begin()
    for precision in ("float32", "native", "bfloat16"):
        source = open_source(file)
        dtype, native = source.dtype(precision, "cpu")
        network = source.own(dtype, native=native)
        logits.append(network.forward(ids, network.cache(ids.shape[1], [0]), all_logits=True).all_logits())
    return divergence(logits[0], logits[1]), divergence(logits[0], logits[2]), ids.shape[1]


def encodings(python: str, repeats: int) -> tuple[list[str], int]:
    """The table's lines, and the number of tokens that the divergence is over."""
    from engine.models.catalog import embedded_path

    rows = ["| encoding | file, MB | KL native | KL bfloat16 | memory, MB | llama.cpp's | speed |", "|---" * 7 + "|"]
    tokens = 0
    with tempfile.TemporaryDirectory(prefix="logitlab-encodings-") as folder:
        plain = Path(folder) / "f16.gguf"
        subprocess.run([python, "-c", ENCODE, str(embedded_path()), str(plain), "F16"], check=True, capture_output=True)
        for kind in KINDS:
            file = plain if kind == "F16" else Path(folder) / f"{kind}.gguf"
            if kind != "F16":
                subprocess.run([python, "-c", ENCODE, str(plain), str(file), kind], check=True, capture_output=True)
            native, bfloat16, tokens = divergences(file)
            measured(sys.executable, OURS, file)  # which checks a new file against transformers
            pairs = [(measured(sys.executable, OURS, file), measured(python, THEIRS, file)) for _time in range(repeats)]
            ours, theirs = ({name: median(one[name] for one in side) for name in side[0]} for side in zip(*pairs))
            size, speed = file.stat().st_size / 1e6, theirs["step"] / ours["step"]
            memory = f"{ours['memory']:,.0f} | {theirs['memory']:,.0f}"
            rows.append(f"| {kind} | {size:,.0f} | {native:.2g} | {bfloat16:.2g} | {memory} | {speed:.2f} |")
            print(rows[-1], flush=True)
            if file != plain:
                file.unlink()
    return rows, tokens


def tokenizers(folder: Path) -> list[str]:
    """A line a vocabulary file: how many of llama.cpp's texts are cut into llama.cpp's tokens."""
    from tests.engine.test_gguf_vocabularies import plain_ids, texts_of, tokenizer_of

    rows = ["| vocabulary | entries | texts as llama.cpp cuts them |", "|---" * 3 + "|"]
    for file in sorted(folder.glob("ggml-vocab-*.gguf")):
        if Path(f"{file}.out").is_file():
            texts, wanted = texts_of(file)
            tokenizer = tokenizer_of(file)
            right = sum(plain_ids(tokenizer, text) == ids for text, ids in zip(texts, wanted))
            name = file.stem.removeprefix("ggml-vocab-")
            rows.append(f"| {name} | {tokenizer.vocabulary_size:,} | {right} of {len(wanted)} |")
            print(rows[-1], flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    python, vocabularies = os.environ.get("LOGITLAB_LLAMA_PYTHON"), os.environ.get("LOGITLAB_VOCABULARIES")
    if not python or not vocabularies or not any(Path(vocabularies).glob("ggml-vocab-*.gguf")):
        print("0 rows: llama.cpp is not here; run make test-remote first, then make models")
        return 0
    import torch

    from engine.networks import operators, operators_build

    if operators.wanted() and operators.compiler() is not None:
        operators_build.main(operators.folder())
    rows, tokens = encodings(python, arguments.repeats)
    head = HEAD.format(processor=torch.backends.cpu.get_cpu_capability(), tokens=tokens, steps=STEPS)
    part = "\n".join(
        [BEGIN, head + "\n".join(rows), "", "## GGUF tokenizers", "", *tokenizers(Path(vocabularies)), END]
    )
    before = TABLE.read_text(encoding="utf-8")
    if BEGIN in before:
        after = before[: before.index(BEGIN)] + part + before[before.index(END) + len(END) :]
    else:
        after = before.rstrip("\n") + "\n\n" + part + "\n"
    TABLE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
