# Builds llama-cpp-python and, from the llama.cpp in its source package, llama-server and llama-perplexity into
# .venv-llama, once.
# Without the instructions of this very processor: llama.cpp's code for AMX crashes with some quantised weights.
set -eu
PYTHON=${PYTHON:-python3}
bin=$PWD/.venv-llama/bin
[ -x "$bin/llama-server" ] && [ -x "$bin/llama-perplexity" ] && exit 0

fail() {
    echo "$1 cannot be built here: its tests are skipped"
    exit 0
}

[ -x "$bin/python" ] || $PYTHON -m venv .venv-llama
pip="$bin/python -m pip --disable-pip-version-check"
export CMAKE_ARGS=-DGGML_NATIVE=OFF
if [ ! -e "$bin/llama-ready-python" ]; then
    $pip install --quiet --no-cache-dir --no-binary llama-cpp-python 'llama-cpp-python[server]' cmake || fail llama-cpp-python
    "$bin/python" -c 'import llama_cpp.server' || fail llama-cpp-python
    ln -s python "$bin/llama-ready-python"
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
$pip download --quiet --no-deps --no-binary :all: llama-cpp-python || fail llama-server
tar xzf llama_cpp_python-*.tar.gz
"$bin/cmake" -S llama_cpp_python-*/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=OFF \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_OPENSSL=OFF >/dev/null || fail llama-server
"$bin/cmake" --build build --target llama-server llama-perplexity --parallel >/dev/null || fail llama-server
cp build/bin/llama-server build/bin/llama-perplexity "$bin/"
